import pytest

from t5x_like.metrics.throughput import Throughput, human_seconds


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self):
        return self.now


def run(window, seconds):
    clock = Clock()
    speed = Throughput(window, clock)
    for second in seconds:
        clock.now += second
        speed.step(tokens=1000, waited=0.1 * second)
    return speed


def test_the_first_step_only_starts_the_clock():
    assert run(10, [60.0]).rates() == {}
    assert run(10, [60.0]).seconds_left(5) is None
    assert run(10, [60.0, 2.0, 2.0]).rates() == pytest.approx(
        {"tokens_per_second": 500.0, "seconds_per_step": 2.0, "data_wait_share": 0.1}
    )


def test_only_the_last_steps_count():
    speed = run(2, [60.0, 9.0, 9.0, 1.0, 3.0])
    assert speed.rates()["seconds_per_step"] == 2.0
    assert speed.seconds_left(10) == 20.0


def test_what_follows_a_pause_is_measured_afresh():
    speed = run(10, [1.0, 1.0])
    speed.restart()
    assert speed.rates() == {}


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="window 0 must be at least 1"):
        Throughput(0)


def test_times_are_written_for_people():
    assert [human_seconds(s) for s in (None, 7.4, 59.6, 125, 3725)] == ["?", "7s", "1m00s", "2m05s", "1h02m"]
