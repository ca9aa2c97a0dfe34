"""The first screen of a run: model, parameters, mesh, memory, data, steps. Also kept as MODEL_DIR/summary.json."""

import math
from typing import Any

import jax
from rich.table import Table

from t5x_like.data.pipeline import Pipeline
from t5x_like.partitioning.placement import bytes_per_device, human_bytes
from t5x_like.train.batch_ramp import BatchRamp
from t5x_like.train.state import StatePlan


def describe_run(
    plan: StatePlan, mesh: jax.sharding.Mesh, data: Pipeline, steps: int, num_microbatches: int, ramp: BatchRamp
) -> dict[str, str]:
    """What the run is, line by line; needs shapes and shardings only."""
    state = plan.abstract
    num_params = sum(math.prod(param.shape) for param in state.params.values())
    params = sum(map(bytes_per_device, state.params.values()))
    optimizer = sum(map(bytes_per_device, jax.tree.leaves(state.opt_state)))
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1) or "one device"
    places = data.batch_size * sum(data.lengths.values())
    accumulate = f", in {num_microbatches} micro-batches" if num_microbatches > 1 else ""
    largest, batches = ramp.largest(steps), ramp.batches_before(steps)
    grows = f"; a step takes {ramp.batches(0)} to {largest} times as many" if largest > 1 else ""
    processes = count(jax.process_count(), "process", "processes")
    return {
        "model": f"{plan.model_name}, {num_params:,} parameters",
        "devices": f"{mesh.devices.size} x {mesh.devices.flat[0].device_kind}, {processes}",
        "mesh": axes,
        "memory per device": f"parameters {human_bytes(params)}, optimizer {human_bytes(optimizer)}",
        "data": describe_data(data, batches),
        "rows": f"{data.batch_size} of {data.lengths}, {places:,} places a step{accumulate}{grows}",
        "steps": f"{steps:,}, {batches * places:,} places in all",
    }


def describe_data(data: Pipeline, batches: int) -> str:
    """Tasks with their shares, and how often the run will see each: about, because packing decides the last percent."""
    lines = []
    places = batches * data.batch_size * sum(data.lengths.values())
    for task, rate in data.tasks():
        counts = task.manifest["splits"].get("train", {"tokens": {}, "examples": 0})
        tokens = sum(counts["tokens"].values())
        epochs = f", about {places * rate / tokens:.2g} epochs" if tokens else ""
        objective = (type(data.objective).__name__ if data.objective else None) or task.manifest["objective"]["name"]
        lines.append(f"{task.name} {rate:.0%} ({objective}, {counts['examples']:,} records, {tokens:,} tokens{epochs})")
    return "; ".join(lines)


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def memory_line(memory: Any) -> str:
    """What the compiled step needs on each device, from the compiler (on CPU its temporaries are no guide to a GPU)."""
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    peak += memory.output_size_in_bytes
    return (
        f"arguments {human_bytes(memory.argument_size_in_bytes)}, "
        f"temporaries {human_bytes(memory.temp_size_in_bytes)}, together {human_bytes(peak)}"
    )


def as_table(lines: dict[str, str], title: str) -> Table:
    table = Table(title=title, show_header=False, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, text)
    return table
