"""SOAP (Vyas et al., arXiv:2409.11321, algorithm 3): Adam in the slowly turning eigenbasis of Shampoo's factors.

  factor   mean of G G' for the rows of a matrix G, of G' G for its columns: square, split over the mesh as G is
  basis    the factor's eigenvectors: of the first gradient exactly, then by one power iteration and a QR decomposition
           every `every` updates

A matrix is what `muon.matrices` says: a projection to heads is one, scanned layers and experts are each their own.
"""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from t5x_like.optimizers.muon import NOT_HIDDEN, matrices

HIGHEST = jax.lax.Precision.HIGHEST  # a TPU would else turn by matrices that are not orthogonal


class Side(NamedTuple):
    """Of the rows or the columns of each matrix [..., size, size]; None where that side is too long."""

    factor: jax.Array | None
    basis: jax.Array | None


class Soap(NamedTuple):
    count: jax.Array
    mu: dict[str, jax.Array]  # of the gradient as it is
    nu: dict[str, jax.Array]  # of the gradient in the bases
    rows: dict[str, Side]
    columns: dict[str, Side]


def soap(
    learning_rate: optax.ScalarOrSchedule,
    *,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    every: int = 10,
    longest: int = 10_000,
    adam_weight_decay: float = 0.0,
    not_hidden: str = NOT_HIDDEN,
) -> optax.GradientTransformation:
    """SOAP for the layers' matrices, AdamW for all else, by one learning rate.

    every        updates from one basis to the next
    longest      a side with more than this many rows or columns is not turned (as the paper does with vocabularies)
    not_hidden   parameters whose name this is found in, and all with one dimension, go by AdamW

    The first gradient makes the bases and neither moves nor decays a matrix, as in the authors' code. The state of a
    matrix [m, n] is 2 (m n + m m + n n) numbers, each device its part; for a new basis every device gathers the factor
    and decomposes it whole: a Llama of 4 layers, width 512, on fsdp 4 x tensor 2 has 46.4 MiB of state a device where
    AdamW has 12.8, and its largest gather is 30.2 MiB (`t5x_like plan`). Where a factor lacks rank, as from gradients
    that are all alike, or of a first matrix that is not square, the rest of its basis and the steps along it are by
    chance: there a run differs on another mesh.
    """
    if every < 1 or longest < 1:
        raise ValueError(f"every {every} and longest {longest} must be at least 1")
    pattern = re.compile(not_hidden)
    hidden = optax.chain(
        scale_by_soap(Numbers(b1, b2, eps, weight_decay, every, longest), pattern),
        optax.scale_by_learning_rate(learning_rate),
    )
    others = optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=adam_weight_decay)

    def label(params):
        return {name: "others" if axes is None else "hidden" for name, axes in matrices(params, pattern).items()}

    return optax.multi_transform({"hidden": hidden, "others": others}, label)


class Numbers(NamedTuple):
    b1: float
    b2: float
    eps: float
    weight_decay: float
    every: int
    longest: int


def scale_by_soap(numbers: Numbers, not_hidden: re.Pattern) -> optax.GradientTransformation:
    def init(params):
        shapes = sizes(params, not_hidden)

        def of_each(make):
            return {name: make(shapes[name]) if name in shapes else param for name, param in params.items()}

        zeros = {name: jnp.zeros_like(p) if name in shapes else p for name, p in params.items()}
        rows, columns = (of_each(functools.partial(empty_side, dim=dim, longest=numbers.longest)) for dim in (-2, -1))
        return Soap(jnp.zeros((), jnp.int32), zeros, zeros, rows, columns)

    def update(grads, state, params):
        decay = jnp.where(state.count == 0, 0.0, numbers.weight_decay)
        new = [dict(part) for part in (grads, *state[1:])]
        for name, shape in sizes(grads, not_hidden).items():
            mu, nu, rows, columns = (part[name] for part in state[1:])
            given = grads[name].reshape(shape), mu.reshape(shape), nu.reshape(shape), rows, columns
            found = update_of_one(numbers, state.count, *given)
            for part, value in zip(new, found, strict=True):
                part[name] = value if isinstance(value, Side) else value.reshape(mu.shape).astype(grads[name].dtype)
            new[0][name] += (decay * params[name]).astype(grads[name].dtype)
        return new[0], Soap(state.count + 1, *new[1:])

    return optax.GradientTransformation(init, update)


def sizes(params: Mapping[str, Any], not_hidden: re.Pattern) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter as matrices [..., rows, columns]."""
    found = {}
    for name, axes in matrices(params, not_hidden).items():
        if axes is not None:
            shape, first = params[name].shape, axes.reduction_axis[0]
            rows, columns = (math.prod(shape[dim] for dim in dims) for dims in (axes.reduction_axis, axes.output_axis))
            found[name] = (*shape[:first], rows, columns)
    return found


def empty_side(shape: tuple[int, ...], *, dim: int, longest: int) -> Side:
    size = shape[dim]
    empty = jnp.zeros((*shape[:-2], size, size), jnp.float32)
    return Side(None, None) if size > longest else Side(empty, empty)


def update_of_one(numbers: Numbers, count, grad, mu, nu, rows: Side, columns: Side):
    """The update and the next state of one parameter's matrices."""
    b1, b2, is_first = numbers.b1, numbers.b2, count == 0
    done = jnp.maximum(count, 1).astype(jnp.float32)
    next_mu = jnp.where(is_first, mu, b1 * mu + (1 - b1) * grad)
    next_nu = jnp.where(is_first, nu, b2 * nu + (1 - b2) * turn(grad, rows.basis, columns.basis) ** 2)
    mean = turn(next_mu, rows.basis, columns.basis) / (1 - b1**done)
    scaled = mean / (jnp.sqrt(next_nu / (1 - b2**done)) + numbers.eps)
    found = jnp.where(is_first, 0.0, turn_back(scaled, rows.basis, columns.basis))
    which = jnp.where(is_first, 1, jnp.where(count % numbers.every == 0, 2, 0))
    rows, next_nu = next_side(rows, product_of(grad, grad.mT), next_nu, b2, which, -2)
    columns, next_nu = next_side(columns, product_of(grad.mT, grad), next_nu, b2, which, -1)
    return found, next_mu, next_nu, rows, columns


def next_side(side: Side, outer, nu, b2: float, which, dim: int) -> tuple[Side, jax.Array]:
    """`which` basis: the old one, the first one, or the next one."""
    if side.factor is None:
        return side, nu
    factor = b2 * side.factor + (1 - b2) * outer
    changes = [lambda factor, basis, nu: (basis, nu), first_basis, functools.partial(next_basis, dim=dim)]
    basis, nu = jax.lax.switch(which, changes, factor, side.basis, nu)
    return Side(factor, basis), nu


def product_of(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=HIGHEST)


def turn(x: jax.Array, rows: jax.Array | None, columns: jax.Array | None) -> jax.Array:
    """x [..., m, n] in the bases of its rows and columns."""
    x = x if rows is None else product_of(rows.mT, x)
    return x if columns is None else product_of(x, columns)


def turn_back(x: jax.Array, rows: jax.Array | None, columns: jax.Array | None) -> jax.Array:
    x = x if rows is None else product_of(rows, x)
    return x if columns is None else product_of(x, columns.mT)


def first_basis(factor: jax.Array, basis: jax.Array, nu: jax.Array) -> tuple[jax.Array, jax.Array]:
    """All eigenvectors, that of the largest eigenvalue first."""
    return jnp.linalg.eigh(factor)[1][..., ::-1], nu


def next_basis(factor: jax.Array, basis: jax.Array, nu: jax.Array, *, dim: int) -> tuple[jax.Array, jax.Array]:
    """One power iteration from the old basis, in the order of what it says are the eigenvalues; `nu` goes along."""
    powered = product_of(factor, basis)
    order = jnp.argsort(-(basis * powered).sum(axis=-2), axis=-1)
    powered = jnp.take_along_axis(powered, order[..., None, :], axis=-1)
    nu = jnp.take_along_axis(nu, order[..., None, :] if dim == -1 else order[..., :, None], axis=dim)
    return jnp.linalg.qr(powered)[0], nu
