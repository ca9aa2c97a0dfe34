"""The training loop. The arguments of `train` are the schema of a run's configuration."""

import contextlib
import functools
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console

from t5x_like import losses
from t5x_like.data.pipeline import Pipeline
from t5x_like.metrics.held_out import HeldOut
from t5x_like.metrics.throughput import Throughput
from t5x_like.metrics.writers import open_log
from t5x_like.optimizers import schedule_free
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.partitioning.placement import placement_table
from t5x_like.train import checkpoints, disk, distributed, guards, host_rows, preemption, run_folder, summary
from t5x_like.train.batch_ramp import BatchRamp
from t5x_like.train.initial import Initial
from t5x_like.train.progress import RunProgress
from t5x_like.train.run_lock import RunLock
from t5x_like.train.setup import Setup, plan_run
from t5x_like.train.state import Model, TrainState
from t5x_like.train.step import Gradients, Loss, accumulated
from t5x_like.train.watchdog import Watchdog


def train(
    *,
    model_dir: str,
    model: Model,
    optimizer: optax.GradientTransformation,
    data: Pipeline,
    steps: int,
    learning_rate: optax.Schedule | None = None,
    loss: Loss = losses.CrossEntropy(),  # noqa: B008  frozen
    mesh: Callable[[], Mesh] = make_mesh,
    axis_rules: AxisRules = AxisRules(),  # noqa: B008  frozen
    optimizer_rules: AxisRules | None = None,
    initial: Initial | None = None,
    num_microbatches: int = 1,
    batch_ramp: BatchRamp = BatchRamp(),  # noqa: B008  frozen
    gradients: Gradients = accumulated,
    seed: int = 0,
    eval_every: int = 1000,
    eval_split: str = "validation",
    eval_batches: int | None = None,
    save_every: int = 1000,
    max_to_keep: int = 3,
    keep_period: int | None = None,
    log_every: int = 1,
    dry_run: bool = False,
    start_fresh: bool = False,
    take_over: bool = False,
    config_text: str = "",
) -> TrainState | None:
    """Trains to `steps`, from the last checkpoint in `model_dir` where there is one. The same call resumes.

    learning_rate  only logged: give the optimizer the same schedule
    optimizer_rules   ZeRO's stages 1 and 2: split the optimizer's state where axis_rules keep parameters whole
    gradients      how micro-batches go forward and backward: one by one, or @one_forward_one_backward (_of_two)
    initial        where the parameters of step 0 come from; None: by chance; batch_ramp: batches taken as one
    eval_batches   None: all of the held-out split; dry_run: compile, print the memory per device, and stop
    start_fresh    set aside every checkpoint and begin at step 0; take_over: the folder of a run that is surely gone
    """
    cadence = Cadence(steps, eval_every, save_every, log_every)
    check_positive({**cadence._asdict(), "num_microbatches": num_microbatches, "eval_batches": eval_batches})
    how = num_microbatches, learning_rate, optimizer_rules, gradients, batch_ramp
    setup = plan_run(model, optimizer, data, loss, mesh(), axis_rules, *how)
    console, lines = introduce(setup, steps, num_microbatches, initial)
    if dry_run:
        return report_dry_run(setup, console, steps)
    with contextlib.ExitStack() as stack:
        guarded = enter_folder(stack, pathlib.Path(model_dir).absolute(), config_text, take_over)
        guarded.write({"config.gin": config_text, "summary.json": json.dumps(lines, indent=1)})
        folder = guarded.folder / "checkpoints"
        state, position, notes = restore_or_create(setup, folder, seed, start_fresh, initial)
        saver = checkpoints.Checkpoints(folder, max_to_keep=max_to_keep, keep_period=keep_period)
        log = open_log(guarded.folder, resume_step=(first := int(state.step)), process_index=jax.process_index())
        for opened in (saver, log):
            stack.enter_context(contextlib.closing(opened))
        progress = stack.enter_context(contextlib.closing(RunProgress(console, first_step=first, steps=steps)))
        announce([*notes, f"resuming from step {first}" if first else "starting at step 0"], guarded, progress)
        batches = stack.enter_context(contextlib.closing(setup.batches_from(position)))
        stack.push(guards.leave_on_error(jax.process_count()))  # last in, so that it comes before any waiting
        loop = Loop(setup, guarded, saver, log, progress, setup.held_out(eval_split, eval_batches), cadence)
        return loop.run(state, batches, jax.random.fold_in(jax.random.key(seed), 1))


def introduce(
    setup: Setup, steps: int, num_microbatches: int, initial: Initial | None
) -> tuple[Console, dict[str, str]]:
    """Prints what lies where and what the run will be; gives the console and the lines of the latter."""
    console = run_console()
    lines = summary.describe_run(setup.plan, setup.mesh, setup.data, steps, num_microbatches, setup.ramp)
    lines |= {"at step 0": str(initial.match(setup.plan.abstract.params))} if initial else {}
    console.print(placement_table(*setup.plan.abstract[1:]), summary.as_table(lines, "This run"))
    return console, lines


def run_console() -> Console:
    """Standard error of process 0; a pipe or log file gets lines wide enough for the tables."""
    console = Console(stderr=True, quiet=jax.process_index() != 0)
    return console if console.is_terminal else Console(stderr=True, quiet=console.quiet, width=120)


class Cadence(NamedTuple):
    """How often, in steps; the last step evaluates and saves too."""

    steps: int
    eval_every: int
    save_every: int
    log_every: int

    def due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.steps


def check_positive(numbers: Mapping[str, int | None]) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} {number} must be at least 1")


def report_dry_run(setup: Setup, console: Console, steps: int) -> None:
    """Compiles the step for this mesh without making a single parameter, and says what it would take."""
    batch = setup.take(iter(setup.rows.of_host(*setup.host_range)), steps - 1)
    started = time.monotonic()
    compiled = setup.step.lower(setup.plan.abstract, batch, jax.random.key(0)).compile()
    seconds, memory = time.monotonic() - started, summary.memory_line(compiled.memory_analysis())
    lines = {"compiled in": f"{seconds:.1f} s", "step, per device": memory}
    console.print(summary.as_table(lines, "Dry run: nothing was written"))


def restore_or_create(setup: Setup, folder: pathlib.Path, seed: int, start_fresh: bool, initial: Initial | None):
    """(state, position in the data or None, a line for each checkpoint that was set aside)."""
    step, notes = checkpoints.latest_valid(folder, start_fresh=start_fresh)
    if step is None:
        state = setup.plan.create(jax.random.key(seed))
        if initial is not None:
            state = setup.plan.begin(initial(setup.plan.abstract.params, state.params))
        return state, None, notes
    position = run_folder.read_json(folder / str(step), "data")
    host_rows.check_identity(setup.rows, position)
    return checkpoints.restore(folder, step, setup.plan.abstract), position, notes


class Guarded(NamedTuple):
    """A run folder that is ours, and what watches over the run in it. Process 0 writes the small files."""

    folder: pathlib.Path
    lock: RunLock | None
    stop_signals: preemption.StopSignals
    watchdog: Watchdog
    notes: list[str]

    def check(self) -> None:
        """Once a step: raises when another run has taken the folder."""
        self.watchdog.progress("step")
        if self.lock:
            self.lock.check()

    def write(self, files: Mapping[str, str]) -> None:
        if self.lock:
            for name, text in files.items():
                run_folder.write_atomically(self.folder / name, text)

    def event(self, kind: str, text: str) -> None:
        if self.lock:
            run_folder.append_event(self.folder, kind, text)


def enter_folder(stack: contextlib.ExitStack, folder: pathlib.Path, config_text: str, take_over: bool) -> Guarded:
    """Makes sure that the folder can be written and is ours alone; `stack` gives everything back."""
    disk.probe_writable(folder)
    distributed.require_agreement("the configuration", config_text)
    lock = RunLock(folder, take_over=take_over) if jax.process_index() == 0 else None
    if lock:
        stack.callback(lock.release)
    stop_signals = preemption.StopSignals(jax.process_count())
    stack.callback(stop_signals.close)
    watchdog = Watchdog()
    stack.callback(watchdog.close)
    return Guarded(folder, lock, stop_signals, watchdog, lock.notes if lock else [])


def announce(notes: list[str], guarded: Guarded, progress: RunProgress) -> None:
    """What happened before the first step, to the person and to events.jsonl."""
    for note in [*guarded.notes, *notes]:
        guarded.event("note", note)
        progress.say(note)


class Loop(NamedTuple):
    """Step, report, evaluate, save; in this order, because a state is saved only after its loss was looked at."""

    setup: Setup
    guarded: Guarded
    saver: checkpoints.Checkpoints
    log: Any
    progress: RunProgress
    held_out: HeldOut
    cadence: Cadence

    def run(self, state: TrainState, batches, key: jax.Array) -> TrainState:
        throughput, pending, step = Throughput(), None, int(state.step)
        if step == 0:
            self.log.write(0, self.evaluate(0, state), {})
        stopping = False
        while step < self.cadence.steps and not stopping:
            step += 1
            began = time.monotonic()
            batch = self.setup.take(batches, step - 1)
            waited = time.monotonic() - began
            state, metrics = self.setup.step(state, batch, key)
            # Metrics are read one step late, so that the device never waits for the host.
            self.report(pending, throughput)
            pending = (step, metrics, waited)
            self.guarded.check()
            self.saver.check()
            stopping = self.guarded.stop_signals.reached(step)
            evaluating = self.cadence.due(step, self.cadence.eval_every)
            saving = stopping or self.cadence.due(step, self.cadence.save_every)
            if evaluating or saving:
                self.report(pending, throughput, more=self.evaluate(step, state) if evaluating else {})
                pending = None
                throughput.restart()
            if saving:
                self.save(step, state, batches)
        self.saver.wait()
        text = f"finished at step {step}" if step >= self.cadence.steps else preemption.resume_line(step)
        self.guarded.event("stopped", text)
        self.progress.say(text)
        return state

    def report(self, pending, throughput: Throughput, more: Mapping[str, float] | None = None) -> None:
        """Waits for the metrics of a step, logs them, and stops the run when one of them is not finite."""
        if pending is None:
            return
        step, metrics, waited = pending
        values = {name: np.asarray(value).item() for name, value in metrics.items()}
        values["rows"] = self.rows_before(step)
        throughput.step(values["loss_weight"], waited)
        rates = throughput.rates()
        finite = all(map(math.isfinite, values.values()))
        if more or not finite or self.cadence.due(step, self.cadence.log_every):
            self.log.write(step, values | dict(more or {}), rates)
        guards.require_finite(step, values)
        # In steps of the present size.
        left = (self.rows_before(self.cadence.steps) - values["rows"]) / (values["rows"] - self.rows_before(step - 1))
        self.progress.step(step, values, rates, throughput.seconds_left(left))

    def rows_before(self, step: int) -> int:
        return self.setup.ramp.batches_before(step) * self.setup.data.batch_size

    def evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        progress = functools.partial(self.guarded.watchdog.progress, "evaluate")
        progress()
        measured = self.held_out(schedule_free.evaluated(state.params, state.opt_state), progress)
        if measured:
            losses_of_tasks = ", ".join(f"{task} {means['loss']:.4f}" for task, means in measured.items())
            self.progress.say(f"step {step:,}: held-out loss {losses_of_tasks}")
        return {f"eval/{task}/{name}": value for task, means in measured.items() for name, value in means.items()}

    def save(self, step: int, state: TrainState, batches) -> None:
        self.guarded.watchdog.progress("save")
        self.log.sync()  # a checkpoint must not be newer than its log
        position = host_rows.global_position(self.setup.rows, batches.get_state())
        self.saver.save(step, state, data=position, metadata={"mesh": dict(self.setup.mesh.shape)})
        self.guarded.event("saved", f"step {step}")
