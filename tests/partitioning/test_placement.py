import jax
import jax.numpy as jnp
import optax
from jax.sharding import SingleDeviceSharding
from rich.console import Console

from t5x_like.partitioning.axis_rules import AxisRules, optimizer_shardings, shardings
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.partitioning.placement import bytes_per_device, human_bytes, placement_rows, placement_table

MESH = make_mesh(data=2, fsdp=2, tensor=2)
SHAPES = {f"decoder/layers_{i}/wi": jax.ShapeDtypeStruct((8, 16), jnp.float32) for i in range(3)}
SHAPES["norm/scale"] = jax.ShapeDtypeStruct((8,), jnp.bfloat16)
AXES = {name: ("embed", "mlp") if "wi" in name else (None,) for name in SHAPES}


def placed():
    where = shardings(MESH, AxisRules(), SHAPES, AXES)
    return {n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where[n]) for n, x in SHAPES.items()}


def test_layers_share_a_row_and_bytes_are_those_of_one_device():
    layers, norm = placement_rows(placed())
    assert (layers.name, layers.count, layers.parameters) == ("decoder/layers_*/wi", 3, 3 * 128)
    assert (layers.spec, layers.bytes_per_device) == ("fsdp, tensor", 3 * 128 * 4 // 4)
    assert (norm.spec, norm.dtype, norm.bytes_per_device) == ("whole", "bfloat16", 16)


def test_the_table_adds_up_parameters_and_optimizer():
    params = placed()
    shapes = jax.eval_shape(optax.adam(1e-3).init, SHAPES)
    where = optimizer_shardings(shapes, SHAPES, {n: x.sharding for n, x in params.items()}, MESH)
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, where)
    console = Console(width=100, record=True, force_terminal=False)
    console.print(placement_table(params, state))
    text = console.export_text()
    per_device = sum(map(bytes_per_device, params.values())), sum(map(bytes_per_device, jax.tree.leaves(state)))
    assert per_device == (400, 804)
    assert all(human_bytes(count) in text for count in (*per_device, sum(per_device)))
    assert "decoder/layers_*/wi" in text and "392" in text


def test_one_device_holds_everything():
    whole = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=SingleDeviceSharding(jax.devices()[0]))
    assert placement_rows({"w": whole})[0].spec == "whole"


def test_sizes_are_written_for_people():
    assert [human_bytes(n) for n in (12, 1536, 3 * 2**30, 5 * 2**50)] == ["12 B", "1.5 KiB", "3.0 GiB", "5120.0 TiB"]
