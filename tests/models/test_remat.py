"""What remat keeps of a layer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import CrossEntropy
from t5x_like.models.decoder import Decoder
from t5x_like.models.layer_loops import save_everything, save_nothing
from t5x_like.models.parameters import merge, split
from t5x_like.models.remat import NAMES, KeepNamed, keep_matmuls

B, L, V, F = 2, 16, 64, 40
make = functools.partial(Decoder, vocab_size=V, num_layers=3, d_model=24, num_heads=2, d_ff=F, layer_loop="scanned")
POLICIES = {
    "everything": save_everything,
    "matmuls": keep_matmuls,
    "all names": KeepNamed(keep=NAMES),
    "mlp_in": KeepNamed(keep=("mlp_in",)),
    "no names": KeepNamed(),
    "nothing": save_nothing,
}


def batch():
    place = jnp.tile(jnp.arange(L), (B, 1))
    tokens = jax.random.randint(jax.random.key(0), (B, L), 1, V)
    weights = jnp.ones((B, L), jnp.float32)
    return Features(tokens, jnp.roll(tokens, 1, 1), weights, jnp.ones_like(place), place[..., None], place)


@functools.cache
def loss_of(name):
    graphdef, params, _ = split(make(remat=POLICIES[name], rngs=nnx.Rngs(params=0)))
    return params, lambda params: CrossEntropy()(merge(graphdef, params), batch(), None)["loss"].sum


@functools.cache
def gradients(name):
    params, loss = loss_of(name)
    return jax.jit(jax.grad(loss))(params)


def kept_numbers(name):
    """How many numbers wait for the backward pass, the parameters themselves not counted."""
    params, loss = loss_of(name)
    residuals = jax.eval_shape(lambda params: jax.vjp(loss, params)[1], params)
    return sum(leaf.size for leaf in jax.tree.leaves(residuals)) - sum(leaf.size for leaf in params.values())


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_kept_changes_no_gradient(name):
    for path, value in gradients("everything").items():
        np.testing.assert_allclose(gradients(name)[path], value, rtol=1e-5, atol=1e-5, err_msg=path)


def test_each_policy_keeps_less_than_the_one_before():
    kept = [kept_numbers(name) for name in ("everything", "all names", "mlp_in", "nothing")]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == 4
    assert kept_numbers("everything") > kept_numbers("matmuls") > kept_numbers("mlp_in")
    assert kept_numbers("no names") == kept_numbers("nothing")


def test_a_name_keeps_its_arrays_of_every_layer_and_no_more():
    """Gate and up, each [B, L, F], of three layers."""
    assert kept_numbers("mlp_in") - kept_numbers("no names") == 3 * 2 * B * L * F


def test_offloaded_arrays_wait_in_the_memory_of_the_host():
    """The program moves them there in the forward pass and back in the backward pass; a CPU has nowhere to move to."""
    graphdef, params, _ = split(make(remat=KeepNamed(offload=("mlp_in",)), rngs=nnx.Rngs(params=0)))

    def loss(params):
        return CrossEntropy()(merge(graphdef, params), batch(), None)["loss"].sum

    program = str(jax.make_jaxpr(jax.grad(loss))(params))
    assert f"f32<host>[3,{B},{L},{F}]" in program or f"f32<pinned_host>[3,{B},{L},{F}]" in program, program


@pytest.mark.parametrize("wrong, message", [(("mlp_im",), "nearest is 'mlp_in'"), (("x",), "names nothing")])
def test_a_name_that_no_layer_gives_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        KeepNamed(keep=wrong)
    with pytest.raises(ValueError, match="name each once"):
        KeepNamed(keep=("query",), offload=("query",))
