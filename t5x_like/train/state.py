"""The state of a run: created where it lives, never whole on one device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from t5x_like.models.parameters import split
from t5x_like.optimizers import host_memory
from t5x_like.partitioning import axis_rules, stages
from t5x_like.partitioning.axis_rules import AxisRules

Model = Callable[..., nnx.Module]  # model(rngs=..., shard=...) -> the module


class TrainState(NamedTuple):
    """Everything that changes during training, besides the position in the data."""

    step: jax.Array  # finished steps
    params: dict[str, jax.Array]
    opt_state: Any


class StatePlan(NamedTuple):
    """What the state will be, before it exists. `abstract` has a shape, a dtype and a sharding for every array.

    create(key) draws the parameters, begin(params) takes given ones; the optimizer's state is made of either
    """

    model_name: str
    graphdef: nnx.GraphDef
    abstract: TrainState
    create: Callable[[jax.Array], TrainState]
    begin: Callable[[dict[str, jax.Array]], TrainState]


def plan_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    rules: AxisRules,
    optimizer_rules: AxisRules | None = None,
) -> StatePlan:
    """Shapes and places of the state; `create(key)` makes it, each device only its own part.

    optimizer_rules   where the optimizer's state lives, if not beside the parameters
    """
    make = model_maker(model, mesh, rules)
    module = nnx.eval_shape(make, jax.random.key(0))
    stages.check_stages(module, mesh)
    graphdef, shapes, axes = split(module)
    places = axis_rules.shardings(mesh, rules, shapes, axes)
    moment_places = axis_rules.shardings(mesh, optimizer_rules or rules, shapes, axes)
    opt_shapes = jax.eval_shape(optimizer.init, shapes)
    opt_places = axis_rules.optimizer_shardings(opt_shapes, shapes, moment_places, mesh)
    state_places = TrainState(
        step=NamedSharding(mesh, P()),
        params=places,
        opt_state=host_memory.placed(opt_places, opt_shapes),
    )
    state_shapes = TrainState(jax.ShapeDtypeStruct((), jnp.int32), shapes, opt_shapes)

    def place(shape, sharding):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    # Adam's zeros do not depend on the parameters, so without out_shardings they would all lie on the first device.
    @jax.jit(out_shardings=state_places)
    def create(key):
        params = split(make(key)).params
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    @jax.jit(out_shardings=state_places)
    def begin(params):
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    abstract = jax.tree.map(place, state_shapes, state_places)
    return StatePlan(type(module).__name__, graphdef, abstract, create, begin)


def plan_params(model: Model, mesh: Mesh, rules: AxisRules) -> tuple[nnx.GraphDef, dict[str, jax.ShapeDtypeStruct]]:
    """As `plan_state` for the parameters alone: what evaluation and generation restore."""
    graphdef, shapes, axes = split(nnx.eval_shape(model_maker(model, mesh, rules), jax.random.key(0)))
    places = axis_rules.shardings(mesh, rules, shapes, axes)
    abstract = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=places[n]) for n, s in shapes.items()}
    return graphdef, abstract


def model_maker(model: Model, mesh: Mesh, rules: AxisRules) -> Callable[[jax.Array], nnx.Module]:
    shard = axis_rules.constrain(mesh, rules)
    return lambda key: model(rngs=nnx.Rngs(params=key), shard=shard)
