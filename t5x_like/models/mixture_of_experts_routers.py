"""Which experts read a token, and how much each counts: the routers of a mixture of experts.

A router is made as `Router(sizes, num_experts=, rngs=)` and called as `router(x_BLD, is_real_BL) -> Routing`. Logits
are computed in float32 (arXiv:2101.03961, section 2.4). Letters besides those of the package: E experts, K experts of a
token.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.losses import Term
from t5x_like.models.initializers import normal
from t5x_like.models.layers import Sizes, parameter, zeros


class Routing(NamedTuple):
    """The choice of a router. Padding has no expert and weight 0.

    experts_BLK    the experts of each token; E where there is none
    weights_BLK    float32: what each of them is multiplied by
    shares_BLE     float32: how much the router wants each expert for each token; they add up to 1
    logits_BLE     float32
    num_per_row    at most so many of the L * K entries of a row are experts
    num_choices    float32: so many entries of the batch are. Told by the padding alone: the weights of terms must not
                   need the forward pass, which the train step would run once more for them
    terms          what the router itself adds to the loss
    """

    experts_BLK: jax.Array
    weights_BLK: jax.Array
    shares_BLE: jax.Array
    logits_BLE: jax.Array
    num_per_row: int
    num_choices: jax.Array
    terms: dict[str, Term]


class SoftmaxTopK(nnx.Module):
    """The K experts of highest probability.

    renormalise   weights of a token add up to 1: Mixtral (a softmax over the chosen), Qwen3-MoE's norm_topk_prob;
                  otherwise they are the probabilities themselves: Switch (with K = 1), OLMoE
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        num_experts: int,
        rngs: nnx.Rngs,
        experts_per_token: int = 2,
        renormalise: bool = True,
    ):
        check_top_k(experts_per_token, num_experts)
        if renormalise and experts_per_token == 1:
            raise ValueError(
                "experts_per_token 1 with renormalise=True: every weight is 1 and the router learns nothing"
            )
        self.experts_per_token, self.renormalise = experts_per_token, renormalise
        self.kernel = router_kernel(sizes, num_experts, rngs)

    def __call__(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> Routing:
        logits_BLE = logits_of(x_BLD, self.kernel[...])
        shares_BLE = jax.nn.softmax(logits_BLE)
        experts_BLK = jax.lax.top_k(logits_BLE, self.experts_per_token)[1]
        weights_BLK = jnp.take_along_axis(shares_BLE, experts_BLK, axis=-1)
        if self.renormalise:
            weights_BLK = weights_BLK / weights_BLK.sum(axis=-1, keepdims=True)
        return routing_of(experts_BLK, weights_BLK, shares_BLE, logits_BLE, is_real_BL)


class SigmoidTopK(nnx.Module):
    """DeepSeek-V3's (arXiv:2412.19437, section 2.1.2): a sigmoid per expert, and balance by a bias, not by a loss.

    The bias of an expert is added to its sigmoid for the choice of the K experts, and to nothing else, so the loss
    gives it no gradient. It gets one of its own: the term "router_bias" is always 0, and its gradient by an expert's
    bias is (share of all choices that fell on the expert) - 1 / E, divided by the number of layers with such a router.
    It is a sum over tokens, so it is exact whatever the micro-batches. The update of the paper (a step of fixed size
    against the sign) is then a choice of optimizer for the parameters named router/bias: optax.sign_sgd at the paper's
    rate 0.001, without weight decay and apart from the clipping of the others.

    scale   multiplies the weights, which add up to 1 before (DeepSeek-V3: 2.5)

    Not here: choosing among groups of experts first (its node-limited routing).
    """

    def __init__(
        self, sizes: Sizes, *, num_experts: int, rngs: nnx.Rngs, experts_per_token: int = 8, scale: float = 1.0
    ):
        check_top_k(experts_per_token, num_experts)
        self.experts_per_token, self.scale = experts_per_token, scale
        self.kernel = router_kernel(sizes, num_experts, rngs)
        self.bias = zeros((num_experts,), (None,))

    def __call__(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> Routing:
        logits_BLE = logits_of(x_BLD, self.kernel[...])
        scores_BLE = jax.nn.sigmoid(logits_BLE)
        bias_E = self.bias[...]
        experts_BLK = jax.lax.top_k(scores_BLE + bias_E[None, None], self.experts_per_token)[1]
        weights_BLK = jnp.take_along_axis(scores_BLE, experts_BLK, axis=-1)
        weights_BLK = self.scale * weights_BLK / weights_BLK.sum(axis=-1, keepdims=True)
        shares_BLE = scores_BLE / scores_BLE.sum(axis=-1, keepdims=True)
        routing = routing_of(experts_BLK, weights_BLK, shares_BLE, logits_BLE, is_real_BL)
        excess_E = load_of_rows(routing).sum(axis=0) - routing.num_choices / bias_E.shape[0]
        value = ((bias_E - jax.lax.stop_gradient(bias_E)) * excess_E).sum()
        return routing._replace(terms={"router_bias": Term(value, routing.num_choices)})


class ExpertChoice(nnx.Module):
    """Every expert takes the tokens of a row that want it most (arXiv:2202.09368, section 3.2): balanced by itself.

    Each takes capacity_factor * L / E of them, rounded up, so a token has capacity_factor experts on average and may
    have none. The choice for a token depends on the tokens after it, and on the other documents of a packed row: a
    model that predicts the next token would see it, so such a router is refused until `sees_whole_rows` says that this
    is wanted (an encoder).
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        num_experts: int,
        rngs: nnx.Rngs,
        capacity_factor: float = 2.0,
        sees_whole_rows: bool = False,
    ):
        if not sees_whole_rows:
            raise ValueError(
                "ExpertChoice lets a token see those after it: in a decoder use SoftmaxTopK, in an encoder say "
                "sees_whole_rows=True"
            )
        check_capacity_factor(capacity_factor)
        self.capacity_factor = capacity_factor
        self.kernel = router_kernel(sizes, num_experts, rngs)

    def __call__(self, x_BLD: jax.Array, is_real_BL: jax.Array) -> Routing:
        logits_BLE = logits_of(x_BLD, self.kernel[...])
        _, L, E = logits_BLE.shape
        shares_BLE = jax.nn.softmax(logits_BLE)
        capacity = min(L, math.ceil(self.capacity_factor * L / E))
        wanted_BEL = jnp.where(is_real_BL[:, None], shares_BLE.swapaxes(1, 2), -1.0)
        taken_BEC = jax.lax.top_k(wanted_BEL, capacity)[1]
        is_taken_BEL = jnp.put_along_axis(jnp.zeros(wanted_BEL.shape, bool), taken_BEC, True, axis=-1, inplace=False)
        is_taken_BLE = is_taken_BEL.swapaxes(1, 2)
        experts_BLE = jnp.where(is_taken_BLE, jnp.arange(E)[None, None], E)
        weights_BLE = jnp.where(is_taken_BLE, shares_BLE, 0.0)
        routing = routing_of(experts_BLE, weights_BLE, shares_BLE, logits_BLE, is_real_BL)
        num_choices = E * jnp.minimum(is_real_BL.sum(axis=1), capacity).sum().astype(jnp.float32)
        return routing._replace(num_per_row=capacity * E, num_choices=num_choices)


def router_kernel(sizes: Sizes, num_experts: int, rngs: nnx.Rngs) -> nnx.Param:
    """Every device that holds tokens needs the column of every expert: the axis of experts is not named."""
    return parameter(rngs, normal(0.02), (sizes.d_model, num_experts), ("embed", None), fan_in=sizes.d_model)


def logits_of(x_BLD: jax.Array, kernel_DE: jax.Array) -> jax.Array:
    """float32 [B, L, E], also where float32 products are rounded by default: near ties decide the expert."""
    return jnp.einsum("BLD,DE->BLE", x_BLD.astype(jnp.float32), kernel_DE, precision=jax.lax.Precision.HIGHEST)


def routing_of(
    experts_BLK: jax.Array, weights_BLK: jax.Array, shares_BLE: jax.Array, logits_BLE: jax.Array, is_real_BL: jax.Array
) -> Routing:
    """Takes padding out of a choice made for all tokens."""
    E, K, is_real_BL1 = logits_BLE.shape[-1], experts_BLK.shape[-1], is_real_BL[:, :, None]
    return Routing(
        experts_BLK=jnp.where(is_real_BL1, experts_BLK, E),
        weights_BLK=jnp.where(is_real_BL1, weights_BLK, 0.0),
        shares_BLE=jnp.where(is_real_BL1, shares_BLE, 0.0),
        logits_BLE=jnp.where(is_real_BL1, logits_BLE, 0.0),
        num_per_row=experts_BLK.shape[1] * K,
        num_choices=K * is_real_BL.sum().astype(jnp.float32),
        terms={},
    )


def load_of_rows(routing: Routing) -> jax.Array:
    """float32 [B, E]: how many tokens of each row go to each expert."""
    E = routing.logits_BLE.shape[-1]
    return jax.nn.one_hot(routing.experts_BLK, E, dtype=jnp.float32).sum(axis=(1, 2))


def check_top_k(experts_per_token: int, num_experts: int) -> None:
    if not 1 <= experts_per_token <= num_experts:
        raise ValueError(f"experts_per_token {experts_per_token}: at least 1, and at most the {num_experts} experts")


def check_capacity_factor(capacity_factor: float) -> None:
    if not capacity_factor > 0:
        raise ValueError(f"capacity_factor {capacity_factor} leaves experts no room: 1 is room for a balanced choice")
