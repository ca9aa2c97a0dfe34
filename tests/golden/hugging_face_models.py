"""The stored models, imported."""

import functools
import json
import pathlib
import tempfile

import jax
import safetensors.numpy
from flax import nnx
from jax.sharding import Mesh

from t5x_like import configs
from t5x_like.configurables import CONFIGURABLES
from t5x_like.models.hugging_face import convert
from t5x_like.models.hugging_face.table import family_named
from t5x_like.models.hugging_face.tensors import Tensors, read_config
from t5x_like.models.parameters import split
from t5x_like.partitioning import axis_rules
from t5x_like.partitioning.mesh import make_mesh
from tests.golden.hugging_face_weights import weights

FOLDER = pathlib.Path("tests/golden/hugging_face")
GOLDENS = sorted(path.stem for path in FOLDER.glob("*.json"))


@functools.cache
def golden(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text())


@functools.cache
def folder_of(name: str) -> pathlib.Path:
    """As transformers saves it; deleted when the process ends."""
    kept = _folders()
    folder = pathlib.Path(kept.name) / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(golden(name)["config"]))
    safetensors.numpy.save_file(weights(golden(name)), str(folder / "model.safetensors"))
    return folder


@functools.cache
def _folders() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="hugging_face")


def model_of(folder: pathlib.Path, name: str, layer_loop: str = "", **more):
    """Makes the model of a folder's config.json; `more` is bound in its encoder or decoder."""
    path = folder / f"model{layer_loop}{len(more)}.gin"
    text = convert.gin_text(family_named(name), read_config(folder), layer_loop)
    root = next(line.split(".d_model")[0] for line in text.splitlines() if ".d_model = " in line)
    path.write_text(text + "".join(f"{root}.{key} = {value!r}\n" for key, value in more.items()))

    def train(*, model):
        return model

    table = CONFIGURABLES | {"train": train}
    return configs.resolve(table, [str(path)], root="train", search_paths=["configs"]).call()


@functools.cache
def module_of(name: str, layer_loop: str = "") -> nnx.Module:
    """Of shapes."""
    make = model_of(folder_of(name), name, layer_loop)
    return nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=0)))


def with_settings(name: str, **settings) -> nnx.GraphDef:
    """The same model with other settings: `shard`, or the dropout of its encoder or decoder."""
    rate = settings.pop("dropout_rate", None)
    make = model_of(folder_of(name), name, **({"dropout_rate": rate} if rate else {}))
    return split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=0), **settings))).graphdef


@functools.cache
def imported(name: str, layer_loop: str = "", mesh: Mesh | None = None, rules: axis_rules.AxisRules | None = None):
    """(graphdef, params, the model's module) of the stored model."""
    module = module_of(name, layer_loop)
    graphdef, shapes, axes = split(module)
    mesh, rules = mesh or make_mesh(data=1, devices=jax.devices()[:1]), rules or axis_rules.AxisRules()
    places = axis_rules.shardings(mesh, rules, shapes, axes)
    target = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=places[n]) for n, s in shapes.items()}
    return graphdef, convert.import_params(family_named(name), module, target, Tensors(folder_of(name))), module
