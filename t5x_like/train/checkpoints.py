"""Save and restore a run: train state, data position and metadata, together or not at all.

A save runs in the background: arrays are copied from the devices, written under a temporary name, sealed with digests
(digests.py), and only then renamed to `<step>/`. So a folder with the name of a step is complete and can be
checked, and older steps are deleted after that. At start:

  step, notes = latest_valid(folder)           sets damaged steps aside, and says so
  checkpoints = Checkpoints(folder)            after that, because it believes every folder it sees
  state = restore(folder, step, target)        onto any mesh: `target` says shapes, dtypes and shardings

The state is stored as a flat dict, "opt_state/0/mu/decoder/embedding" to array: what is on disk does not depend on the
classes of the optimizer's state, and a part of it can be read alone.
"""

import difflib
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from t5x_like.optimizers import schedule_free
from t5x_like.train import digests, disk, run_folder

FORMAT = 1  # of the metadata item
SAVE_TIMEOUT_SECONDS = 1200  # for one background save, all processes together
MARGIN = 1.05  # what a save needs beyond the bytes of its arrays


class Checkpoints:
    """The checkpoints of the one run that writes to this folder. All processes make the same calls."""

    def __init__(self, folder: str | pathlib.Path, *, max_to_keep: int = 3, keep_period: int | None = None):
        """Keeps the newest `max_to_keep` steps, and for ever those that are multiples of `keep_period`."""
        if max_to_keep < 1:
            raise ValueError(f"max_to_keep {max_to_keep} must be at least 1: a run without a checkpoint cannot resume")
        if keep_period is not None and keep_period < 1:
            raise ValueError(f"keep_period {keep_period} must be a number of steps, or None to keep none for ever")
        self._folder = pathlib.Path(folder).absolute()
        keep = [preservation_policy.LatestN(max_to_keep)]
        keep += [preservation_policy.EveryNSteps(keep_period)] if keep_period else []
        self._saving: int | None = None
        self._unfinished = False
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=True,
                lightweight_initialize=True,  # the step's number is all that is needed of the other steps
                async_options=ocp.options.AsyncOptions(
                    timeout_secs=SAVE_TIMEOUT_SECONDS,
                    post_finalization_callback=self._seal,
                    create_directories_asynchronously=False,  # what cannot be made is an error now, not in 300 s
                ),
            ),
        )

    def save(self, step: int, state: Any, *, data: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Starts to save; `state` may be donated and `data` changed as soon as this returns.

        data      the position in the data: JSON, global, the same on every process
        metadata  JSON for people and tools: `inspect` shows it

        Saving the newest step once more does nothing.
        """
        self.wait()
        newest = self._manager.latest_step()
        if newest is not None and step <= newest:
            if step == newest:
                return
            raise ValueError(f"checkpoint {step} is older than {newest} in {self._folder}; resume from {newest}")
        arrays = named_arrays(state)
        disk.require_free(self._folder, int(MARGIN * sum(array.nbytes for array in arrays.values())))
        record = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(arrays),
            data=ocp.args.JsonSave(data),
            metadata=ocp.args.JsonSave({"format": FORMAT, "step": step, "run": metadata, "arrays": record}),
        )
        self._saving, self._unfinished = step, True
        try:
            self._manager.save(step, args=items, force=True)
        except Exception as error:
            raise self._not_saved(error) from error

    def check(self) -> None:
        """Raises what went wrong in the background, without waiting. Call it every step."""
        if self._unfinished and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when the last save is on disk, or raises why it is not."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error
        self._unfinished = False

    def close(self) -> None:
        """Waits for the last save and for old steps to be deleted."""
        self.wait()
        self._manager.close()

    def _temporary_folder(self) -> pathlib.Path:
        return self._folder / f"{self._saving}.orbax-checkpoint-tmp"

    def _seal(self) -> None:
        # Orbax calls this on one process, when all files of all processes are written and before the rename.
        digests.seal(self._temporary_folder())

    def _not_saved(self, error: Exception) -> OSError:
        """Frees what the failed save took and says, in one line, what is left."""
        if jax.process_index() == 0:
            shutil.rmtree(self._temporary_folder(), ignore_errors=True)
        system_error = re.search(r"([^:]+) \[os_error_code", str(error))  # TensorStore puts it last in a long chain
        why = system_error[1].strip() if system_error else str(error).partition("\n")[0][:200] or type(error).__name__
        kept = [step for step in run_folder.checkpoint_steps(self._folder) if step != self._saving]
        return OSError(
            f"checkpoint {self._saving} was not saved to {self._folder}: {why}. "
            f"Sound steps before it: {', '.join(map(str, kept)) or 'none'}; correct the cause and run the same command"
        )


def latest_valid(folder: str | pathlib.Path, *, start_fresh: bool = False) -> tuple[int | None, list[str]]:
    """The newest step that is what was written (None: start at 0), and a line for each newer one that was set aside.

    Raises when there are steps and all are damaged, unless `start_fresh`. All processes share the reading.
    """
    folder = pathlib.Path(folder).absolute()
    choice = run_folder.every_step(folder) if start_fresh else run_folder.newest_valid(folder, shared_problems)
    if jax.process_count() > 1:
        # Every process has looked at the folder before the first one changes it.
        multihost_utils.assert_equal(np.int64(-1 if choice.step is None else choice.step), "processes see other files")
    if jax.process_index() == 0:
        run_folder.rename_set_aside(folder, choice)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
    return choice.step, run_folder.explain(choice)


def shared_problems(step_folder: pathlib.Path) -> list[str]:
    """digests.problems, each process hashing its share; the same verdict everywhere."""
    mine = digests.problems(step_folder, jax.process_index(), jax.process_count())
    if jax.process_count() == 1:
        return mine
    counts = multihost_utils.process_allgather(np.int32(len(mine)))
    others = [f"process {process} found damage" for process, count in enumerate(counts.tolist()) if count]
    return mine or others


def restore(folder: str | pathlib.Path, step: int, target: Any) -> Any:
    """The state in the structure of `target`, whose leaves (arrays or ShapeDtypeStructs) say where to put each array.

    The mesh may be another one than the state was saved from.
    """
    wanted = named_arrays(target)
    saved = saved_arrays(folder, step)
    check_same(wanted, saved, f"checkpoint {step} in {folder}")
    restored = read_arrays(folder, step, wanted)
    return jax.tree.unflatten(jax.tree.structure(target), [restored[name] for name in wanted])


def restore_params(
    folder: str | pathlib.Path, step: int, target: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """The parameters alone, for evaluation and generation; what has no sharding goes to the first device."""
    wanted = {f"params/{name}": leaf for name, leaf in target.items()}
    saved = {name: shape for name, shape in saved_arrays(folder, step).items() if name.startswith("params/")}
    check_same(wanted, saved, f"checkpoint {step} in {folder}")
    return read_params(folder, step, target)


def read_params(
    folder: str | pathlib.Path, step: int, wanted: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """These parameters of the step, whatever else it holds; of a schedule-free run its mean, as `evaluated` has it."""
    saved = saved_arrays(folder, step)
    beside = {name: names for name, names in schedule_free.saved_beside(saved).items() if name in wanted}
    arrays = {f"params/{name}": leaf for name, leaf in wanted.items()}
    for name, (z, b1) in beside.items():
        sharding = wanted[name].sharding
        everywhere = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
        arrays[z] = wanted[name]
        arrays[b1] = jax.ShapeDtypeStruct((), saved[b1].dtype, sharding=everywhere)
    read = read_arrays(folder, step, arrays)
    params = {name: read[f"params/{name}"] for name in wanted}
    for name, (z, b1) in beside.items():
        params |= schedule_free.averages({name: params[name]}, {name: read[z]}, read[b1])
    return params


def saved_arrays(folder: str | pathlib.Path, step: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Name, shape and dtype of everything that the step holds, without reading it."""
    metadata = run_folder.read_json(pathlib.Path(folder) / str(step), "metadata")
    if metadata.get("format") != FORMAT:
        raise ValueError(f"checkpoint {step} in {folder} has format {metadata.get('format')}, this code reads {FORMAT}")
    arrays = metadata["arrays"].items()
    return {name: jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype)) for name, (shape, dtype) in arrays}


def read_arrays(
    folder: str | pathlib.Path, step: int, wanted: Mapping[str, jax.Array | jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """These arrays of the step, each with the sharding it is wanted with. Never the sharding it was saved with."""
    first = SingleDeviceSharding(jax.devices()[0])
    target = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or first)
        for name, leaf in wanted.items()
    }
    arguments = ocp.args.PyTreeRestore(
        target, restore_args=ocp.checkpoint_utils.construct_restore_args(target), partial_restore=True
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return reader.restore(pathlib.Path(folder).absolute() / str(step) / "state", args=arguments)


def named_arrays(tree: Any) -> dict[str, Any]:
    """The leaves of any pytree by their path, as in "opt_state/0/mu/decoder/embedding"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two arrays of the state have one name; no parameter may be named like the path of another")
    return named


def check_same(wanted: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> None:
    """Raises one error that lists every difference between what the run wants and what was saved."""

    def kind(leaf):
        return f"{leaf.dtype}{list(leaf.shape)}"

    missing = sorted(wanted.keys() - saved.keys())
    extra = sorted(saved.keys() - wanted.keys())
    changed = [name for name in sorted(wanted.keys() & saved.keys()) if kind(wanted[name]) != kind(saved[name])]
    if not (missing or extra or changed):
        return
    lines = [f"  missing: {name} {kind(wanted[name])}{nearest(name, extra)}" for name in missing]
    lines += [f"  extra: {name} {kind(saved[name])}" for name in extra]
    lines += [f"  different: {name} was saved as {kind(saved[name])}, is now {kind(wanted[name])}" for name in changed]
    raise ValueError(
        f"{where} is of another model or optimizer: {len(missing)} arrays missing, {len(extra)} extra, "
        f"{len(changed)} different; use the configuration that wrote it, or another folder\n" + "\n".join(lines)
    )


def nearest(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.8)
    return f" (saved as {close[0]}?)" if close else ""
