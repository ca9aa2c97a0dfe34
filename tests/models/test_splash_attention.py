"""What splash attention believes of the data, and what it refuses; its numbers are in test_all_kernels."""

import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.features import Features
from t5x_like.models.attention_kernels import Scores, Visible
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.splash_attention import block_of, require_order, splash


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


def test_a_block_divides_the_length():
    assert [block_of(length, 512) for length in (128, 384, 512, 640, 1024)] == [128, 384, 512, 128, 512]
