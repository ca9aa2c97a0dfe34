import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from optax import contrib

from t5x_like.partitioning.axis_rules import (
    AxisRules,
    batch_sharding,
    beside,
    constrain,
    optimizer_shardings,
    shardings,
)
from t5x_like.partitioning.mesh import make_mesh

SHAPES = {
    "decoder/layers/mlp/wi": jax.ShapeDtypeStruct((3, 8, 16), jnp.float32),
    "decoder/layers/norm/scale": jax.ShapeDtypeStruct((3, 8), jnp.float32),
    "embedding": jax.ShapeDtypeStruct((32, 8), jnp.float32),
}
AXES = {
    "decoder/layers/mlp/wi": ("layers", "embed", "mlp"),
    "decoder/layers/norm/scale": ("layers", None),
    "embedding": ("vocab", "embed"),
}
MESH = make_mesh(data=2, fsdp=2, tensor=2)


def test_the_table_is_all_that_decides():
    assert AxisRules().spec("vocab", "embed") == P("tensor", "fsdp")
    assert AxisRules(embed=("data", "fsdp")).spec("embed", None) == P(("data", "fsdp"), None)
    assert AxisRules(embed=None).spec("embed") == P(None)


def test_what_is_no_expert_is_split_over_the_axis_of_experts_too():
    rules = AxisRules(embed=("fsdp", "expert"))
    assert rules.spec("embed", "mlp") == P(("fsdp", "expert"), "tensor")
    assert rules.spec("expert", "embed", "mlp") == P("expert", "fsdp", "tensor")
    assert AxisRules(embed=("expert",)).spec("expert", "mlp", "embed") == P("expert", "tensor", None)


@pytest.mark.parametrize(
    "axes, message",
    [(("emebd",), "no rule for the logical axes ['emebd']"), (("mlp", "heads"), "split over ['tensor'] twice")],
)
def test_axes_that_make_no_sense_are_refused(axes, message):
    with pytest.raises(ValueError) as error:
        AxisRules().spec(*axes)
    assert message in str(error.value)


def test_every_logical_axis_of_the_package_has_a_row():
    rows = {field.name for field in dataclasses.fields(AxisRules)}
    assert rows >= {"vocab", "embed", "mlp", "heads", "kv_heads", "head_dim", "layers", "relative_buckets", "positions"}
    assert rows >= {"expert"}
    assert rows >= {"batch", "length", "embed_activation", "heads_activation", "mlp_activation", "vocab_activation"}


def test_parameters_are_split_by_their_axes():
    placed = shardings(MESH, AxisRules(), SHAPES, AXES)
    assert placed["decoder/layers/mlp/wi"] == NamedSharding(MESH, P("stage", "fsdp", "tensor"))
    assert placed["embedding"].shard_shape((32, 8)) == (16, 4)


def test_a_dimension_that_does_not_divide_is_named_with_its_remedy():
    shapes = {"wi": jax.ShapeDtypeStruct((8, 15), jnp.float32)}
    with pytest.raises(ValueError) as error:
        shardings(MESH, AxisRules(), shapes, {"wi": ("embed", "mlp")})
    text = str(error.value)
    assert "parameter wi (8, 15): dimension mlp=15 does not divide by 2 devices (tensor)" in text
    assert "AxisRules.mlp = None" in text and "\n" not in text


def test_a_rule_for_an_axis_that_the_mesh_lacks_is_refused():
    with pytest.raises(ValueError, match=r"AxisRules\.embed = 'model'"):
        shardings(MESH, AxisRules(embed="model"), SHAPES, AXES)


def test_a_batch_is_split_over_data_and_fsdp_and_must_divide():
    assert batch_sharding(MESH, AxisRules(), 8).shard_shape((8, 5)) == (2, 5)
    with pytest.raises(ValueError, match="batch=6 does not divide by 4 devices"):
        batch_sharding(MESH, AxisRules(), 6)


def test_activations_are_placed_where_the_rules_say():
    shard = constrain(MESH, AxisRules())
    x = jax.jit(lambda x: shard(x * 2, "batch", "length", "mlp_activation"))(jnp.ones((4, 3, 8)))
    assert x.sharding.shard_shape(x.shape) == (1, 3, 4)
    with pytest.raises(ValueError, match=r"activation .* batch=3 does not divide"):
        jax.eval_shape(lambda x: shard(x, "batch", "length"), jnp.ones((3, 3)))


def test_equal_constraints_are_one_static_argument():
    assert constrain(MESH, AxisRules()) == constrain(make_mesh(data=2, fsdp=2, tensor=2), AxisRules())
    assert hash(constrain(MESH, AxisRules())) == hash(constrain(MESH, AxisRules()))


OPTIMIZERS = {
    "adamw": optax.adamw(1e-3),
    "masked": optax.chain(optax.clip_by_global_norm(1.0), optax.masked(optax.adam(1e-3), {n: "wi" in n for n in AXES})),
    "multi_transform": optax.multi_transform(
        {"a": optax.adam(1e-3), "b": optax.sgd(1e-3, momentum=0.9)}, {n: "a" if "wi" in n else "b" for n in SHAPES}
    ),
    "adafactor": optax.adafactor(1e-3, min_dim_size_to_factor=4),
    "muon": contrib.muon(1e-3),
    "schedule_free": contrib.schedule_free_adamw(1e-3),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_optimizer_state_is_created_beside_its_parameters(optimizer):
    placed = shardings(MESH, AxisRules(), SHAPES, AXES)
    make = jax.jit(lambda: {name: jnp.ones(x.shape) for name, x in SHAPES.items()}, out_shardings=placed)
    params = make()
    shapes = jax.eval_shape(optimizer.init, params)
    plan = optimizer_shardings(shapes, SHAPES, placed, MESH)
    state = jax.jit(optimizer.init, out_shardings=plan)(params)
    assert jax.tree.structure(state) == jax.tree.structure(plan)
    for array, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(plan), strict=True):
        assert array.sharding.is_equivalent_to(sharding, array.ndim)
        assert len(array.sharding.device_set) == 8
    like_wi = [x for x in jax.tree.leaves(state) if x.shape == (3, 8, 16)]
    assert all(x.sharding.shard_shape(x.shape) == (3, 4, 8) for x in like_wi)


def test_adafactor_rows_and_columns_keep_what_is_left_of_the_split():
    placed = shardings(MESH, AxisRules(), SHAPES, AXES)
    shapes = jax.eval_shape(optax.adafactor(1e-3, min_dim_size_to_factor=4).init, SHAPES)
    factored = optimizer_shardings(shapes, SHAPES, placed, MESH)[0]
    assert factored.v_row["decoder/layers/mlp/wi"].spec == P("stage", "fsdp")
    assert factored.v_col["decoder/layers/mlp/wi"].spec == P("stage", "tensor")
    assert factored.v["decoder/layers/mlp/wi"].spec == P()


def test_zero_1_is_another_table_for_the_optimizer():
    whole = shardings(MESH, AxisRules(embed=None), SHAPES, AXES)
    split = shardings(MESH, AxisRules(embed=("data", "fsdp")), SHAPES, AXES)
    shapes = jax.eval_shape(optax.adam(1e-3).init, SHAPES)
    state = optimizer_shardings(shapes, SHAPES, split, MESH)
    assert whole["embedding"].shard_shape((32, 8)) == (16, 8)
    assert state[0].mu["embedding"].shard_shape((32, 8)) == (16, 2)


def test_a_value_for_each_block_of_the_last_dimension_is_split_as_far_as_blocks_go():
    param = jax.ShapeDtypeStruct((32, 8), jnp.float32)
    place = NamedSharding(MESH, P(None, ("data", "fsdp")))

    def spec(*shape):
        return beside(jax.ShapeDtypeStruct(shape, jnp.float32), param, place).spec

    assert spec(32, 8) == spec(32, 4) == P(None, ("data", "fsdp"))
    assert spec(32, 2) == spec(32, 1) == P(None, None)  # fewer blocks than devices
    assert spec(8) == P(("data", "fsdp")) and spec(5, 5) == P()


def test_a_split_matmul_gives_the_numbers_of_a_whole_one():
    shard = constrain(MESH, AxisRules())
    x, w = jax.random.normal(jax.random.key(0), (4, 8)), jax.random.normal(jax.random.key(1), (8, 16))
    np.testing.assert_allclose(jax.jit(lambda x, w: shard(x @ w, "batch", "mlp_activation"))(x, w), x @ w, rtol=1e-5)
