"""What every model must do. A new model is a new row of MODELS."""

import functools
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import CrossEntropy, token_metrics
from t5x_like.models import rotary
from t5x_like.models.attention import Attention
from t5x_like.models.attention_bias import Alibi
from t5x_like.models.blocks import Block, ParallelBlock, PostNorm, SandwichNorm
from t5x_like.models.decoder import Decoder
from t5x_like.models.eight_bit import EightBit
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.entry import Entry
from t5x_like.models.heads import TiedHead
from t5x_like.models.initializers import gpt2_init
from t5x_like.models.layer_loops import save_nothing
from t5x_like.models.layers import Embedding, GatedMlp, LayerNorm, Mlp, RMSNorm
from t5x_like.models.mixture_of_experts import Experts, MixtureOfExperts, batch_balance, row_balance
from t5x_like.models.mixture_of_experts_dispatch import with_capacity
from t5x_like.models.mixture_of_experts_routers import SigmoidTopK, SoftmaxTopK
from t5x_like.models.parameters import merge, split
from t5x_like.models.positions import BlockPositions, LearnedPositions, SinusoidalPositions
from t5x_like.models.rotary_scaling import yarn_scaling

V, L = 61, 12
TINY = {"vocab_size": V, "d_model": 32, "num_heads": 4, "d_ff": 48}

gpt_layer = functools.partial(
    Block,
    norm=LayerNorm,
    attention=functools.partial(Attention, qkv_bias=True, out_bias=True),
    mlp=functools.partial(Mlp, activation="gelu_tanh", use_bias=True),
)
local, everywhere = (
    functools.partial(
        Block,
        residual=SandwichNorm,
        attention=functools.partial(
            Attention, rotary=functools.partial(rotary.Rotary, wavelength=w), window=n, qk_norm=RMSNorm, softcap=20.0
        ),
    )
    for w, n in ((100.0, 8), (10_000.0, None))
)
mixtral_mlp = functools.partial(MixtureOfExperts, num_experts=4, balance=batch_balance, router_z_loss=0.001)
switch_mlp = functools.partial(
    MixtureOfExperts,
    num_experts=4,
    balance=row_balance,
    router=functools.partial(SoftmaxTopK, experts_per_token=1, renormalise=False),
    experts=functools.partial(Experts, activation="relu"),
    # Room for all: where choices are dropped, the documents of a packed row compete, and padding makes room.
    dispatch=functools.partial(with_capacity, capacity_factor=4.0),
)
deepseek_mlp = functools.partial(
    MixtureOfExperts,
    num_experts=6,
    balance=None,
    router=functools.partial(SigmoidTopK, experts_per_token=2, scale=2.5),
    expert_size=16,
    num_shared_experts=1,
)
yarn = functools.partial(rotary.Rotary, scaling=functools.partial(yarn_scaling, factor=4.0, original_length=16))

float8_layer = functools.partial(
    Block, attention=functools.partial(Attention, matmul=EightBit()), mlp=functools.partial(GatedMlp, matmul=EightBit())
)

MODELS = {
    "t5": functools.partial(EncoderDecoder, **TINY, num_encoder_layers=2, num_decoder_layers=2, head_dim=6),
    "llama": functools.partial(Decoder, **TINY, num_layers=2, num_kv_heads=2),
    "float8": functools.partial(Decoder, **TINY, num_layers=2, layers=float8_layer),
    "gpt": functools.partial(
        Decoder,
        **TINY,
        num_layers=2,
        entry=functools.partial(Entry, positions=functools.partial(LearnedPositions, max_length=32)),
        layers=gpt_layer,
        final_norm=LayerNorm,
        head=TiedHead,
        init=gpt2_init,
    ),
    "gemma": functools.partial(
        Decoder, **TINY, num_layers=5, layers=[local, everywhere], num_kv_heads=1, head=TiedHead
    ),
    "neox": functools.partial(
        Decoder,
        **TINY,
        num_layers=3,
        first_layers=[functools.partial(gpt_layer, residual=PostNorm)],
        layers=functools.partial(
            ParallelBlock,
            norm=LayerNorm,
            attention=functools.partial(Attention, rotary=functools.partial(rotary.Rotary, share=0.5), has_sinks=True),
        ),
        final_norm=LayerNorm,
    ),
    "bloom": functools.partial(
        Decoder,
        **TINY | {"num_heads": 3, "head_dim": 8},
        num_layers=2,
        entry=functools.partial(Entry, norm=LayerNorm),
        bias=Alibi,
        layers=gpt_layer,
        final_norm=LayerNorm,
        head=TiedHead,
    ),
    "glm": functools.partial(
        Decoder,
        **TINY,
        num_layers=2,
        entry=functools.partial(Entry, positions=functools.partial(BlockPositions, max_length=L, max_block_length=L)),
        layers=gpt_layer,
        final_norm=LayerNorm,
        head=TiedHead,
    ),
    "mixtral": functools.partial(
        Decoder,
        **TINY,
        num_layers=2,
        num_kv_heads=2,
        layers=functools.partial(Block, attention=functools.partial(Attention, rotary=rotary.Rotary), mlp=mixtral_mlp),
    ),
    "switch": functools.partial(
        Decoder,
        **TINY,
        num_layers=2,
        embedding=functools.partial(Embedding, scale_power=0.5),
        entry=functools.partial(Entry, positions=SinusoidalPositions),
        layers=[gpt_layer, functools.partial(gpt_layer, mlp=switch_mlp)],
    ),
    "deepseek": functools.partial(
        Decoder,
        **TINY,
        num_layers=2,
        first_layers=[functools.partial(Block, attention=functools.partial(Attention, rotary=yarn))],
        layers=functools.partial(Block, attention=functools.partial(Attention, rotary=yarn), mlp=deepseek_mlp),
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def blanks(place):
    """GLM's two positions of a row of three places of text, whose last is a blank that all others fill."""
    return np.stack([np.minimum(place, 2), np.maximum(place - 2, 0)], axis=-1)


# How the places of a row become positions, where it is not the place alone.
POSITIONS = {"glm": blanks}


@functools.cache
def make(name, **options):
    model = MODELS[name](rngs=nnx.Rngs(params=jax.random.key(0)), **options)
    graphdef, params, _ = split(model)
    # Biases and scales start at 0 and 1, where mistakes hide; larger weights make every path matter.
    return graphdef, {name: value + noise_like(value, name) for name, value in params.items()}


def noise_like(value, name):
    """The same for every layer, however the layers are held."""
    kind = re.sub("layers/((first|cycle|rest)/)?[0-9]+/", "layers/", name)
    shape = (1, *value.shape[1:]) if "/cycle/" in name else value.shape
    return 0.1 * jax.random.normal(jax.random.key(zlib.crc32(kind.encode())), shape)


@functools.cache
def jitted(name, **options):
    graphdef, params = make(name, **options)

    @jax.jit
    def logits(params, features, dropout_key=None):
        return merge(graphdef, params)(features, dropout_key=dropout_key)

    return functools.partial(logits, params)


def row(tokens, order):
    """One unpadded, unpacked batch."""
    tokens = jnp.asarray(tokens, jnp.int32)
    place = jnp.tile(jnp.arange(tokens.shape[1]), (tokens.shape[0], 1))
    return Features(
        tokens=tokens,
        targets=jnp.roll(tokens, -1, axis=1),
        loss_weights=jnp.ones(tokens.shape, jnp.float32),
        segment_ids=jnp.ones_like(tokens),
        positions=place[..., None],
        attn_order=jnp.broadcast_to(jnp.asarray(order), tokens.shape),
    )


def batch(name, seed=0, length=L, order=None):
    tokens, encoder_tokens = jax.random.randint(jax.random.key(seed), (2, 2, length), 1, V)
    features = row(tokens, jnp.arange(length) if order is None else order)
    if name in POSITIONS:
        positions_LP = jnp.asarray(POSITIONS[name](np.arange(length)))
        features = features._replace(positions=jnp.tile(positions_LP[None], (2, 1, 1)))
    if name != "t5":
        return features
    side = row(encoder_tokens, jnp.zeros(length, jnp.int32))
    return features._replace(encoder=side._replace(targets=None, loss_weights=None))


def changed(a, b, tolerance=1e-4):
    """[L] bool: places where two batches of logits differ."""
    return np.abs(np.asarray(a) - np.asarray(b)).max(axis=(0, 2)) > tolerance


def pack(a, b, pad=3):
    """Each row holds a row of `a`, then a row of `b`, then padding."""

    def join(x, y, shift=0):
        return jnp.pad(jnp.concatenate([x, y + shift], axis=1), ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))

    joined = [None if x is None else join(x, y) for x, y in zip(a[:-1], b[:-1], strict=True)]
    joined = Features(*joined)._replace(segment_ids=join(a.segment_ids, b.segment_ids, 1))
    return joined._replace(encoder=a.encoder and pack(a.encoder, b.encoder, pad=5))


@every_model
@pytest.mark.parametrize(
    "order, affected",
    [
        ("causal", [False] * 5 + [True] * 7),
        ("bidirectional", [True] * 12),
        ("prefix of 8", [True] * 12),
        ("prefix of 3", [False] * 5 + [True] * 7),
        ("right to left", [True] * 6 + [False] * 6),
    ],
)
def test_a_token_is_seen_by_exactly_the_places_that_its_order_allows(name, order, affected):
    place = np.arange(L)
    orders = {
        "causal": place,
        "bidirectional": place * 0,
        "prefix of 8": np.maximum(place - 7, 0),
        "prefix of 3": np.maximum(place - 2, 0),
        "right to left": place[::-1],
    }
    x = batch(name, order=orders[order])
    y = x._replace(tokens=x.tokens.at[:, 5].add(1))
    assert changed(jitted(name)(x), jitted(name)(y)).tolist() == affected


def test_the_encoder_sees_both_ways_and_every_decoder_place_sees_the_encoder():
    x = batch("t5")
    y = x._replace(encoder=x.encoder._replace(tokens=x.encoder.tokens.at[:, -1].add(1)))
    assert changed(jitted("t5")(x), jitted("t5")(y)).all()
    graphdef, params = make("t5")
    encode = jax.jit(lambda side: merge(graphdef, params).encode(side).x_BLD)
    assert changed(encode(x.encoder), encode(y.encoder)).all()


@every_model
def test_packed_documents_are_read_as_if_each_were_alone(name):
    a, b = batch(name, seed=1, length=5), batch(name, seed=2, length=7)
    logits = jitted(name)(pack(a, b))
    np.testing.assert_allclose(logits[:, :5], jitted(name)(a), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits[:, 5:12], jitted(name)(b), rtol=1e-4, atol=1e-4)
    assert np.isfinite(logits).all()


@every_model
def test_what_stands_in_the_padding_does_not_matter(name):
    x = pack(batch(name, seed=1, length=5), batch(name, seed=2, length=7))
    y = x._replace(tokens=jnp.where(x.segment_ids == 0, 9, x.tokens))
    assert not changed(jitted(name)(x), jitted(name)(y))[:12].any()


@every_model
def test_scanned_layers_start_and_compute_as_unrolled_ones(name):
    models = [MODELS[name](rngs=nnx.Rngs(params=jax.random.key(0)), layer_loop=way) for way in ("scanned", "unrolled")]
    scanned, unrolled = map(split, models)
    seen = set()
    for stack in {"stack", "encoder", "decoder"} & set(vars(models[0])):
        places = [getattr(model, stack).locations() for model in models]
        for here, there in zip(*places, strict=True):
            for path in [path for path in scanned.params if path.startswith(f"{stack}/{here.prefix}/")]:
                value = scanned.params[path] if here.row is None else scanned.params[path][here.row]
                other = path.replace(here.prefix, there.prefix)
                np.testing.assert_array_equal(value, unrolled.params[other], err_msg=path)
                seen.add(other)
    outside = [path for path in unrolled.params if "/layers/" not in path]
    assert seen | set(outside) == set(unrolled.params)
    for path in outside:
        np.testing.assert_array_equal(scanned.params[path], unrolled.params[path], err_msg=path)

    def logits(graphdef, params):
        return jax.jit(lambda params, x: merge(graphdef, params)(x))(params, batch(name))

    np.testing.assert_allclose(logits(*scanned[:2]), logits(*unrolled[:2]), rtol=1e-4, atol=1e-5)


@every_model
@pytest.mark.parametrize("layer_loop", ["unrolled", "scanned"])
@pytest.mark.parametrize("prompt", ["causal", "prefix"])
def test_decoding_through_the_cache_gives_the_logits_of_the_whole_row(name, layer_loop, prompt):
    graphdef, params = make(name, layer_loop=layer_loop)
    x, lengths = batch(name), jnp.array([3, 5])  # ragged: the first prompt is padded by two
    place = jnp.tile(jnp.arange(L), (2, 1))
    if prompt == "prefix":
        x = x._replace(attn_order=jnp.maximum(place - lengths[:, None] + 1, 0))
    whole = jitted(name, layer_loop=layer_loop)(x)

    @jax.jit
    def decode(params, x):
        model = merge(graphdef, params)
        start = jax.tree.map(lambda a: a[:, :5], x._replace(encoder=None))._replace(encoder=x.encoder)
        start = start._replace(segment_ids=(place[:, :5] < lengths[:, None]).astype(jnp.int32))
        logits, cache = model.prefill(start, model.init_cache(2, L))
        found = [logits]
        for _ in range(4):
            token = jnp.take_along_axis(x.tokens, cache.lengths_B[:, None], axis=1)[:, 0]
            logits, cache = model.decode_step(token, cache)
            found.append(logits)
        return jnp.stack(found, axis=1)

    expected = jnp.stack([whole[r, n - 1 : n + 4] for r, n in enumerate(lengths.tolist())])
    np.testing.assert_allclose(decode(params, x), expected, rtol=1e-3, atol=1e-3)


@every_model
@pytest.mark.parametrize("layer_loop", ["unrolled", "scanned"])
def test_without_a_dropout_key_nothing_is_dropped_and_with_one_the_draw_is_its_own(name, layer_loop):
    x, a, b = batch(name), *jax.random.split(jax.random.key(3))
    noisy = jitted(name, dropout_rate=0.2, layer_loop=layer_loop)
    np.testing.assert_array_equal(noisy(x), jitted(name, layer_loop=layer_loop)(x))
    np.testing.assert_array_equal(noisy(x, a), noisy(x, a))
    assert changed(noisy(x, a), noisy(x, b)).all()
    assert changed(noisy(x, a), noisy(x)).all()


@every_model
@pytest.mark.parametrize("layer_loop", ["unrolled", "scanned"])
def test_every_parameter_is_float32_and_names_each_of_its_axes(name, layer_loop):
    known = {"vocab", "embed", "mlp", "heads", "kv_heads", "head_dim", "layers", "relative_buckets", "positions", None}
    known |= {"expert"}
    model = nnx.eval_shape(lambda: MODELS[name](rngs=nnx.Rngs(params=0), layer_loop=layer_loop, dtype="bfloat16"))
    _, shapes, axes = split(model)
    assert shapes.keys() == axes.keys()
    for path, shape in shapes.items():
        assert shape.dtype == jnp.float32, path
        assert len(axes[path]) == len(shape.shape), path
        assert set(axes[path]) <= known, path


@every_model
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name):
    graphdef, params = make(name)

    @jax.jit
    def gradient(params, x):
        return jax.grad(lambda p: sum(t.sum for t in CrossEntropy(z_loss=1e-4)(merge(graphdef, p), x, None).values()))(
            params
        )

    for path, value in gradient(params, pack(batch(name, 1), batch(name, 2))).items():
        assert np.isfinite(value).all(), path
        # A key's bias shifts all logits of a query alike: softmax does not see it.
        assert path.endswith("key_bias") or np.abs(value).max() > 0, path


@every_model
def test_rematerialisation_changes_no_gradient(name):
    def gradient(**options):
        graphdef, params = make(name, layer_loop="scanned", dropout_rate=0.1, **options)

        def loss(params):
            return CrossEntropy()(merge(graphdef, params), batch(name), jax.random.key(0))["loss"].sum

        return jax.jit(jax.grad(loss))(params)

    plain, again = gradient(), gradient(remat=save_nothing)
    for path in plain:
        np.testing.assert_allclose(plain[path], again[path], rtol=1e-3, atol=1e-3, err_msg=path)


@every_model
def test_a_head_of_zeros_costs_log_vocab(name):
    graphdef, params = make(name)
    head = "head/kernel" if "head/kernel" in params else "embedding/table"
    metrics = token_metrics(merge(graphdef, params | {head: jnp.zeros_like(params[head])}), batch(name))
    np.testing.assert_allclose(metrics["loss"].sum / metrics["loss"].weight, np.log(V), rtol=1e-5)
    assert 0 <= metrics["accuracy"].sum <= metrics["accuracy"].weight


# A number that bfloat16 moved over the edge between two codes of 8 bits is off by a step of theirs: 2^-3 of itself.
NEAR = {"float8": 2.0**-3}


@every_model
def test_bfloat16_compute_gives_float32_logits_near_the_float32_ones(name):
    exact, rough = jitted(name)(batch(name)), jitted(name, dtype="bfloat16")(batch(name))
    assert rough.dtype == jnp.float32
    assert np.abs(rough - exact).mean() < NEAR.get(name, 0.03) * np.abs(exact).std()


@every_model
def test_every_activation_mark_names_one_axis_per_dimension(name):
    known = {"batch", "length", "embed_activation", "heads_activation", "mlp_activation", "vocab_activation", None}
    known |= {"inner_length", "key_length"}
    of_experts = {"expert_batch", "expert_activation"}
    seen = set()

    def shard(x, *axes):
        assert len(axes) == x.ndim and set(axes) <= known | of_experts
        seen.update(axes)
        return x

    model = MODELS[name](rngs=nnx.Rngs(params=jax.random.key(0)), shard=shard)
    np.testing.assert_array_equal(model(batch(name)).shape, (2, L, V))
    assert seen - of_experts == known


@every_model
def test_a_model_taken_apart_and_put_together_is_the_same_model(name):
    model = MODELS[name](rngs=nnx.Rngs(params=jax.random.key(0)))
    graphdef, params, _ = split(model)
    again = jax.jit(lambda params: split(merge(graphdef, params)).params)(params)
    assert again.keys() == params.keys()
    np.testing.assert_array_equal(merge(graphdef, params)(batch(name)), model(batch(name)))
    made_in_jit = jax.jit(lambda key: split(MODELS[name](rngs=nnx.Rngs(params=key))).params)(jax.random.key(0))
    for path, value in params.items():
        np.testing.assert_allclose(made_in_jit[path], value, rtol=1e-5, atol=1e-6)
