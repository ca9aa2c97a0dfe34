"""Every head against its formula, written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.models import task_heads
from t5x_like.models.blocks import Block
from t5x_like.models.heads import BiasedTiedHead
from t5x_like.models.initializers import normal_init
from t5x_like.models.layers import Mlp, sizes_of
from t5x_like.models.parameters import merge, split

D, V = 8, 11
SIZES = sizes_of(d_model=D, num_heads=2, num_kv_heads=None, head_dim=None, d_ff=12, dtype="float32")
AXES = {"vocab", "embed", "mlp", "heads", "kv_heads", "head_dim", "positions", None}
wide = normal_init(num_layers=1, head_dim=4, stddev=0.5)


def make(head):
    """The head with values away from 0 and 1, and these values in float64."""
    graphdef, params, axes = split(head)
    assert all(len(axes[name]) == value.ndim and set(axes[name]) <= AXES for name, value in params.items())
    keys = dict(zip(params, jax.random.split(jax.random.key(1), len(params)), strict=True))
    params = {name: value + 0.3 * jax.random.normal(keys[name], value.shape) for name, value in params.items()}
    return merge(graphdef, params), {name: np.asarray(value, np.float64) for name, value in params.items()}


def made(kind, **options):
    return make(kind(SIZES, init=wide, rngs=nnx.Rngs(params=jax.random.key(0)), **options))


def states(*shape, seed=2):
    return np.asarray(jax.random.normal(jax.random.key(seed), (*shape, D)))


def gelu(x):
    return np.asarray(jax.nn.gelu(x, approximate=False), np.float64)


def norm(x, values, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * values[f"{name}/scale"] + values[f"{name}/bias"]


def at(x_BLD, places_BS):
    return np.stack([row[places] for row, places in zip(x_BLD, places_BS, strict=True)])


same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def test_replaced_token_head_is_a_dense_layer_and_one_logit():
    head, v = made(task_heads.ReplacedTokenHead)
    x = states(2, 5)
    expected = gelu(x @ v["dense"] + v["dense_bias"]) @ v["out"][:, 0] + v["out_bias"]
    same(head(x), expected)


def test_pair_head_reads_the_first_token_of_each_pair():
    head, v = made(task_heads.PairHead, num_classes=3)
    x, first = states(2, 5), np.array([[0, 2], [0, 4]])
    expected = np.tanh(at(x, first) @ v["dense"] + v["dense_bias"]) @ v["out"] + v["out_bias"]
    same(head(x, first), expected)
    assert head(x, first).shape == (2, 2, 3)


def test_bilinear_head_has_a_matrix_for_each_relation():
    head, v = made(task_heads.BilinearHead, num_relations=3)
    anchors, candidates = states(4), states(5, seed=3)
    expected = [[[a @ kernel @ c for c in candidates] for a in anchors] for kernel in v["kernel"]]
    same(head(anchors, candidates), expected)


def test_span_boundary_head_reads_both_neighbours_and_the_place_in_the_span():
    head, v = made(task_heads.SpanBoundaryHead, vocab_size=V, max_span=4, position_width=6)
    x, table = states(2, 7), states(V, seed=4)
    before, after, within = np.array([[0, 0], [2, 2]]), np.array([[3, 3], [6, 6]]), np.array([[0, 1], [0, 2]])
    y = np.concatenate([at(x, before), at(x, after), v["positions"][within]], axis=-1)
    y = norm(gelu(y @ v["first"] + v["first_bias"]), v, "first_norm")
    y = norm(gelu(y @ v["second"] + v["second_bias"]), v, "second_norm")
    same(head(x, before, after, within, table), y @ table.T + v["bias"])
    assert np.isnan(head(x, before, after, within + 4, table)).all()


def test_span_boundary_positions_are_200_wide_as_published():
    head, _ = made(task_heads.SpanBoundaryHead, vocab_size=V)
    assert head.positions.shape == (20, 200) and head.first.shape == (2 * D + 200, D)


def test_relation_head_maps_both_start_markers():
    head, v = made(task_heads.RelationHead, width=5)
    x, heads, tails = states(2, 6), np.array([[0], [1]]), np.array([[3], [5]])
    both = np.concatenate([at(x, heads), at(x, tails)], axis=-1)
    same(head(x, heads, tails), both @ v["kernel"] + v["bias"])


def test_entity_head_scores_every_entity_of_its_table():
    head, v = made(task_heads.EntityHead, num_entities=9, width=4)
    x = states(2, 3)
    y = norm(gelu(x @ v["dense"] + v["dense_bias"]), v, "norm") @ v["narrow"]
    same(head(x), y @ v["table"].T + v["bias"])


def test_a_head_s_place_beyond_the_row_is_not_a_number():
    head, _ = made(task_heads.PairHead, num_classes=2)
    assert np.isnan(head(states(1, 5), np.array([[5]]))).all()


def cosines(x, y):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)) @ (y / np.linalg.norm(y, axis=-1, keepdims=True)).T


def test_softmax_contrast_is_the_cosine_over_the_temperature_up_to_a_largest_scale():
    x, y = states(4), states(5, seed=3)
    same(task_heads.SoftmaxContrast()(x, y), cosines(x, y) / 0.07)
    same(task_heads.SoftmaxContrast(temperature=0.001)(x, y), cosines(x, y) * 100)
    head, v = make(task_heads.SoftmaxContrast())
    same(head(x, y), cosines(x, y) * np.exp(v["log_scale"]))


def test_sigmoid_contrast_is_the_scaled_cosine_and_a_bias():
    x, y = states(4), states(5, seed=3)
    same(task_heads.SigmoidContrast()(x, y), 10 * cosines(x, y) - 10)
    head, v = make(task_heads.SigmoidContrast())
    same(head(x, y), cosines(x, y) * np.exp(v["log_scale"]) + v["bias"])


def test_each_extra_token_has_a_layer_of_its_own_on_the_trunk():
    """A token alone sees itself only: attention is its value. Then x + out(value(norm(x))), and the MLP likewise."""
    layer = functools.partial(Block, mlp=functools.partial(Mlp, activation="relu"))
    heads, v = made(task_heads.MultiTokenHeads, num_extra=2, layer=layer)
    x, one = states(3, 1), jnp.ones((3, 1), jnp.int32)
    found = heads(x, Features(None, None, None, one, 0 * one[..., None], 0 * one))

    def rms(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * v[f"{name}/scale"]

    for number, hidden in enumerate(found):
        path = f"heads/{number}/layers/0"
        y = np.einsum("BLD,DGH->BLGH", rms(x, f"{path}/attention_norm/before"), v[f"{path}/attention/value"])
        y = x + np.einsum("BLNH,NHD->BLD", y, v[f"{path}/attention/out"])
        z = np.maximum(rms(y, f"{path}/mlp_norm/before") @ v[f"{path}/mlp/up"], 0) @ v[f"{path}/mlp/down"]
        same(hidden.x_BLD, rms(y + z, f"heads/{number}/final_norm"))
    assert len(found) == 2


def test_biased_tied_head_is_the_table_and_a_bias():
    head, v = made(BiasedTiedHead, vocab_size=V)
    x, table = states(2, 3), states(V, seed=4)
    same(head(x, table), x @ table.T + v["bias"])


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_heads_answer_in_float32_whatever_they_compute_in(dtype):
    sizes = sizes_of(d_model=D, num_heads=2, num_kv_heads=None, head_dim=None, d_ff=12, dtype=dtype)
    rngs, x = nnx.Rngs(params=0), states(2, 5).astype(dtype)
    zero = jnp.zeros((2, 1), jnp.int32)
    part = {"init": wide, "rngs": rngs}
    found = [
        task_heads.ReplacedTokenHead(sizes, **part)(x),
        task_heads.PairHead(sizes, **part, num_classes=2)(x, zero),
        task_heads.BilinearHead(sizes, **part, num_relations=2)(x[0], x[1]),
        task_heads.SpanBoundaryHead(sizes, **part, vocab_size=V)(x, zero, zero + 2, zero, states(V)),
        task_heads.RelationHead(sizes, **part, width=3)(x, zero, zero),
        task_heads.EntityHead(sizes, **part, num_entities=3)(x),
        task_heads.SoftmaxContrast()(x[0], x[1]),
        task_heads.SigmoidContrast()(x[0], x[1]),
    ]
    assert {logits.dtype for logits in found} == {jnp.dtype(jnp.float32)}
