import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import greedy
from t5x_like.features import Features
from t5x_like.losses import CrossEntropy, token_cross_entropy
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder import Encoder
from t5x_like.models.entry import Entry
from t5x_like.models.image_text import ContrastiveCaptioner, ImagePrefixDecoder, Projection, TwoTowers
from t5x_like.models.layers import LayerNorm
from t5x_like.models.parameters import merge, split
from t5x_like.models.positions import LearnedPositions
from t5x_like.models.task_heads import SigmoidContrast
from t5x_like.models.vision import AttentionPool, FirstToken, LastToken, MeanToken, VisionEncoder, vit_layer

V, B, PATCHES, WIDE, T = 29, 3, 4, 6, 5
SMALL = {"d_model": 16, "num_heads": 2, "d_ff": 24}
AXES = {"vocab", "embed", "mlp", "heads", "kv_heads", "head_dim", "positions", None}

vision = functools.partial(VisionEncoder, **SMALL, patch_width=WIDE, num_patches=PATCHES, num_layers=1)


def text_tower(max_length, **sizes):
    entry = functools.partial(Entry, positions=functools.partial(LearnedPositions, max_length=max_length))
    return functools.partial(Encoder, entry=entry, layers=vit_layer, final_norm=LayerNorm, **sizes)


text = text_tower(8, vocab_size=V, **SMALL, num_layers=1)
MODELS = {
    "clip": functools.partial(TwoTowers, image=functools.partial(vision, entry_norm=LayerNorm), text=text, width=8),
    "siglip": functools.partial(
        TwoTowers,
        image=functools.partial(vision, has_class_token=False),
        text=text,
        width=16,
        image_pool=AttentionPool,
        image_projection=None,
        text_projection=functools.partial(Projection, use_bias=True),
        contrast=SigmoidContrast,
    ),
    "paligemma": functools.partial(
        ImagePrefixDecoder, image=vision, text=functools.partial(Decoder, vocab_size=V, **SMALL, num_layers=2)
    ),
    "coca": functools.partial(
        ContrastiveCaptioner,
        image=vision,
        vocab_size=V,
        max_length=8,
        num_unimodal=1,
        num_multimodal=1,
        **SMALL,
        width=8,
        num_queries=3,
    ),
}


@functools.cache
def make(name):
    graphdef, params, axes = split(MODELS[name](rngs=nnx.Rngs(params=jax.random.key(0))))
    assert all(len(axes[path]) == value.ndim and set(axes[path]) <= AXES for path, value in params.items())
    keys = dict(zip(params, jax.random.split(jax.random.key(1), len(params)), strict=True))
    return graphdef, {path: x + 0.2 * jax.random.normal(keys[path], x.shape) for path, x in params.items()}


@functools.cache
def compiled(name, method="__call__"):
    graphdef, params = make(name)
    call = jax.jit(lambda params, x, key: getattr(merge(graphdef, params), method)(x, dropout_key=key))
    return lambda x, key=None: jax.tree.map(np.asarray, call(params, x, key))


def batch(num_image_places=0, lengths=(5, 3, 4)):
    """Texts of ragged lengths, padded at the end, behind so many places of the image."""
    length = num_image_places + T
    tokens, patches = (
        jax.random.randint(jax.random.key(2), (B, length), 1, V),
        jax.random.normal(jax.random.key(3), (B, PATCHES, WIDE)),
    )
    place = jnp.tile(jnp.arange(length), (B, 1))
    real = place < num_image_places + jnp.array(lengths)[:, None]
    order = jnp.maximum(place - num_image_places + 1, 0) if num_image_places else place
    return Features(
        tokens=tokens,
        targets=tokens,
        loss_weights=real.astype(jnp.float32),
        segment_ids=real.astype(jnp.int32),
        positions=place[..., None],
        attn_order=order,
        patches=patches,
    )


def differ(a, b):
    return np.abs(a - b) > 1e-5


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_each_image_is_compared_with_each_text_and_with_nothing_else(name):
    x = batch()
    logits = compiled(name)(x)
    assert logits.shape == (B, B) and logits.dtype == np.float32
    other_image = x._replace(patches=x.patches.at[1].add(1.0))
    assert differ(compiled(name)(other_image), logits).any(axis=1).tolist() == [False, True, False]
    other_text = x._replace(tokens=x.tokens.at[1, 0].set(x.tokens[1, 0] % (V - 1) + 1))
    assert differ(compiled(name)(other_text), logits).any(axis=0).tolist() == [False, True, False]
    padding = x._replace(tokens=jnp.where(x.segment_ids == 0, 7, x.tokens))
    np.testing.assert_allclose(compiled(name)(padding), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_towers_vector_is_the_pooled_and_projected_output(name):
    graphdef, params = make(name)
    model, x = merge(graphdef, params), batch()
    image = model.image.hidden(x.patches).x_BLD
    text = model.text.hidden(x).x_BLD[np.arange(B), [4, 2, 3]] @ params["text_projection/kernel"]
    text = text + (params["text_projection/bias"][None] if name == "siglip" else 0)
    found = model.embed(x)
    np.testing.assert_allclose(found.text_BW, text, rtol=1e-4, atol=1e-4)
    if name == "clip":
        np.testing.assert_allclose(
            found.image_BW, image[:, 0] @ params["image_projection/kernel"], rtol=1e-4, atol=1e-4
        )
    np.testing.assert_allclose(compiled(name)(x), model.contrast(found.image_BW, found.text_BW), rtol=1e-4, atol=1e-4)


def test_an_image_prefix_is_seen_by_the_whole_text_as_the_order_says():
    x = batch(PATCHES)
    logits = compiled("paligemma")(x)
    assert logits.shape == (B, PATCHES + T, V)
    real = np.asarray(x.segment_ids > 0)
    other_image = compiled("paligemma")(x._replace(patches=x.patches.at[:, -1].add(1.0)))
    assert differ(other_image, logits).any(axis=-1)[real].all()
    other_token = compiled("paligemma")(x._replace(tokens=x.tokens.at[:, PATCHES + 2].add(1)))
    seen = differ(other_token, logits).any(axis=-1)[0]
    assert seen.tolist() == [False] * (PATCHES + 2) + [True] * 3
    unread = compiled("paligemma")(x._replace(tokens=x.tokens.at[:, :PATCHES].set(3)))
    np.testing.assert_array_equal(unread, logits)
    whole = x._replace(attn_order=jnp.where(x.positions[..., 0] < PATCHES + 3, 0, x.attn_order))
    changed = compiled("paligemma")(whole._replace(tokens=x.tokens.at[:, PATCHES + 2].add(1)))
    assert differ(changed, compiled("paligemma")(whole)).any(axis=-1)[0].all()


def test_an_image_prefix_is_continued_through_the_cache_as_by_whole_rows():
    graphdef, params = make("paligemma")
    x = batch(PATCHES, lengths=(2, 2, 2))
    prompt = Features(*(None if a is None or a.ndim < 2 else a[:, : PATCHES + 2] for a in x))._replace(
        patches=x.patches
    )
    told = {"max_new_tokens": 3, "sample": greedy, "eos_id": -1, "pad_id": 0, "key": jax.random.key(0)}
    found = jax.jit(lambda params, prompt: generate(merge(graphdef, params), prompt, **told))(params, prompt)
    tokens = jnp.concatenate([prompt.tokens, found], axis=1)
    logits = compiled("paligemma")(x._replace(tokens=tokens, segment_ids=jnp.ones_like(x.segment_ids)))
    np.testing.assert_array_equal(found, logits[:, PATCHES + 1 : -1].argmax(axis=-1))


def test_the_loss_of_an_image_prefix_is_that_of_the_text_behind_it():
    """What the image's places are told to predict counts for nothing (PaliGemma's own loss: test_hugging_face)."""
    graphdef, params = make("paligemma")
    x = batch(PATCHES)
    is_text = jnp.arange(x.tokens.shape[1])[None] >= PATCHES
    x = x._replace(targets=jnp.roll(x.tokens, -1, axis=1), loss_weights=x.loss_weights * is_text)

    @jax.jit
    def loss(params, x):
        term = CrossEntropy()(merge(graphdef, params), x, None)["loss"]
        return term.sum / term.weight

    text_only = token_cross_entropy(compiled("paligemma")(x)[:, PATCHES:], x.targets[:, PATCHES:])
    weights = np.asarray(x.loss_weights[:, PATCHES:])
    found = loss(params, x)
    np.testing.assert_allclose(found, (text_only * weights).sum() / weights.sum(), rtol=1e-5)
    other = x._replace(targets=jnp.where(is_text, x.targets, 3))
    np.testing.assert_allclose(loss(params, other), found, rtol=1e-6)


def test_rows_with_room_for_the_image_only_are_refused():
    graphdef, params = make("paligemma")
    with pytest.raises(ValueError, match="rows of 4 places hold no text behind 4 patches"):
        merge(graphdef, params).embed(jax.tree.map(lambda a: a[:, :4], batch(PATCHES)))


def test_images_of_another_number_of_patches_are_refused():
    with pytest.raises(ValueError, match="images of 3 patches; this encoder has places for 4"):
        vision(rngs=nnx.Rngs(params=0)).hidden(jnp.zeros((1, 3, WIDE)))


def test_a_captioner_s_text_vector_sees_its_text_alone_and_its_captions_also_the_image():
    x = batch()
    before = compiled("coca", "read")(x)
    assert before.image_BW.shape == before.text_BW.shape == (B, 8) and before.x_BLD.shape == (B, T, 16)
    image = compiled("coca", "read")(x._replace(patches=x.patches.at[:, 0].add(1.0)))
    np.testing.assert_array_equal(image.text_BW, before.text_BW)
    assert differ(image.image_BW, before.image_BW).any(axis=1).all()
    assert differ(image.x_BLD, before.x_BLD).any(axis=-1).all()
    text = compiled("coca", "read")(x._replace(tokens=x.tokens.at[:, 2].set(x.tokens[:, 2] % (V - 1) + 1)))
    np.testing.assert_array_equal(text.image_BW, before.image_BW)
    assert differ(text.text_BW, before.text_BW).any(axis=1).all()
    assert differ(text.x_BLD, before.x_BLD).any(axis=-1)[0].tolist() == [False, False, True, True, True]
    padding = compiled("coca", "read")(x._replace(tokens=jnp.where(x.segment_ids == 0, 7, x.tokens)))
    np.testing.assert_allclose(padding.text_BW, before.text_BW, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_finite_gradient_that_is_not_zero(name):
    graphdef, params = make(name)
    x = batch(PATCHES if name == "paligemma" else 0)

    def loss(params):
        model = merge(graphdef, params)
        if name != "coca":
            return jax.nn.log_softmax(model(x))[..., 0].sum()
        read = model.read(x)
        pairs = model.contrast(read.image_BW, read.text_BW)
        return jax.nn.log_softmax(pairs)[:, 0].sum() + jax.nn.log_softmax(model.logits(read.x_BLD))[..., 0].sum()

    if name == "siglip":
        loss = functools.partial(lambda p: jax.nn.log_sigmoid(merge(graphdef, p)(x)).sum())
    for path, value in jax.jit(jax.grad(loss))(params).items():
        assert np.isfinite(value).all(), path
        # A key's bias shifts all logits of a query alike: softmax does not see it.
        assert path.endswith("key_bias") or np.abs(value).max() > 0, path


@pytest.mark.parametrize("pool", [FirstToken, LastToken, MeanToken])
def test_pools_read_the_tokens_that_they_name(pool):
    x, is_real = (
        np.asarray(jax.random.normal(jax.random.key(0), (2, 4, 16))),
        np.array([[1, 1, 1, 0], [1, 1, 1, 1]]) > 0,
    )
    expected = {
        FirstToken: x[:, 0],
        LastToken: np.stack([x[0, 2], x[1, 3]]),
        MeanToken: np.stack([x[0, :3].mean(0), x[1].mean(0)]),
    }
    np.testing.assert_allclose(pool(None, init=None, rngs=None)(x, is_real), expected[pool], rtol=1e-5, atol=1e-6)


def num_parameters(model):
    return sum(shape.size for shape in split(nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=0)))).params.values())


def test_vision_transformers_have_the_published_number_of_parameters():
    """ViT-B/16 without its classifier: 85,798,656; CLIP ViT-B/32: 151,277,313; SigLIP base, 16, 224: 203,155,970."""
    base = {"num_layers": 12, "d_model": 768, "num_heads": 12, "d_ff": 3072, "layer_loop": "scanned"}
    vit = functools.partial(VisionEncoder, **base, patch_width=16 * 16 * 3, num_patches=196)
    assert num_parameters(vit) == 85_798_656
    image = functools.partial(
        VisionEncoder, **base, patch_width=32 * 32 * 3, num_patches=49, patch_bias=False, entry_norm=LayerNorm
    )
    narrow = {"num_layers": 12, "d_model": 512, "num_heads": 8, "d_ff": 2048, "layer_loop": "scanned"}
    words = text_tower(77, vocab_size=49_408, **narrow)
    assert num_parameters(functools.partial(TwoTowers, image=image, text=words, width=512)) == 151_277_313
    siglip = functools.partial(
        MODELS["siglip"],
        image=functools.partial(vit, has_class_token=False),
        text=text_tower(64, vocab_size=32_000, **base),
        width=768,
    )
    assert num_parameters(siglip) == 203_155_970
