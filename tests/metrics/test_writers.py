import json
import math

import pytest
from tensorboardX.proto.event_pb2 import Event

from t5x_like.metrics.writers import MetricsLog, NoLog, open_log, read_rows


def log_steps(folder, first, last, resume_step):
    log = MetricsLog(folder, resume_step=resume_step, board_seconds=0.0)
    for step in range(first, last + 1):
        log.write(step, {"loss": 1 / (step + 2), "tokens": step * 512}, {"tokens_per_second": 1e4})
    log.sync()
    log.close()


def test_a_resumed_log_is_the_log_of_the_run_that_was_never_stopped(tmp_path):
    log_steps(tmp_path / "whole", 1, 9, 0)
    log_steps(tmp_path / "parts", 1, 7, 0)
    log_steps(tmp_path / "parts", 5, 9, 4)  # killed at 7, resumed from the checkpoint of step 4
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert [row["step"] for row in read_rows(tmp_path / "parts" / "timings.jsonl")] == list(range(1, 10))


@pytest.mark.parametrize("torn", ['{"step": 8, "lo', '{"step": 8, "loss": 0.5}', '{"step": 3'])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    log_steps(tmp_path, 1, 7, 0)
    whole = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == list(range(1, 8))
    MetricsLog(tmp_path, resume_step=7).close()
    assert (tmp_path / "metrics.jsonl").read_text() == whole


def test_a_damaged_line_in_the_middle_is_not_passed_over(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2 is not JSON"):
        MetricsLog(tmp_path, resume_step=3)


def test_numbers_come_back_exactly_and_nan_is_json(tmp_path):
    values = {"loss": math.pi, "tiny": 1e-45, "count": 12345678901234567, "bad": math.nan, "worse": -math.inf}
    log = MetricsLog(tmp_path, resume_step=0)
    log.write(1, values, {})
    log.close()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert {name: row[name] for name in ("loss", "tiny", "count")} == {n: values[n] for n in ("loss", "tiny", "count")}
    assert (row["bad"], float(row["worse"])) == ("nan", -math.inf)
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)


def events(folder):
    """Reads TensorBoard's record format: length (8), its checksum (4), data, its checksum (4)."""
    for path in sorted(folder.iterdir()):
        content, at = path.read_bytes(), 0
        while at < len(content):
            size = int.from_bytes(content[at : at + 8], "little")
            yield Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16


def test_tensorboard_has_metrics_and_timings_and_is_told_what_to_forget(tmp_path):
    log_steps(tmp_path, 1, 7, 0)
    log_steps(tmp_path, 5, 6, 4)
    seen = list(events(tmp_path / "tensorboard"))
    tags = {(value.tag, event.step) for event in seen for value in event.summary.value}
    assert {("loss", 7), ("tokens_per_second", 7), ("loss", 5)} <= tags
    # A session log of kind START at step 5 makes TensorBoard drop what the killed run logged for 5 and later.
    assert 5 in [event.step for event in seen if event.session_log.status == 1]


def test_only_process_0_writes(tmp_path):
    log = open_log(tmp_path / "run", resume_step=0, process_index=1)
    log.write(1, {"loss": 1.0}, {})
    log.sync()
    log.close()
    assert isinstance(log, NoLog) and not (tmp_path / "run").exists()


def test_tensorboard_gets_a_point_a_second_and_every_evaluation(tmp_path):
    log = MetricsLog(tmp_path, resume_step=0, board_seconds=3600.0)
    for step in range(1, 6):
        log.write(step, {"loss": 1.0} | ({"eval/text/loss": 2.0} if step == 4 else {}), {})
    log.close()
    tags = {(value.tag, event.step) for event in events(tmp_path / "tensorboard") for value in event.summary.value}
    assert tags == {("loss", 1), ("eval/text/loss", 4)}
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 5
