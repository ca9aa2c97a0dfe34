"""The search over meshes: every choice once, a front that is one, and lines that give what they say."""

import math
import random
import re

import pytest

from t5x_like.configurables import CONFIGURABLES
from t5x_like.planning.search import REMATS, Choice, Found, choices, factorisations, front
from tests.commands.command_line import succeed, t5x_like

CONFIG = """
include 'models/llama_tiny.gin'
include 'optimizers/adamw.gin'
train.eval_every = 10
train.save_every = 10
train.data = @Pipeline()
train.loss = @CrossEntropy()
Pipeline.render = @decoder_only
Pipeline.lengths = {'targets': 32}
Pipeline.batch_size = 8
warmup_cosine.total_steps = 1000
"""


@pytest.mark.parametrize("number", [1, 2, 8, 12, 256])
def test_products_are_all_there_once(number):
    found = list(factorisations(number, 3))
    expected = [(a, b, c) for a in range(1, number + 1) if number % a == 0 for b in range(1, number + 1)
                if (number // a) % b == 0 for c in [number // a // b]]  # fmt: skip
    assert found == expected and all(math.prod(one) == number for one in found)


def test_choices_hold_whole_rows_and_every_remat():
    found = list(choices(8, axes=("tensor", "fsdp"), rows=(4, 8), remats=("a", "b")))
    assert len(set(found)) == len(found)
    assert {(dict(one.sizes)["fsdp"], one.rows) for one in found} == {
        (1, 4),
        (2, 4),
        (4, 4),
        *((n, 8) for n in (1, 2, 4, 8)),
    }
    assert {one.remat for one in found} == {"a", "b"} and all(one.sizes[0][0] == "fsdp" for one in found)
    for wrong in ({"axes": ("rows",), "rows": (8,)}, {"axes": ("fsdp",), "rows": ()}):
        with pytest.raises(ValueError, match="axes"):
            list(choices(8, **wrong))


@pytest.mark.parametrize("seed", range(5))
def test_nothing_on_the_front_is_beaten_and_everything_else_is(seed):
    rng = random.Random(seed)
    choice = Choice((("fsdp", 8),), "a", 8)
    found = [Found(choice, rng.randrange(20), 0.0, float(rng.randrange(1, 20)), 1) for _ in range(60)]
    best = front(found)

    def beats(one, other):
        return one.cost[0] <= other.cost[0] and one.cost[1] <= other.cost[1] and one.cost != other.cost

    assert not any(beats(one, other) for one in found for other in best)
    assert all(any(beats(one, other) or one.cost == other.cost for one in best) for other in found)
    assert set(REMATS) <= set(CONFIGURABLES)
    assert front([]) == [] and len({one.cost for one in best}) == len(best)


def test_lines_of_the_front_give_the_memory_that_it_says(tmp_path):
    (tmp_path / "tiny.gin").write_text(CONFIG)
    told = succeed(
        "plan", f"--gin_file={tmp_path}/tiny.gin", "--device=H100", "--search", "--axes=fsdp", "--rows=8",
        f"--report={tmp_path}/plan.html",
    ).out  # fmt: skip
    assert "3 choices: 3 fit, 0 need more than" in told
    block = told.split("\n# 1: ")[1].split("\n\n")[0]
    name, *lines = block.splitlines()
    assert name.startswith("fsdp 8, ") and "make_mesh.fsdp = 8" in lines
    (tmp_path / "best.gin").write_text("\n".join(lines))
    again = succeed("plan", f"--gin_file={tmp_path}/tiny.gin", f"--gin_file={tmp_path}/best.gin", "--device=H100").out
    row = next(line for line in told.splitlines() if name in line)
    size = re.search(r"[\d.]+ [KMG]iB", row)[0]
    assert f"peak {size}" in re.sub(r"\s+", " ", again)
    page = (tmp_path / "plan.html").read_text()
    assert name in page and "<svg" in page
    refused = t5x_like("plan", f"--gin_file={tmp_path}/tiny.gin", "--search")
    assert refused.code == 2 and "--search needs the figures of a device" in refused.err
