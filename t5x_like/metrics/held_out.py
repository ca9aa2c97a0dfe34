"""Held-out loss of every task of a mixture: one pass over a split, the same rows every time, on the whole mesh."""

from collections.abc import Callable, Iterator, Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like.data.pipeline import Pipeline, Rows
from t5x_like.data.prepared import PreparedTask
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models.parameters import merge

# (model, batch) -> terms by name
Measure = Callable[[nnx.Module, Features], dict[str, Term]]
ToDevices = Callable[[Features], Features]


class HeldOut:
    """Measures parameters on the `split` of each task that has it, `max_batches` of them at most."""

    def __init__(
        self,
        pipeline: Pipeline,
        split: str,
        *,
        objectives: Mapping[str, type],
        graphdef: nnx.GraphDef,
        measure: Measure,
        rows_of_process: tuple[int, int],
        to_devices: ToDevices,
        max_batches: int | None = None,
    ):
        self._to_devices, self._max_batches = to_devices, max_batches
        self.rows: dict[str, Rows] = {
            task.name: pipeline.held_out_rows(task, split, objectives).of_host(*rows_of_process)
            for task, _ in pipeline.tasks()
            if has_split(task, split)
        }

        @jax.jit
        def add(total, params, batch):
            return jax.tree.map(jnp.add, total, measure(merge(graphdef, params), batch))

        self._add, self._measure = add, lambda params, batch: measure(merge(graphdef, params), batch)

    def __call__(self, params: dict[str, jax.Array], progress: Callable[[], None] = lambda: None) -> dict[str, dict]:
        """Per task, the global mean of every term, and "tokens", the weight of its loss."""
        return {name: self._means(params, rows, progress) for name, rows in self.rows.items()}

    def _means(self, params, rows: Rows, progress: Callable[[], None]) -> dict[str, float]:
        total = None
        for batch in self.batches(rows):
            if total is None:
                shapes = jax.eval_shape(self._measure, params, batch)
                total = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
            total = self._add(total, params, batch)
            progress()
        total = jax.device_get(total)
        means = {name: float(term.sum) / max(float(term.weight), 1.0) for name, term in total.items()}
        return means | {"tokens": float(total["loss"].weight)}

    def batches(self, rows: Rows) -> Iterator[Features]:
        """The batches of a task on the devices."""
        for number, batch in enumerate(rows):
            if number == self._max_batches:
                return
            yield self._to_devices(batch)


def has_split(task: PreparedTask, split: str) -> bool:
    return split in task.manifest["splits"]
