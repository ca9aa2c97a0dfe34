"""A finished or running training run, opened for reading: its model with the parameters of one step. Writes nothing."""

import pathlib
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from t5x_like.data.pipeline import Pipeline
from t5x_like.losses import CrossEntropy
from t5x_like.models.parameters import merge
from t5x_like.partitioning.axis_rules import AxisRules
from t5x_like.partitioning.mesh import make_mesh
from t5x_like.train import checkpoints, run_folder
from t5x_like.train.state import plan_params
from t5x_like.train.step import Loss


class Run(NamedTuple):
    """What a run's configuration says, as far as reading it goes. `arguments` are those of `train`."""

    folder: pathlib.Path
    arguments: dict[str, Any]

    @property
    def data(self) -> Pipeline:
        return self.arguments["data"]

    @property
    def loss(self) -> Loss:
        return self.arguments.get("loss", CrossEntropy())

    @property
    def rules(self) -> AxisRules:
        return self.arguments.get("axis_rules", AxisRules())

    def steps(self) -> list[int]:
        """The sound checkpoints, oldest first."""
        folder = self.folder / "checkpoints"
        sound = [row.step for row in run_folder.inspect_steps(folder) if not row.problems]
        if not sound:
            raise FileNotFoundError(f"{folder} holds no sound checkpoint: train first, or see `t5x_like verify`")
        return sound

    def choose(self, which: str) -> list[int]:
        """Steps by word or number: "latest", "all", "1000"."""
        sound = self.steps()
        if which == "all":
            return sound
        if which == "latest":
            return sound[-1:]
        if not which.isdecimal() or int(which) not in sound:
            raise ValueError(f"checkpoint {which!r}: choose latest, all, or one of {sound}")
        return [int(which)]


class Loaded(NamedTuple):
    graphdef: nnx.GraphDef
    params: dict[str, jax.Array]
    mesh: Mesh

    def model(self) -> nnx.Module:
        """For use inside one jit."""
        return merge(self.graphdef, self.params)


def load(run: Run, step: int, mesh: Mesh) -> Loaded:
    """The model of `step` with its parameters placed on `mesh`, which may differ from the one it was trained on."""
    graphdef, abstract = plan_params(run.arguments["model"], mesh, run.rules)
    return Loaded(graphdef, checkpoints.restore_params(run.folder / "checkpoints", step, abstract), mesh)


def on_one_device(run: Run, loaded: Loaded) -> Loaded:
    """What was loaded, copied to a device of each process. All processes make this call."""
    whole = jax.jit(lambda params: params, out_shardings=NamedSharding(loaded.mesh, PartitionSpec()))(loaded.params)
    graphdef, places = plan_params(run.arguments["model"], one_device(), run.rules)
    params = {name: jax.device_put(whole[name].addressable_data(0), places[name].sharding) for name in places}
    return Loaded(graphdef, params, one_device())


def one_device() -> Mesh:
    return make_mesh(data=1, devices=jax.local_devices()[:1])
