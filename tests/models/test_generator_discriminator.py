import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.encoder import Encoder
from t5x_like.models.generator_discriminator import GeneratorDiscriminator
from t5x_like.models.parameters import merge, split

V, L = 31, 7


@functools.cache
def taken_apart(width=8):
    model = GeneratorDiscriminator(
        vocab_size=V,
        width=width,
        generator=functools.partial(Encoder, d_model=8, num_heads=2, num_layers=1, d_ff=16),
        discriminator=functools.partial(Encoder, d_model=16, num_heads=4, num_layers=2, d_ff=32),
        rngs=nnx.Rngs(params=jax.random.key(0)),
    )
    graphdef, params, axes = split(model)
    assert params.keys() == axes.keys() and all(len(axes[name]) == params[name].ndim for name in params)
    keys = dict(zip(params, jax.random.split(jax.random.key(1), len(params)), strict=True))
    return graphdef, {name: x + 0.1 * jax.random.normal(keys[name], x.shape) for name, x in params.items()}


@functools.cache
def compiled(width=8):
    graphdef, _ = taken_apart(width)

    @jax.jit
    def both(params, x, key=None):
        model = merge(graphdef, params)
        return model.logits(model.hidden(x, dropout_key=key).x_BLD), model.replaced(x, dropout_key=key).logits_BL

    return both


def batch():
    tokens = jax.random.randint(jax.random.key(2), (2, L), 1, V)
    place = jnp.tile(jnp.arange(L), (2, 1))
    return Features(tokens, None, None, jnp.ones_like(tokens), place[..., None], 0 * place)


@pytest.mark.parametrize("width", [8, 16, 4])
def test_the_generator_gives_a_logit_per_token_of_the_vocabulary_and_the_discriminator_one_per_place(width):
    generated, replaced = compiled(width)(taken_apart(width)[1], batch())
    assert generated.shape == (2, L, V) and replaced.shape == (2, L)
    assert generated.dtype == replaced.dtype == jnp.float32


def test_both_read_one_embedding_and_nothing_else_in_common():
    _, params = taken_apart()
    assert [name for name in params if name.endswith("table")] == [
        "discriminator/encoder/embedding/table",
        "discriminator/encoder/stack/entry/narrow/positions/table",
    ]
    before = compiled()(params, batch())
    affects = {}
    for name in params:
        moved = params[name] + jax.random.normal(jax.random.key(5), params[name].shape)
        after = compiled()(params | {name: moved}, batch())
        affects[name] = [bool(np.abs(a - b).max() > 1e-5) for a, b in zip(before, after, strict=True)]
    shared = {name for name, both in affects.items() if all(both)}
    assert shared == {name for name in params if "/embedding/" in name or "/entry/narrow/" in name}
    only_generator = {name for name, both in affects.items() if both == [True, False]}
    assert only_generator == {n for n in params if n.startswith("generator/") and not n.endswith("key_bias")}


def test_tied_gradients_of_both_forwards_meet_in_the_shared_table():
    graphdef, params = taken_apart()

    def loss(params, generator, discriminator):
        model = merge(graphdef, params)
        x = batch()
        logits, replaced = model.logits(model.hidden(x).x_BLD), model.replaced(x).logits_BL
        return generator * (logits**2).sum() + discriminator * (replaced**2).sum()

    gradient = jax.jit(jax.grad(loss))
    one, other, both = (gradient(params, *scales) for scales in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)))
    name = "discriminator/encoder/embedding/table"
    np.testing.assert_allclose(both[name], one[name] + other[name], rtol=1e-3, atol=1e-3)
    assert np.abs(one[name]).max() > 0 and np.abs(other[name]).max() > 0
