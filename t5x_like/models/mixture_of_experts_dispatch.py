"""How tokens get to their experts and back: two ways to compute the same mixture.

  dropless        tokens sorted by expert, one product over groups of rows; every choice is computed
  with_capacity   a fixed number of places per row and expert; what does not fit is left out

A way is called as `dispatch(experts, x_BLD, routing, dropout_key=)` and gives what each expert of each token computes,
y_BLKD, and terms to report. Letters: A choices (token by token, the K of a token side by side), S slots of experts.

Both move tokens by two lists that undo each other: which choice sits in each slot, and in which slot each choice sits.
So the gradients of the moves are reads too, without a sum whose order a GPU may change.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from t5x_like.device_parts import over_axes
from t5x_like.losses import Term
from t5x_like.models.mixture_of_experts_routers import Routing, check_capacity_factor


def dropless(
    experts: nnx.Module, x_BLD: jax.Array, routing: Routing, *, dropout_key: jax.Array | None = None
) -> tuple[jax.Array, dict[str, Term]]:
    """Every choice is computed (arXiv:2211.15841), by `jax.lax.ragged_dot` over all rows at once.

    Exact: a token's result depends on no other token. XLA has no grouped product on CPU: there every expert multiplies
    every row, and the cost grows with E. On a mesh each device sorts and multiplies its own rows, with all experts.
    """
    (B, L, D), E = x_BLD.shape, routing.logits_BLE.shape[-1]
    axes = axes_of_rows()
    G = math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)  # groups of rows, one on each device
    experts_GA = routing.experts_BLK.reshape(G, -1)
    order_GA = jnp.argsort(experts_GA, axis=1, stable=True)  # those without an expert last
    slot_of_choice_GA = jnp.argsort(order_GA, axis=1)
    choice_of_slot_GS = order_GA[:, : B // G * routing.num_per_row]
    size_GE = jax.nn.one_hot(experts_GA, E, dtype=jnp.int32).sum(axis=1)
    # What a grouped product gives for rows behind the last group is not defined, nor is its gradient.
    is_used_GS1 = (jnp.take_along_axis(experts_GA, choice_of_slot_GS, axis=1) < E)[..., None]
    x_GSD = jax.vmap(to_slots)(x_BLD.reshape(G, -1, D), choice_of_slot_GS, slot_of_choice_GA)
    y_GSD = experts(
        jnp.where(is_used_GS1, x_GSD, 0),
        lambda x_GSI, kernel_EIO: of_each_group(axes, x_GSI, kernel_EIO, size_GE),
        axes=("batch" if axes else None, None),
        dropout_key=dropout_key,
    )
    y_GAD = jax.vmap(from_slots)(jnp.where(is_used_GS1, y_GSD, 0), choice_of_slot_GS, slot_of_choice_GA)
    return y_GAD.reshape(B, L, -1, D), {}


def axes_of_rows() -> tuple[str, ...]:
    """The axes over which the mesh that this is traced for splits the rows of a batch."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return tuple(axis for axis in ("data", "fsdp", "expert") if sizes.get(axis, 1) > 1)


def of_each_group(axes: tuple[str, ...], x_GSI: jax.Array, kernel_EIO: jax.Array, size_GE: jax.Array) -> jax.Array:
    """A grouped product on each device: the compiler cannot split one, and would gather all tokens for it."""

    def multiply(x_1SI, kernel_EIO, size_1E):
        return jax.lax.ragged_dot(x_1SI[0], kernel_EIO, size_1E[0])[None]

    if not axes:
        return multiply(x_GSI, kernel_EIO, size_GE)
    return over_axes(multiply, axes, (P(axes), P(), P(axes)), P(axes))(x_GSI, kernel_EIO, size_GE)


def with_capacity(
    experts: nnx.Module,
    x_BLD: jax.Array,
    routing: Routing,
    *,
    capacity_factor: float = 1.25,
    dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, Term]]:
    """Each expert has room for capacity_factor * K * L / E tokens of a row, rounded up (arXiv:2101.03961, section 2.2).

    Earlier tokens have precedence over later ones, so no token can see a later one by losing its place (GShard serves
    all first choices before any second one, which is not causal). A choice without room gives 0: its token passes by in
    the residual. Rows do not compete with each other, so micro-batches and devices change nothing; documents that are
    packed into one row do. The term "experts_dropped" is the share of choices left out; it has no gradient.
    """
    check_capacity_factor(capacity_factor)
    B, L, D = x_BLD.shape
    E, K = routing.logits_BLE.shape[-1], routing.experts_BLK.shape[-1]
    capacity = min(L, math.ceil(capacity_factor * K * L / E))
    experts_BA = routing.experts_BLK.reshape(B, -1)
    is_of_BAE = jax.nn.one_hot(experts_BA, E, dtype=jnp.int32)
    place_BA = (jnp.cumsum(is_of_BAE, axis=1) * is_of_BAE).sum(axis=-1) - 1  # in the queue of its expert
    is_kept_BA = (experts_BA < E) & (place_BA < capacity)
    slot_of_choice_BA = jnp.where(is_kept_BA, experts_BA * capacity + place_BA, E * capacity)
    choice_of_slot_BS = jax.vmap(lambda slot_A: invert(slot_A, E * capacity))(slot_of_choice_BA)
    x_BSD = jax.vmap(to_slots)(x_BLD, choice_of_slot_BS, slot_of_choice_BA)
    y_BECD = experts(
        x_BSD.reshape(B, E, capacity, D),
        lambda x_BECI, kernel_EIO: jnp.einsum("BECI,EIO->BECO", x_BECI, kernel_EIO),
        axes=("expert_batch", "expert_activation", None),
        dropout_key=dropout_key,
    )
    y_BAD = jax.vmap(from_slots)(y_BECD.reshape(B, E * capacity, D), choice_of_slot_BS, slot_of_choice_BA)
    num_dropped = routing.num_choices - is_kept_BA.sum().astype(jnp.float32)
    return y_BAD.reshape(B, L, K, D), {"experts_dropped": Term(num_dropped, routing.num_choices)}


def invert(slot_of_choice_A: jax.Array, num_slots: int) -> jax.Array:
    """[S] the choice in each slot; A in a slot without one."""
    A = slot_of_choice_A.shape[0]
    return jnp.full(num_slots, A).at[slot_of_choice_A].set(jnp.arange(A), mode="drop")


@jax.custom_vjp
def to_slots(x_TD: jax.Array, choice_of_slot_S: jax.Array, slot_of_choice_A: jax.Array) -> jax.Array:
    """[S, D]: in each slot the token of its choice; 0 in a slot without one."""
    return read(x_TD, choice_of_slot_S // (slot_of_choice_A.shape[0] // x_TD.shape[0]))


@jax.custom_vjp
def from_slots(y_SD: jax.Array, choice_of_slot_S: jax.Array, slot_of_choice_A: jax.Array) -> jax.Array:
    """[A, D]: what stands in the slot of each choice; 0 for a choice without one."""
    return read(y_SD, slot_of_choice_A)


def read(values: jax.Array, rows: jax.Array) -> jax.Array:
    """The rows of `values`; 0 for a row behind the last."""
    return values.at[rows].get(mode="fill", fill_value=0)


def to_slots_forward(x_TD, choice_of_slot_S, slot_of_choice_A):
    nothing_T0 = jnp.zeros((x_TD.shape[0], 0))  # residuals are arrays: this one carries the number of tokens
    return to_slots(x_TD, choice_of_slot_S, slot_of_choice_A), (slot_of_choice_A, nothing_T0)


def to_slots_backward(residuals, gradient_SD):
    slot_of_choice_A, nothing_T0 = residuals
    gradient_AD = read(gradient_SD, slot_of_choice_A)
    return gradient_AD.reshape(nothing_T0.shape[0], -1, gradient_SD.shape[-1]).sum(axis=1), None, None


def from_slots_forward(y_SD, choice_of_slot_S, slot_of_choice_A):
    return from_slots(y_SD, choice_of_slot_S, slot_of_choice_A), choice_of_slot_S


def from_slots_backward(choice_of_slot_S, gradient_AD):
    return read(gradient_AD, choice_of_slot_S), None, None


to_slots.defvjp(to_slots_forward, to_slots_backward)
from_slots.defvjp(from_slots_forward, from_slots_backward)
