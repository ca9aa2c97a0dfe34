"""The same losses on every mesh: each axis that a family can use. The whole table is benchmarks/mesh_table.py."""

import functools

import numpy as np
import pytest

from t5x_like.partitioning.axis_rules import AxisRules
from tests.partitioning import mesh_runs

MESHES = {
    "fsdp x context": ({"fsdp": 2, "context": 4}, AxisRules()),
    "expert x tensor": ({"expert": 4, "tensor": 2}, AxisRules()),
    "sequence parallel": ({"context": 2, "tensor": 4}, AxisRules(length=("context", "tensor"))),
}


@functools.cache
def on_one_device(family):
    return mesh_runs.losses(mesh_runs.model_of(family, num_layers=2), mesh_runs.batches_of(family, 20))


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("family", ["t5", "moe"])
def test_twenty_steps_on_packed_rows_are_those_of_one_device(family, mesh):
    sizes, rules = MESHES[mesh]
    model, batches = mesh_runs.model_of(family, num_layers=2), mesh_runs.batches_of(family, 20)
    found = mesh_runs.losses(model, batches, sizes=sizes, rules=rules)
    np.testing.assert_allclose(found, on_one_device(family), rtol=1e-4)
    assert np.ptp(found) > 0.01  # it learns, so a wrong gradient would show
