"""A run before its first array exists: every check that needs no compilation, and the step ready to compile."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh, NamedSharding

from t5x_like.data.pipeline import Pipeline, Rows
from t5x_like.features import Features
from t5x_like.metrics.held_out import HeldOut
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.partitioning import axis_rules
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import on_mesh
from t5x_like.train import host_rows
from t5x_like.train.batch_ramp import BatchRamp, interleaved
from t5x_like.train.state import Model, StatePlan, TrainState, plan_state
from t5x_like.train.step import Gradients, Loss, accumulated, make_train_step


class Setup(NamedTuple):
    mesh: Mesh
    plan: StatePlan
    data: Pipeline
    rows: Rows
    batch_sharding: NamedSharding
    host_range: tuple[int, int]  # the rows of a batch that this process feeds
    step: Callable
    loss: Loss
    ramp: BatchRamp

    def to_devices(self, batch, batches: int = 1):
        return host_rows.to_devices(batch, self.batch_sharding, batches * self.data.batch_size)

    def take(self, batches, step: int):
        """The rows of the step that `step` others came before, on the devices."""
        taken = [next(batches) for _ in range(self.ramp.batches(step))]
        return self.to_devices(interleaved(taken), len(taken))

    def batches_from(self, position: dict | None):
        """This process's rows, read ahead; from the beginning, or from a saved position."""
        batches = self.rows.of_host(*self.host_range).prefetched()
        if position:
            batches.set_state(position)
        return batches

    def held_out(self, split: str, max_batches: int | None) -> HeldOut:
        return HeldOut(
            self.data,
            split,
            objectives=OBJECTIVES,
            graphdef=self.plan.graphdef,
            measure=on_mesh(self.mesh, self.loss.measure),
            rows_of_process=self.host_range,
            to_devices=self.to_devices,
            max_batches=max_batches,
        )


def plan_run(
    model: Model,
    optimizer: optax.GradientTransformation,
    data: Pipeline,
    loss: Loss,
    mesh: Mesh,
    rules: AxisRules,
    num_microbatches: int,
    learning_rate: optax.Schedule | None,
    optimizer_rules: AxisRules | None = None,
    gradients: Gradients = accumulated,
    ramp: BatchRamp = BatchRamp(),  # noqa: B008  frozen
) -> Setup:
    """Opens the data, places the state, and raises one sentence for what cannot work; cheapest check first."""
    rows = data.train_rows(OBJECTIVES)
    sharding = axis_rules.batch_sharding(mesh, rules, data.batch_size)
    check_rows_come_out_even(data.batch_size, num_microbatches, sharding)
    plan = plan_state(model, optimizer, mesh, rules, optimizer_rules)
    check_sides(plan, data, len(rows.plan.blank))
    check_vocabulary(plan, rows.plan.tasks[0].split.task.vocabulary.size)

    def step(state: TrainState, batch: Features, key: jax.Array):
        batches = len(batch.tokens) // data.batch_size
        how = {"num_microbatches": num_microbatches * batches, "learning_rate": learning_rate, "gradients": gradients}
        return make_train_step(plan.graphdef, loss, optimizer, **how)(state, batch, key)

    host_range = host_rows.rows_of_this_process(sharding, data.batch_size)
    compiled = jax.jit(on_mesh(mesh, step), donate_argnums=0)
    return Setup(mesh, plan, data, rows, sharding, host_range, compiled, loss, ramp)


def check_rows_come_out_even(batch_size: int, num_microbatches: int, sharding: NamedSharding) -> None:
    parts = num_microbatches * (batch_size // sharding.shard_shape((batch_size,))[0])
    if batch_size % parts:
        raise ValueError(
            f"batch_size {batch_size} does not divide by {parts} ({num_microbatches} micro-batches on "
            f"{parts // num_microbatches} devices): make it a multiple of {parts}"
        )


def check_sides(plan: StatePlan, data: Pipeline, num_sides: int) -> None:
    """A model with an encoder beside its decoder needs rows of two sides, one stack would leave the inputs unread."""
    has_both = any(name.startswith("encoder/") for name in plan.abstract.params)
    if num_sides == len(data.lengths) == (2 if has_both else 1):
        return
    render, lengths = "@encoder_decoder", "inputs and targets"
    if not has_both:
        render, lengths = "@decoder_only, or @in_place where the objective predicts in place", "targets alone"
    raise ValueError(
        f"the model has {'an encoder beside its decoder' if has_both else 'no encoder beside its stack'}, so the data "
        f"must give it lengths of {lengths} and render = {render}; it has lengths {data.lengths} and a render of "
        f"{num_sides} side(s)"
    )


def check_vocabulary(plan: StatePlan, size: int) -> None:
    """The model may have more ids than the tasks, for the sake of the mesh; never fewer."""
    rows = next(param.shape[0] for name, param in plan.abstract.params.items() if "embedding/table" in name)
    if size > rows:
        raise ValueError(
            f"the tasks' vocabulary has {size} ids and the model {rows}: set the model's vocab_size to {size} or more"
        )
