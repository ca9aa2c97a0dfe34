"""Products in 8 bits are qwix's, and err no more than their rounding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.attention import Attention
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.eight_bit import TYPES, EightBit
from t5x_like.models.layers import GatedMlp, Mlp

TOKENS, INNER, HEADS, DIM = 24, 32, 3, 8


def factors(dtype=jnp.float32):
    x, kernel, dy = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(x, (2, TOKENS, INNER), dtype) * 3,
        jax.random.normal(kernel, (INNER, HEADS, DIM), dtype) / 6,
        jax.random.normal(dy, (2, TOKENS, HEADS, DIM), dtype) * 1e-5,
    )


def product_and_gradients(matmul, x, kernel, dy):
    y, back = jax.vjp(matmul, x, kernel)
    return [y, *back(dy)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # qwix asks flax in old ways
@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("scale_per", ["channel", "tensor"])
def test_product_and_gradients_are_those_of_qwix(types, scale_per):
    """Of its own quantised training, whose layers are found by the matrices that they hold."""
    x, kernel, dy = factors()
    kernel, dy = kernel.reshape(INNER, -1), dy.reshape(2, TOKENS, -1)
    values, gradients = TYPES[types]
    rule = qwix.QtRule(
        weight_qtype=values, act_qtype=values, bwd_qtype=gradients, disable_channelwise_axes=scale_per == "tensor"
    )
    layer = nnx.Linear(INNER, HEADS * DIM, use_bias=False, rngs=nnx.Rngs(0))
    layer = qwix.quantize_model(layer, qwix.QtProvider([rule]), x)

    graphdef, state = nnx.split(layer)

    def theirs(x, kernel):
        return nnx.merge(graphdef, nnx.map_state(lambda path, leaf: kernel, state))(x)

    ours = EightBit(types, scale_per)
    for mine, other in zip(
        product_and_gradients(ours, x, kernel, dy), product_and_gradients(theirs, x, kernel, dy), strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-12)


# Of one factor, the largest error of rounding: half of the last place of its largest number, and for float8
# half of the last place of each number besides, with 3 bits after the point (values) or 2 (gradients).
@pytest.mark.parametrize("types, bits", [("float8", (3, 2)), ("int8", (7, 7))])
@pytest.mark.parametrize("scale_per", ["channel", "tensor"])
def test_an_error_is_no_larger_than_its_roundings(types, bits, scale_per):
    x, kernel, dy = factors()
    exact = product_and_gradients(lambda x, kernel: jnp.tensordot(x, kernel, 1), x, kernel, dy)
    ours = product_and_gradients(EightBit(types, scale_per), x, kernel, dy)
    value, gradient = (2.0 ** -(n + 1) for n in bits)
    for mine, true, error in zip(ours, exact, (2 * value, value + gradient, value + gradient), strict=True):
        off = jnp.linalg.norm(mine - true) / jnp.linalg.norm(true)
        assert 0 < off < 1.5 * error, f"{off:.4f}, roundings {error:.4f}"


@pytest.mark.parametrize("scale_per", ["channel", "tensor"])
def test_zeros_give_zeros_and_the_type_of_x_stays(scale_per):
    x, kernel, dy = factors(jnp.bfloat16)
    ours = EightBit(scale_per=scale_per)
    for y in product_and_gradients(ours, x * 0, kernel * 0, dy * 0):
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(y, np.float32), 0.0)


@pytest.mark.parametrize(
    "types, scale_per, products",
    [
        ("float8", "channel", ["f8E4M3FN, f8E4M3FN", "f8E4M3FN, f8E5M2", "f8E5M2, f8E4M3FN"]),
        ("float8", "tensor", ["f8E4M3FN, f8E4M3FN", "f8E4M3FN, f8E5M2", "f8E5M2, f8E4M3FN"]),
        ("int8", "channel", ["i8, i8"] * 3),
        ("int8", "tensor", ["i8, i8"] * 3),
    ],
)
def test_all_three_products_have_both_factors_in_8_bits(types, scale_per, products):
    ours = EightBit(types, scale_per)
    lowered = jax.jit(functools.partial(product_and_gradients, ours)).lower(*factors(jnp.bfloat16)).as_text()
    lines = [line.split(" : ")[1] for line in lowered.splitlines() if "dot_general" in line]
    pairs = [", ".join(part.split("x")[-1].split(">")[0] for part in line.split("tensor<")[1:3]) for line in lines]
    assert sorted(pairs) == sorted(products)


@pytest.mark.parametrize("mlp, products", [(GatedMlp, 7), (Mlp, 6)])
def test_every_projection_of_a_layer_and_nothing_else_is_in_8_bits(mlp, products):
    """Query, key, value, out; gate, up and down. The two products of attention and the head stay as they are."""
    layer = functools.partial(
        Block, attention=functools.partial(Attention, matmul=EightBit()), mlp=functools.partial(mlp, matmul=EightBit())
    )
    sizes = {"vocab_size": 64, "num_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 32}
    model = Decoder(**sizes, layers=layer, layer_loop="unrolled", rngs=nnx.Rngs(0))
    row = jnp.arange(8, dtype=jnp.int32)[None]
    batch = Features(row, row, jnp.ones((1, 8)), jnp.ones_like(row), row[..., None], row)
    lines = [line for line in jax.jit(model).lower(batch).as_text().splitlines() if "dot_general" in line]
    assert sum("f8E4M3FN" in line for line in lines) == products and len(lines) == products + 3


@pytest.mark.parametrize("options", [{"types": "float7"}, {"scale_per": "tensors"}])
def test_an_unknown_name_is_refused_with_the_nearest(options):
    nearest = "float8" if "types" in options else "tensor"
    with pytest.raises(ValueError, match=f"'{next(iter(options.values()))}' is not one of .*nearest is '{nearest}'"):
        EightBit(**options)
