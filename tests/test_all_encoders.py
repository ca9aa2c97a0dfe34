"""What every encoder-only model must do. A new one is a new row of MODELS."""

import functools
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import CrossEntropy
from t5x_like.models.attention import Attention
from t5x_like.models.attention_bias import RelativeBuckets
from t5x_like.models.blocks import Block, NoNorm, PreNorm
from t5x_like.models.embeddings import FactorisedEmbedding, FactorisedEntry
from t5x_like.models.encoder import Encoder, bert_entry
from t5x_like.models.entry import Entry
from t5x_like.models.heads import MlmHead
from t5x_like.models.layers import GatedMlp, LayerNorm
from t5x_like.models.parameters import merge, split
from t5x_like.models.rotary import Rotary

V, L, WIDTH = 61, 12, 24
TINY = {"vocab_size": V, "d_model": 32, "num_heads": 4, "d_ff": 48}
AXES = {"vocab", "embed", "mlp", "heads", "kv_heads", "head_dim", "layers", "relative_buckets", "positions", None}

plain_norm = functools.partial(LayerNorm, use_bias=False)


def modern_layer(wavelength, window, **options):
    rotary = functools.partial(Rotary, wavelength=wavelength)
    return functools.partial(
        Block,
        norm=plain_norm,
        attention=functools.partial(Attention, rotary=rotary, window=window),
        mlp=functools.partial(GatedMlp, activation="gelu"),
        **options,
    )


far, near = modern_layer(160_000.0, None), modern_layer(10_000.0, 3)
narrow = {
    "embedding": functools.partial(FactorisedEmbedding, width=WIDTH),
    "entry": functools.partial(FactorisedEntry, width=WIDTH, entry=bert_entry),
    "head": functools.partial(MlmHead, width=WIDTH),
}
MODELS = {
    "bert": functools.partial(Encoder, **TINY, num_layers=2),
    "albert": functools.partial(Encoder, **TINY, **narrow, num_layers=3, layer_loop="shared"),
    "electra": functools.partial(Encoder, **TINY, **narrow, num_layers=2),
    "modernbert": functools.partial(
        Encoder,
        **TINY,
        num_layers=5,
        entry=functools.partial(Entry, norm=plain_norm),
        first_layers=[functools.partial(far, residual=PreNorm, attention_residual=NoNorm)],
        layers=[near, near, far],
        final_norm=plain_norm,
        head=functools.partial(MlmHead, norm=plain_norm, use_bias=False),
    ),
    "local": functools.partial(
        Encoder, **TINY, num_layers=1, entry=Entry, layers=near, bias=RelativeBuckets, final_norm=LayerNorm
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def make(name, **options):
    model = MODELS[name](rngs=nnx.Rngs(params=jax.random.key(0)), **options)
    graphdef, params, _ = split(model)
    return graphdef, {path: value + noise_like(value, path) for path, value in params.items()}


def noise_like(value, path):
    """Takes biases and scales away from 0 and 1; the same for every layer, however the layers are held."""
    kind = re.sub("layers/((first|cycle|rest)/)?[0-9]+/", "layers/", path)
    shape = (1, *value.shape[1:]) if "/cycle/" in path else value.shape
    return 0.1 * jax.random.normal(jax.random.key(zlib.crc32(kind.encode())), shape)


@functools.cache
def jitted(name, **options):
    graphdef, params = make(name, **options)
    logits = jax.jit(lambda params, x, key: merge(graphdef, params)(x, dropout_key=key))
    return lambda x, key=None: logits(params, x, key)


def batch(seed=0, length=L, order=None):
    tokens, types = jax.random.randint(jax.random.key(seed), (2, 2, length), 1, V)
    place = jnp.tile(jnp.arange(length), (2, 1))
    return Features(
        tokens=tokens,
        targets=jnp.roll(tokens, 1, axis=1),
        loss_weights=jnp.ones(tokens.shape, jnp.float32),
        segment_ids=jnp.ones_like(tokens),
        positions=place[..., None],
        attn_order=0 * place if order is None else order(place),
        type_ids=types % 2,
    )


def pack(a, b, pad=3):
    """Each row holds a row of `a`, then a row of `b`, then padding."""

    def join(x, y):
        return jnp.pad(jnp.concatenate([x, y], axis=1), ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))

    joined = Features(*(None if x is None else join(x, y) for x, y in zip(a, b, strict=True)))
    return joined._replace(segment_ids=join(a.segment_ids, b.segment_ids + 1))


def changed(a, b, tolerance=1e-4):
    """[L] bool: places where two batches of logits differ."""
    return np.abs(np.asarray(a) - np.asarray(b)).max(axis=(0, 2)) > tolerance


@pytest.mark.parametrize("name", [name for name in MODELS if name != "local"])
@pytest.mark.parametrize("place", [0, 5, 11])
def test_every_place_sees_every_token_on_both_sides(name, place):
    x = batch()
    y = x._replace(tokens=x.tokens.at[:, place].set(x.tokens[:, place] % (V - 1) + 1))
    assert changed(jitted(name)(x), jitted(name)(y)).all()


def test_one_local_layer_sees_as_far_as_its_window():
    x = batch()
    y = x._replace(tokens=x.tokens.at[:, 5].set(x.tokens[:, 5] % (V - 1) + 1))
    assert np.flatnonzero(changed(jitted("local")(x), jitted("local")(y))).tolist() == [3, 4, 5, 6, 7]


@every_model
def test_the_order_of_attention_decides_who_sees_whom_here_too(name):
    """With a causal order an encoder is a language model."""
    x = batch(order=lambda place: place)
    y = x._replace(tokens=x.tokens.at[:, 5].set(x.tokens[:, 5] % (V - 1) + 1))
    differs = changed(jitted(name)(x), jitted(name)(y))
    assert not differs[:5].any() and differs[5:8].all()


@every_model
def test_packed_documents_are_read_as_if_each_were_alone(name):
    a, b = batch(seed=1, length=5), batch(seed=2, length=7)
    logits = jitted(name)(pack(a, b))
    np.testing.assert_allclose(logits[:, :5], jitted(name)(a), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[:, 5:12], jitted(name)(b), rtol=1e-4, atol=1e-4)
    assert np.isfinite(logits).all()


@every_model
def test_what_stands_in_the_padding_does_not_matter(name):
    x = pack(batch(seed=1, length=5), batch(seed=2, length=7))
    y = x._replace(tokens=jnp.where(x.segment_ids == 0, 9, x.tokens))
    assert not changed(jitted(name)(x), jitted(name)(y))[:12].any()


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_scanned_layers_compute_as_unrolled_ones(name):
    x = batch()
    scanned, unrolled = (make(name, layer_loop=loop) for loop in ("scanned", "unrolled"))
    stacks = [merge(graphdef, params).stack for graphdef, params in (scanned, unrolled)]
    params = dict(unrolled[1])
    for here, there in zip(*(stack.locations() for stack in stacks), strict=True):
        for path in [path for path in params if path.startswith(f"stack/{there.prefix}/")]:
            value = scanned[1][path.replace(there.prefix, here.prefix)]
            params[path] = value if here.row is None else value[here.row]
    expected = jax.jit(lambda params: merge(unrolled[0], params)(x))(params)
    np.testing.assert_allclose(jitted(name, layer_loop="scanned")(x), expected, rtol=1e-4, atol=1e-5)


def test_shared_layers_compute_as_unrolled_ones_of_equal_values():
    graphdef, _ = make("albert", layer_loop="unrolled")
    _, shared = make("albert")
    params = dict(shared)
    for path, value in shared.items():
        for layer in range(3):
            params[path.replace("layers/0/", f"layers/{layer}/")] = value
    logits = jax.jit(lambda params, x: merge(graphdef, params)(x))(params, batch())
    np.testing.assert_allclose(jitted("albert")(batch()), logits, rtol=1e-5, atol=1e-5)
    assert len(params) > len(shared)


@every_model
def test_without_a_dropout_key_nothing_is_dropped_and_with_one_the_draw_is_its_own(name):
    x, a, b = batch(), *jax.random.split(jax.random.key(3))
    noisy = jitted(name, dropout_rate=0.2)
    np.testing.assert_array_equal(noisy(x), noisy(x))
    np.testing.assert_allclose(noisy(x), jitted(name)(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(noisy(x, a), noisy(x, a))
    assert changed(noisy(x, a), noisy(x, b)).all() and changed(noisy(x, a), noisy(x)).all()


@every_model
def test_every_parameter_is_float32_and_names_each_of_its_axes(name):
    model = nnx.eval_shape(lambda: MODELS[name](rngs=nnx.Rngs(params=0), dtype="bfloat16"))
    _, shapes, axes = split(model)
    for path, shape in shapes.items():
        assert shape.dtype == jnp.float32, path
        assert len(axes[path]) == len(shape.shape) and set(axes[path]) <= AXES, path


@every_model
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name):
    graphdef, params = make(name)

    @jax.jit
    def gradient(params, x):
        return jax.grad(lambda p: CrossEntropy()(merge(graphdef, p), x, None)["loss"].sum)(params)

    for path, value in gradient(params, pack(batch(1), batch(2))).items():
        assert np.isfinite(value).all(), path
        # A key's bias shifts all logits of a query alike: softmax does not see it.
        assert path.endswith("key_bias") or np.abs(value).max() > 0, path


@every_model
def test_the_head_reads_the_table_of_the_embedding_and_adds_a_bias_per_token(name):
    """norm(gelu(dense(x))) times the table, written out by hand."""
    graphdef, params = make(name)
    x = np.asarray(jax.random.normal(jax.random.key(0), (1, 2, 32)))
    value = {path: np.asarray(value, np.float64) for path, value in params.items()}
    y = x @ value["head/dense"] + value.get("head/dense_bias", 0)
    y = np.asarray(jax.nn.gelu(y, approximate=False))
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-5)
    y = y * value["head/norm/scale"] + value.get("head/norm/bias", 0)
    expected = y @ value["embedding/table"].T + value["head/bias"]
    np.testing.assert_allclose(merge(graphdef, params).logits(x), expected, rtol=1e-3, atol=1e-3)


def test_an_encoder_without_a_head_gives_hidden_states_and_refuses_logits():
    model = Encoder(**TINY, num_layers=1, head=None, rngs=nnx.Rngs(params=0))
    x_BLD = model.hidden(batch()).x_BLD
    assert x_BLD.shape == (2, L, 32)
    with pytest.raises(ValueError, match="head None"):
        model.logits(x_BLD)
