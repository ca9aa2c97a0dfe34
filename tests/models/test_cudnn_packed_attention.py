"""What cuDNN is asked for on packed rows. Its own arithmetic runs on GPUs alone: benchmarks/attention_kernels.py."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused

from t5x_like.models import cudnn_attention, cudnn_packed_attention
from t5x_like.models.attention_kernels import Scores, Visible, across, xla
from t5x_like.models.cudnn_packed_attention import cudnn_packed, lengths_of, offsets_of
from t5x_like.models.kv_cache import KeysValues

B, L, N, H = 2, 12, 4, 8
SEGMENTS = jnp.array([[1, 1, 1, 1, 1, 2, 2, 3, 3, 3, 0, 0], [1] * 12])
PLACES = jnp.array([[0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 0, 0], list(range(12))])
REAL = np.asarray(SEGMENTS > 0)
ZEROS = jnp.zeros_like(PLACES)
NOTHING_ELSE = Scores()


def one_sequence(q, k, v, is_causal, window):
    """Attention of one segment [L, N, H], in plain NumPy."""
    k, v = (np.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    logits = np.einsum("lnh,mnh->nlm", q, k)
    distance = np.arange(len(q))[:, None] - np.arange(len(k))[None]
    visible = (distance >= 0) if is_causal else np.ones_like(distance, bool)
    visible &= np.abs(distance) < (window or 10**9)
    weights = np.exp(np.where(visible, logits, -np.inf) - logits.max(-1, keepdims=True))
    return np.einsum("nlm,mnh->lnh", weights / weights.sum(-1, keepdims=True), v)


def as_documented(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type, sliding_window_length):
    """The function below jax.nn.dot_product_attention, by its own words; what it leaves unwritten is NaN."""
    assert scale == 1.0 and q_seqlen.dtype == kv_offsets.dtype == jnp.int32
    y = np.full(q.shape, np.nan, np.float32)
    is_causal = mask_type is fused.MaskType.PADDING_CAUSAL
    for row in range(len(q)):
        for part in range(q_seqlen.shape[1]):
            lengths = int(q_seqlen[row, part]), int(kv_seqlen[row, part])
            if min(*lengths, int(q_offsets[row, part]), int(kv_offsets[row, part])) < 0:
                continue
            queries, keys = (
                slice(int(first[row, part]), int(first[row, part]) + size)
                for first, size in zip((q_offsets, kv_offsets), lengths, strict=True)
            )
            parts = (np.asarray(x[row, s], np.float64) for x, s in ((q, queries), (k, keys), (v, keys)))
            y[row, queries] = one_sequence(*parts, is_causal, sliding_window_length)
    return jnp.asarray(y)


@pytest.fixture(autouse=True)
def a_hopper_gpu_that_does_as_documented(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cudnn_attention, "compute_capability", lambda: 9.0)
    monkeypatch.setattr(cudnn_packed_attention.fused, "dot_product_attention", as_documented)


def arrays(length=L, num_kv_heads=N, dtype="float32"):
    q, k, v = (jax.random.normal(key, (B, length, N, H)) for key in jax.random.split(jax.random.key(0), 3))
    return q.astype(dtype), KeysValues(k[:, :, :num_kv_heads].astype(dtype), v[:, :, :num_kv_heads].astype(dtype))


def visible_of(order_BL, segments=SEGMENTS, places=PLACES):
    return Visible(segments, segments, order_BL, order_BL, places, places)


def run(q, seen, visible, scores=NOTHING_ELSE, **options):
    kernel = functools.partial(cudnn_packed, **options)
    return kernel(q.astype(jnp.bfloat16), KeysValues(*(x.astype(jnp.bfloat16) for x in seen)), visible, scores)


def same(found, expected, where=REAL):
    found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32)
    np.testing.assert_allclose(found[where], expected[where], atol=2e-2)  # the result is bfloat16


@pytest.mark.parametrize("window", [None, 2])
def test_causal_segments_are_read_as_by_xla(window):
    q, seen = arrays()
    visible, scores = visible_of(PLACES), Scores(window=window)
    same(run(q, seen, visible, scores, order="causal"), xla(q, seen, visible, scores))


def test_bidirectional_segments_are_read_as_by_xla():
    q, seen = arrays()
    visible = visible_of(ZEROS)
    same(run(q, seen, visible, order="bidirectional"), xla(q, seen, visible, Scores()))


def test_cross_attention_is_read_as_by_xla():
    q, _ = arrays()
    _, seen = arrays(length=8)
    keys = jnp.array([[1, 2, 2, 2, 3, 0, 0, 0], [1] * 8])
    visible = across(SEGMENTS, keys)
    same(run(q, seen, visible, order="bidirectional"), xla(q, seen, visible, Scores()))


def test_padding_is_zero_and_never_what_cudnn_left_there():
    q, seen = arrays()
    found = np.asarray(run(q, seen, visible_of(PLACES), order="causal"), np.float32)
    assert (found[~REAL] == 0).all() and np.isfinite(found).all()


def test_lengths_and_offsets_are_told_as_cudnn_wants_them():
    assert lengths_of(SEGMENTS, 4).tolist() == [[5, 2, 3, -1], [12, -1, -1, -1]]
    assert offsets_of(SEGMENTS, 4).tolist() == [[0, 5, 7, -1, -1], [0, -1, -1, -1, -1]]


WRONG = {
    "a prefix": ("causal", visible_of(jnp.maximum(PLACES - 2, 0))),
    "reversed": ("causal", visible_of(PLACES[:, ::-1])),
    "positions with gaps": ("causal", visible_of(PLACES, places=2 * PLACES)),
    "causal rows": ("bidirectional", visible_of(PLACES)),
    "a segment in two pieces": ("causal", visible_of(PLACES, segments=SEGMENTS.at[:, 11].set(1))),
    "no first segment": ("bidirectional", visible_of(ZEROS, segments=SEGMENTS + (SEGMENTS > 0))),
    "more keys than queries": ("bidirectional", across(SEGMENTS, jnp.minimum(SEGMENTS, 2))),
}


@pytest.mark.parametrize("name", WRONG)
def test_rows_that_are_not_as_the_config_says_give_nan(name):
    q, seen = arrays()
    order, visible = WRONG[name]
    assert np.isnan(np.asarray(run(q, seen, visible, order=order), np.float32)[0]).all()


def test_a_row_of_more_segments_than_there_is_room_for_gives_nan_and_its_neighbour_does_not():
    q, seen = arrays()
    found = np.asarray(run(q, seen, visible_of(PLACES), order="causal", max_segments=2), np.float32)
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


REFUSED = {
    "float32": ({"dtype": "float32"}, {}, "no float32"),
    "softcap": ({}, {"softcap": 3.0}, "no softcap"),
    "bidirectional window": ({"order": "bidirectional"}, {"window": 3}, "windows for order='causal'"),
    "global": ({}, {"num_global": 1}, "no num_global"),
    "order": ({"order": "casual"}, {}, "nearest is 'causal'"),
    "max_segments": ({"max_segments": 1}, {}, "at least 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_lacks_is_one_sentence(name):
    options, scores, message = REFUSED[name]
    options = {"order": "causal", "dtype": "bfloat16"} | options
    q, seen = arrays(dtype=options.pop("dtype"))
    with pytest.raises(ValueError, match=message):
        cudnn_packed(q, seen, visible_of(PLACES), Scores(**scores), **options)


def test_an_older_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(cudnn_attention, "compute_capability", lambda: 8.9)
    with pytest.raises(ValueError, match="needs a Hopper GPU"):
        run(*arrays(), visible_of(PLACES), order="causal")


def test_grouped_heads_are_refused_where_jax_reads_wrong_keys_of_them(monkeypatch):
    """jax 0.10 multiplies the offsets of the keys by the number of query heads (corrected in 0.11)."""
    q, seen = arrays(num_kv_heads=2)
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    with pytest.raises(ValueError, match=r"install jax 0\.11"):
        run(q, seen, visible_of(PLACES), order="causal")
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 0))
    same(run(q, seen, visible_of(PLACES), order="causal"), xla(q, seen, visible_of(PLACES), Scores()))


def test_jax_still_has_the_function_that_is_not_public():
    parameters = inspect.signature(cudnn_packed_attention.fused._dot_product_attention).parameters
    assert {"q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets"} <= set(parameters)
    assert {"PADDING", "PADDING_CAUSAL"} <= set(fused.MaskType.__members__)


def test_jax_takes_the_arguments_that_it_is_given(monkeypatch):
    monkeypatch.undo()
    parameters = inspect.signature(fused.dot_product_attention).parameters
    assert set(inspect.signature(as_documented).parameters) - {"q", "k", "v"} <= set(parameters)
