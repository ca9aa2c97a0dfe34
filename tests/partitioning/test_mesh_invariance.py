"""The same losses on every mesh, packed rows and all. The whole table is made by benchmarks/mesh_families.py."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.stages import pipelined
from tests.partitioning import mesh_runs


class Row(NamedTuple):
    family: str
    sizes: dict[str, int]
    rules: AxisRules = AxisRules()
    changes: dict[str, Any] = {}  # noqa: RUF012  read only


MESHES = {
    "MoE, expert x tensor, rows split between products": Row(
        "moe", {"expert": 4, "tensor": 2}, AxisRules(length=("context", "tensor"))
    ),
    "T5, 2 rounds of 2 stages, x data x context": Row(
        "t5",
        {"stage": 2, "data": 2, "context": 2},
        AxisRules(vocab=("stage", "tensor"), vocab_activation=("stage", "tensor")),
        {"layer_loop": pipelined(num_microbatches=4, num_rounds=2)},
    ),
}


@pytest.mark.parametrize("name", MESHES)
def test_twenty_steps_on_packed_rows_are_those_of_one_device(name):
    row = MESHES[name]
    batches = mesh_runs.batches_of(row.family, 20)
    model = mesh_runs.model_of(row.family, **row.changes)
    found = mesh_runs.losses(model, batches, sizes=row.sizes, rules=row.rules)
    np.testing.assert_allclose(found, mesh_runs.losses(mesh_runs.model_of(row.family), batches), rtol=1e-4)
    assert np.ptp(found) > 0.01  # it learns, so a wrong gradient would show
