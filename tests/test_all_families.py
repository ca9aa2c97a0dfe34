"""What every family must do, as `import` makes it. A row of models/hugging_face/table.py brings a new one in.

One batch shows it all: documents alone, packed, with something else in the padding, with one token changed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.features import Features
from t5x_like.models.hugging_face.table import FAMILIES
from t5x_like.models.parameters import merge, split
from t5x_like.partitioning.axis_rules import AxisRules, batch_sharding, constrain
from t5x_like.partitioning.mesh import make_mesh, on_mesh
from tests.golden.hugging_face_batches import batch_of, side
from tests.golden.hugging_face_models import golden, imported, module_of, with_settings

V, A, B, L = 53, 5, 7, 14  # lengths of two documents, and of the rows
ALONE_A, ALONE_B, PACKED, OTHER_PADDING, OTHER_TOKEN, OTHER_GIVEN = range(6)
CHANGED = 2  # the place, in the first document
READ_BOTH_WAYS = ("encoder", "discriminator")
texts = [name for name in FAMILIES if golden(name)["kind"] in ("decoder", "encoder-decoder", *READ_BOTH_WAYS)]
every_text_model = pytest.mark.parametrize("name", texts)
every_family = pytest.mark.parametrize("name", FAMILIES)
rng = np.random.default_rng(5)
FIRST, SECOND, PAD = rng.integers(3, V, A), rng.integers(3, V, B), rng.integers(3, V, (3, L))
NAMED = {"expert", "heads", "head_dim", "kv_heads", "vocab", "embed", "mlp", "positions", "relative_buckets", None}


def rows_of_texts(is_causal: bool) -> Features:
    """8 rows of 14 places."""
    segments = np.zeros((8, L), np.int32)
    tokens = np.tile(PAD[0], (8, 1))
    packed = [PACKED, OTHER_PADDING, OTHER_TOKEN, OTHER_GIVEN, 6, 7]
    tokens[[ALONE_A, *packed], :A], segments[[ALONE_A, *packed], :A] = FIRST, 1
    tokens[ALONE_B, :B], segments[ALONE_B, :B] = SECOND, 1
    tokens[packed, A : A + B], segments[packed, A : A + B] = SECOND, 2
    tokens[OTHER_PADDING, A + B :] = PAD[1, A + B :]
    tokens[OTHER_TOKEN, CHANGED] = 3 + (FIRST[CHANGED] - 2) % (V - 3)
    place = np.where(segments == 2, np.arange(L) - A, np.arange(L))
    features = side(tokens.tolist(), is_causal=is_causal)
    order = place if is_causal else 0 * place
    segments, place, order = (jnp.asarray(x, jnp.int32) for x in (segments, place, order))
    return features._replace(segment_ids=segments, positions=place[..., None], attn_order=order)


def rows(name: str) -> Features:
    kind = golden(name)["kind"]
    if kind == "encoder-decoder":
        encoder = rows_of_texts(is_causal=False)
        own = encoder.tokens.at[OTHER_TOKEN].set(encoder.tokens[PACKED])
        encoder = encoder._replace(tokens=own.at[OTHER_GIVEN, CHANGED].add(-1))
        return rows_of_texts(is_causal=True)._replace(encoder=encoder)
    if kind in ("decoder", *READ_BOTH_WAYS):
        return rows_of_texts(is_causal=kind == "decoder")
    stored = batch_of(golden(name))
    return jax.tree.map(lambda x: jnp.take(x, jnp.arange(4) % len(x), axis=0), stored)


@functools.cache
def computed(name: str, layer_loop: str = "") -> np.ndarray:
    graphdef, params, _ = imported(name, layer_loop)
    return np.asarray(jax.jit(lambda params, x: merge(graphdef, params)(x))(params, rows(name)))


def changes(a: np.ndarray, b: np.ndarray) -> list[bool]:
    """The places of a row at which two results differ."""
    different = np.abs(a - b) > 1e-5
    return (different if different.ndim == 1 else different.any(axis=-1)).tolist()


@every_text_model
def test_packed_documents_are_read_as_if_each_were_alone_whatever_stands_in_the_padding(name):
    y = computed(name)
    np.testing.assert_allclose(y[PACKED, :A], y[ALONE_A, :A], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(y[PACKED, A : A + B], y[ALONE_B, :B], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(y[OTHER_PADDING, : A + B], y[PACKED, : A + B], rtol=1e-5, atol=1e-5)
    assert np.isfinite(y).all()


@every_text_model
def test_a_changed_token_is_seen_by_what_may_see_it_and_by_nothing_else(name):
    y = computed(name)
    both_ways = golden(name)["kind"] in READ_BOTH_WAYS
    expected = [both_ways or place >= CHANGED for place in range(A)] + [False] * B
    assert changes(y[OTHER_TOKEN], y[PACKED])[: A + B] == expected


@pytest.mark.parametrize("name", [name for name in texts if golden(name)["kind"] == "encoder-decoder"])
def test_a_changed_token_of_the_encoder_is_seen_by_its_own_document_alone(name):
    y = computed(name)
    assert changes(y[OTHER_GIVEN], y[PACKED])[: A + B] == [True] * A + [False] * B


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in texts])
def test_an_image_is_seen_by_its_own_row_alone(name):
    graphdef, params, _ = imported(name)
    x = rows(name)
    model = jax.jit(lambda params, x: merge(graphdef, params)(x))
    different = np.abs(model(params, x._replace(patches=x.patches.at[1].add(0.5))) - computed(name)) > 1e-6
    assert different.reshape(4, -1).any(axis=1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "albert"])  # which has one layer
def test_scanned_layers_compute_what_unrolled_ones_do(name):
    np.testing.assert_allclose(computed(name, "scanned"), computed(name), rtol=1e-4, atol=2e-5)


# 53 tokens divide over nothing; neither do three or five heads over two devices.
ODD_HEADS = (
    "modernbert",
    "bloom",
    "gpt_neox",
    "t5_1_0",
    "t5_1_1",
    "ul2",
    "mt5",
    "umt5",
    "vit",
    "clip",
    "siglip",
    "paligemma",
)
WHOLE_HEADS = {"heads": None, "kv_heads": None, "heads_activation": None}


@every_family
def test_on_eight_devices_it_computes_what_it_does_on_one(name):
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    rules = AxisRules(vocab=None, vocab_activation=None, **(WHOLE_HEADS if name in ODD_HEADS else {}))
    _, params, _ = imported(name, mesh=mesh, rules=rules)
    assert any(not value.is_fully_replicated for value in params.values())
    marked = with_settings(name, shard=constrain(mesh, rules))
    x = jax.device_put(rows(name), batch_sharding(mesh, rules, len(computed(name))))
    found = jax.jit(on_mesh(mesh, lambda params, x: merge(marked, params)(x)))(params, x)
    np.testing.assert_allclose(found, computed(name), rtol=1e-4, atol=2e-5)


@every_text_model
def test_without_a_dropout_key_nothing_is_dropped_and_with_one_something_is_everywhere(name):
    graphdef = with_settings(name, dropout_rate=0.2)
    model = jax.jit(lambda params, x, key: merge(graphdef, params)(x, dropout_key=key))
    params, x = imported(name)[1], rows(name)
    np.testing.assert_allclose(model(params, x, None), computed(name), rtol=1e-5, atol=1e-5)
    noisy = model(params, x, jax.random.key(0))
    np.testing.assert_array_equal(noisy, model(params, x, jax.random.key(0)))
    assert all(changes(noisy[PACKED], computed(name)[PACKED])[: A + B])


@every_family
def test_every_parameter_is_float32_and_names_each_of_its_axes(name):
    _, shapes, axes = split(module_of(name))
    assert shapes.keys() == axes.keys()
    for path, shape in shapes.items():
        assert shape.dtype == jnp.float32 and len(axes[path]) == shape.ndim and set(axes[path]) <= NAMED, path
