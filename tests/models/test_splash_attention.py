"""What splash attention believes of the data, and what it refuses; its numbers are in test_all_kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5x_like.features import Features
from t5x_like.models.attention_kernels import Scores, Visible, xla
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.splash_attention import block_of, require_order, splash
from t5x_like.partitioning.mesh import make_mesh, on_mesh


def features(segments, orders, places=None):
    segments, orders = np.array(segments, np.int32), np.array(orders, np.int32)
    places = orders if places is None else np.array(places, np.int32)
    return Features(None, None, None, segments, places[:, :, None], orders)


def test_orders_that_hold_pass():
    require_order(features([[1, 1, 1, 2, 2, 0]], [[0, 1, 2, 0, 1, 0]]), "causal")
    require_order(features([[1, 1, 1, 2, 2, 0]], [[0, 0, 0, 0, 0, 0]], [[0, 1, 2, 0, 1, 0]]), "bidirectional")


@pytest.mark.parametrize(
    "segments, orders, places, order, message",
    [
        ([1, 1, 1, 0], [0, 0, 1, 0], [0, 1, 2, 0], "causal", "places 0 and 1.*rise from place to place.*0 and 0"),
        ([1, 1, 1, 0], [2, 1, 0, 0], [0, 1, 2, 0], "causal", "rise from place to place"),
        ([1, 1, 1, 0], [0, 0, 1, 0], [0, 1, 2, 0], "bidirectional", "places 1 and 2.*be one number"),
        ([1, 1, 1, 0], [0, 1, 2, 0], [0, 1, 1, 0], "causal", "positions rise by 1"),
        ([1, 2, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0], "causal", "row 0.*in one piece"),
    ],
)
def test_orders_that_do_not_hold_are_named_with_row_and_place(segments, orders, places, order, message):
    with pytest.raises(ValueError, match=message):
        require_order(features([segments], [orders], [places]), order)


def test_an_unknown_order_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'casual' is not one of .*nearest is 'causal'"):
        require_order(features([[1]], [[0]]), "casual")


def ask(queries, keys, **options):
    q, k = jnp.zeros((1, queries, 2, 8)), jnp.zeros((1, keys, 2, 8))
    ids = [jnp.ones((1, size), jnp.int32) for size in (queries, keys) * 3]
    return splash(q, KeysValues(k, k), Visible(*ids), Scores(), interpret=True, **options)


@pytest.mark.parametrize(
    "lengths, options, message",
    [
        ((128, 256), {"order": "causal"}, "as many keys as queries"),
        ((128, 128), {"order": "prefix"}, "not one of causal, bidirectional"),
        ((128, 128), {"order": "causal", "block": 100}, "not a multiple of 128"),
    ],
)
def test_what_cannot_be_right_is_refused(lengths, options, message):
    with pytest.raises(ValueError, match=message):
        ask(*lengths, **options)


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "tensor": 8}])
def test_on_a_mesh_each_device_has_its_rows_and_heads_and_all_is_as_on_one_device(axes):
    keys = jax.random.split(jax.random.key(0), 3)
    B, L, N, G, H = 8, 128, 8, 8 if axes.get("tensor") == 8 else 2, 8
    q, k, v = (jax.random.normal(key, (B, L, n, H)) for key, n in zip(keys, (N, G, G), strict=True))
    place = jnp.tile(jnp.arange(L)[None], (B, 1))
    segments, order = 1 + place // 50, place % 50
    visible = Visible(segments, segments, order, order, order, order)

    def values(kernel):
        def loss(q, k, v):
            return (kernel(q, KeysValues(k, v), visible, Scores()) ** 2).sum()

        return jax.value_and_grad(loss, argnums=(0, 1, 2))

    expected = jax.jit(values(xla))(q, k, v)
    mesh = make_mesh(**axes)
    kernel = functools.partial(splash, order="causal", block=128, interpret=True)
    there = jax.device_put((q, k, v), NamedSharding(mesh, P()))
    found = jax.jit(on_mesh(mesh, values(kernel)))(*there)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), found, expected)


@pytest.mark.parametrize(
    "axes, message",
    [
        ({"data": 1, "tensor": 8}, "cannot give 8 rows and 2 key heads to 1 x 8 devices"),
        ({"data": 1, "context": 8}, "reads whole rows and the mesh cuts them in 8; use ring"),
    ],
)
def test_what_a_mesh_cannot_share_out_is_refused(axes, message):
    q, k = jnp.zeros((8, 128, 8, 8)), jnp.zeros((8, 128, 2, 8))
    visible = Visible(*[jnp.ones((8, 128), jnp.int32)] * 6)
    call = functools.partial(splash, q, KeysValues(k, k), visible, Scores(), order="causal", interpret=True)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(on_mesh(make_mesh(**axes), call))


def test_a_block_divides_the_length():
    assert [block_of(length, 512) for length in (128, 384, 512, 640, 1024)] == [128, 384, 512, 128, 512]
