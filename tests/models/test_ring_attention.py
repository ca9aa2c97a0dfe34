"""What makes a ring worth having: memory, balance, and what it sends. Its numbers are in test_all_kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5x_like.models.attention_kernels import Scores, Visible
from t5x_like.models.chunked_attention import Tiles, chunked, chunks_that_meet
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.ring_attention import back_in_order, balanced_ring, ring, spread
from t5x_like.partitioning.mesh import make_mesh, on_mesh
from t5x_like.planning.collectives import collectives_of

B, N, G, H = 1, 4, 2, 16


def mesh_of(num_devices):
    return make_mesh(data=1, context=num_devices, devices=jax.devices()[:num_devices])


@functools.cache
def compiled(kernel, num_devices, length):
    """The gradient of rows of this length, split over so many devices."""
    mesh = mesh_of(num_devices)

    def loss(q_BLNH, k_BLGH, v_BLGH, *who):
        y = kernel(q_BLNH, KeysValues(k_BLGH, v_BLGH), Visible(*who), Scores(), query_chunk=64, key_chunk=64)
        return jnp.sum(y**2)

    place = NamedSharding(mesh, P(None, "context"))
    shapes = [(B, length, N, H), (B, length, G, H), (B, length, G, H)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes]
    who = [jax.ShapeDtypeStruct((B, length), jnp.int32, sharding=place)] * 6
    return jax.jit(jax.grad(on_mesh(mesh, loss), argnums=(0, 1, 2))).lower(*arrays, *who).compile()


def temporaries(kernel, num_devices, length):
    return compiled(kernel, num_devices, length).memory_analysis().temp_size_in_bytes


def test_a_device_holds_what_its_piece_takes_however_long_the_row():
    few, many = temporaries(ring, 2, 1024), temporaries(ring, 8, 4096)
    assert many < 1.05 * few
    assert temporaries(chunked, 8, 4096) > 2 * many  # which gathers keys and values


def test_memory_is_linear_in_the_length():
    short, long = temporaries(ring, 8, 8192), temporaries(ring, 8, 16384)  # long, so that little is a constant
    assert 1.7 * short < long < 2.05 * short


def test_a_ring_hands_on_and_gathers_nothing():
    found = collectives_of(compiled(ring, 8, 4096).as_text(), mesh_of(8))
    assert {(one.kind, one.axes) for one in found} == {("collective-permute", "context")}
    keys = B * 4096 // 8 * G * H * 4
    # Forward, keys and values go round but for their last step; backward, they and their gradients go all the way.
    assert sum(one.times for one in found if one.bytes == keys) == 2 * 7 + 4 * 8
    assert max(one.bytes for one in found) == keys


def test_balanced_pieces_come_from_both_ends_of_the_row_and_go_back():
    x_BL = jnp.arange(16)[None]
    mesh = mesh_of(4)
    x_BL = jax.device_put(x_BL, NamedSharding(mesh, P(None, "context")))
    spread_BL = jax.jit(on_mesh(mesh, lambda x: spread(x, 4)))(x_BL)
    np.testing.assert_array_equal(
        spread_BL[0].reshape(4, 4), [[0, 1, 14, 15], [2, 3, 12, 13], [4, 5, 10, 11], [6, 7, 8, 9]]
    )
    np.testing.assert_array_equal(jax.jit(on_mesh(mesh, lambda x: back_in_order(x, 4)))(spread_BL), x_BL)


@pytest.mark.parametrize("kernel, length, pieces", [(ring, 1004, 8), (balanced_ring, 1000, 16)])
def test_rows_that_do_not_divide_are_refused_in_one_sentence(kernel, length, pieces):
    with pytest.raises(
        ValueError, match=f"^rows of {length} queries do not divide into the ring's {pieces} pieces: .*"
    ):
        compiled(kernel, 8, length)


def pairs_of_chunks(order_of_pieces, num_devices, turn):
    """How many chunks of keys meet chunks of queries on each device in a turn, in a causal row of these pieces."""
    places = np.arange(8 * num_devices).reshape(2 * num_devices, 4)[order_of_pieces].reshape(num_devices, 8)
    tiles = Tiles(4, 4, None, None, 0)
    found = []
    for device in range(num_devices):
        q, k = (jnp.asarray(places[number])[None] for number in (device, (device - turn) % num_devices))
        one = jnp.ones_like(q)
        found.append(int(chunks_that_meet(tiles, Visible(one, one, q, k, q, k)).sum()))
    return found


def test_balanced_pieces_of_a_causal_row_are_the_same_work_on_every_device_in_every_turn():
    n = 4
    balanced = [piece for device in range(n) for piece in (device, 2 * n - 1 - device)]
    assert [pairs_of_chunks(balanced, n, turn) for turn in range(n)] == [[3] * n, [2] * n, [2] * n, [2] * n]
    in_order = [pairs_of_chunks(list(range(2 * n)), n, turn) for turn in range(n)]
    assert in_order == [[3] * n, [0, 4, 4, 4], [0, 0, 4, 4], [0, 0, 0, 4]]  # everybody waits for the last device
