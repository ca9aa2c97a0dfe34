"""A mixture of experts in the place of an MLP: each token is read by a few of many small MLPs.

  Mixtral       num_experts=8, balance=batch_balance
  Qwen3-MoE     num_experts=128, router=SoftmaxTopK with 8 experts_per_token, balance=batch_balance
  Switch        router=SoftmaxTopK with 1 and not renormalised, experts=Experts with relu, dispatch=with_capacity
  DeepSeek-V3   num_experts=256, router=SigmoidTopK with scale 2.5, num_shared_experts=1, balance=row_balance with 1e-4

Letters besides those of the package: E experts, K experts of a token.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.losses import Term
from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import GatedMlp, Shard, Sizes, activation_named, dropout, parameter, split_key, unsharded
from t5x_like.models.mixture_of_experts_dispatch import dropless
from t5x_like.models.mixture_of_experts_routers import Routing, SoftmaxTopK, load_of_rows

# Experts are called as `experts(x, multiply, axes=, dropout_key=)`, where multiply(x, kernel_EIO) gives every row of
# `x` times the kernel of its expert, and `axes` names the dims of `x` but the last. What comes and what goes is placed,
# so that gradients are too: left alone, XLA gathered the tokens of all devices to sum the gradient of a kernel.


class GatedExperts(nnx.Module):
    """E times a GatedMlp."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        num_experts: int,
        init: Initializers,
        rngs: nnx.Rngs,
        activation: str = "silu",
        dropout_rate: float = 0.0,
        shard: Shard = unsharded,
    ):
        E, D, F = num_experts, sizes.d_model, sizes.d_ff
        self.dtype, self.dropout_rate, self.shard = sizes.dtype, dropout_rate, shard
        self.activation = activation_named(activation)
        self.gate = parameter(rngs, init.mlp_in, (E, D, F), ("expert", "embed", "mlp"), fan_in=D)
        self.up = parameter(rngs, init.mlp_in, (E, D, F), ("expert", "embed", "mlp"), fan_in=D)
        self.down = parameter(rngs, init.mlp_out, (E, F, D), ("expert", "mlp", "embed"), fan_in=F)

    def __call__(
        self, x: jax.Array, multiply: Callable, *, axes: tuple[str | None, ...], dropout_key: jax.Array | None
    ) -> jax.Array:
        x = self.shard(x.astype(self.dtype), *axes, "embed_activation")
        y = self.activation(multiply(x, self.gate[...].astype(self.dtype)))
        y = y * multiply(x, self.up[...].astype(self.dtype))
        y = self.shard(drop_each(y, dropout_key, self.dropout_rate), *axes, "mlp_activation")
        return self.shard(multiply(y, self.down[...].astype(self.dtype)), *axes, "embed_activation")


class Experts(nnx.Module):
    """E times an Mlp without bias (Switch: relu)."""

    def __init__(
        self,
        sizes: Sizes,
        *,
        num_experts: int,
        init: Initializers,
        rngs: nnx.Rngs,
        activation: str = "gelu",
        dropout_rate: float = 0.0,
        shard: Shard = unsharded,
    ):
        E, D, F = num_experts, sizes.d_model, sizes.d_ff
        self.dtype, self.dropout_rate, self.shard = sizes.dtype, dropout_rate, shard
        self.activation = activation_named(activation)
        self.up = parameter(rngs, init.mlp_in, (E, D, F), ("expert", "embed", "mlp"), fan_in=D)
        self.down = parameter(rngs, init.mlp_out, (E, F, D), ("expert", "mlp", "embed"), fan_in=F)

    def __call__(
        self, x: jax.Array, multiply: Callable, *, axes: tuple[str | None, ...], dropout_key: jax.Array | None
    ) -> jax.Array:
        x = self.shard(x.astype(self.dtype), *axes, "embed_activation")
        y = self.activation(multiply(x, self.up[...].astype(self.dtype)))
        y = self.shard(drop_each(y, dropout_key, self.dropout_rate), *axes, "mlp_activation")
        return self.shard(multiply(y, self.down[...].astype(self.dtype)), *axes, "embed_activation")


class MixtureOfExperts(nnx.Module):
    """The weighted sum of what a token's experts compute, and of what all tokens' shared experts do. Padding gets none.

    router              which experts, and how much each counts: SoftmaxTopK, SigmoidTopK, ExpertChoice
    experts             GatedExperts or Experts, each `expert_size` wide (None: d_ff)
    dispatch            dropless, or with_capacity
    num_shared_experts  as one MLP of so many times the width, read by every token (arXiv:2401.06066, section 3.2)
    balance             the term "expert_balance": batch_balance, row_balance, or None where the router balances itself
    router_z_loss       coefficient of the term "router_z_loss", log(sum(exp(logits)))^2 of each token, which keeps the
                        logits small (ST-MoE, arXiv:2202.08906, equation 5, has 0.001)

    Terms come multiplied by their coefficients and are means over tokens and over the layers that have experts. As sums
    over tokens they are exact whatever the micro-batches; only batch_balance is not.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        init: Initializers,
        rngs: nnx.Rngs,
        num_experts: int,
        balance: Callable | None,
        router: Callable = SoftmaxTopK,
        experts: Callable = GatedExperts,
        expert_size: int | None = None,
        dispatch: Callable = dropless,
        shared: Callable = GatedMlp,
        num_shared_experts: int = 0,
        router_z_loss: float = 0.0,
        dropout_rate: float = 0.0,
        shard: Shard = unsharded,
    ):
        if router_z_loss < 0:
            raise ValueError(f"router_z_loss {router_z_loss} is negative; 0 turns it off")
        make = {"init": init, "rngs": rngs, "dropout_rate": dropout_rate, "shard": shard}
        width = sizes.d_ff if expert_size is None else expert_size
        self.dispatch, self.balance, self.router_z_loss = dispatch, balance, router_z_loss
        self.router = router(sizes, num_experts=num_experts, rngs=rngs)
        self.experts = experts(dataclasses.replace(sizes, d_ff=width), num_experts=num_experts, **make)
        shared_sizes = dataclasses.replace(sizes, d_ff=num_shared_experts * width)
        self.shared = shared(shared_sizes, **make) if num_shared_experts else None

    def __call__(
        self, x_BLD: jax.Array, is_real_BL: jax.Array, *, dropout_key: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, Term]]:
        experts_key, shared_key = split_key(dropout_key, 2)
        routing = self.router(x_BLD, is_real_BL)
        y_BLKD, terms = self.dispatch(self.experts, x_BLD, routing, dropout_key=experts_key)
        y_BLD = jnp.einsum("BLK,BLKD->BLD", routing.weights_BLK, y_BLKD.astype(jnp.float32)).astype(y_BLKD.dtype)
        terms = {**routing.terms, **terms}
        if self.balance is not None:
            terms["expert_balance"] = self.balance(routing, is_real_BL)
        if self.router_z_loss:
            terms["router_z_loss"] = z_loss(routing, is_real_BL, coefficient=self.router_z_loss)
        if self.shared is not None:
            z_BLD, _ = self.shared(x_BLD, is_real_BL, dropout_key=shared_key)
            y_BLD = y_BLD + z_BLD
        return y_BLD, terms


def batch_balance(routing: Routing, is_real_BL: jax.Array, *, coefficient: float = 0.01) -> Term:
    """coefficient * E * sum over experts of (share of all choices) * (mean share of the router), over the whole batch.

    Switch, arXiv:2101.03961, equation 4; it is the coefficient where all experts are wanted alike. Hugging Face's
    for Mixtral is K times as large. A product of two means is no mean over tokens: with micro-batches this is the mean,
    weighted by tokens, of the loss of each micro-batch, and asks for balance within each.
    """
    load_1E, shares_1E = load_of_rows(routing).sum(axis=0)[None], routing.shares_BLE.sum(axis=(0, 1))[None]
    return imbalance(load_1E, shares_1E, is_real_BL, coefficient)


def row_balance(routing: Routing, is_real_BL: jax.Array, *, coefficient: float = 0.01) -> Term:
    """The same loss of every row by itself, rows weighted by their tokens (DeepSeek-V3, arXiv:2412.19437, equation 17).

    Exact whatever the micro-batches, and stricter: it asks for balance within each row.
    """
    return imbalance(load_of_rows(routing), routing.shares_BLE.sum(axis=1), is_real_BL, coefficient)


def imbalance(load_RE: jax.Array, shares_RE: jax.Array, is_real_BL: jax.Array, coefficient: float) -> Term:
    """Adds up the loss of each of R groups of tokens, times its number of tokens."""
    num_experts, choices_R1 = load_RE.shape[1], jnp.maximum(load_RE.sum(axis=1, keepdims=True), 1.0)
    value = coefficient * num_experts * (load_RE / choices_R1 * shares_RE).sum()
    return Term(value, is_real_BL.sum().astype(jnp.float32))


def z_loss(routing: Routing, is_real_BL: jax.Array, *, coefficient: float) -> Term:
    log_z_BL = jax.nn.logsumexp(routing.logits_BLE, axis=-1)
    return Term(coefficient * jnp.where(is_real_BL, log_z_BL**2, 0.0).sum(), is_real_BL.sum().astype(jnp.float32))


def drop_each(y: jax.Array, key: jax.Array | None, rate: float) -> jax.Array:
    """Dropout whose noise is shared by no two rows: rows of experts have no common length to share it along."""
    return dropout(y[..., None, :], key, rate=rate, shared_dim=-2)[..., 0, :]
