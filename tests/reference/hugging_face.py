"""Every family against transformers itself, in one process: `make parity`. Exit 1 if one of them differs.

A model that transformers makes is imported and computes the same; what is exported again transformers loads, with no
key missing or left over, and computes the same. `make test` compares with stored results instead (tests/golden).
"""

import json
import pathlib
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from flax import nnx
from rich.console import Console
from rich.table import Table

from t5x_like import configs
from t5x_like.configurables import CONFIGURABLES
from t5x_like.models.hugging_face import convert
from t5x_like.models.hugging_face.table import FAMILIES, family_named
from t5x_like.models.hugging_face.tensors import Tensors, read_config, write_files
from t5x_like.models.parameters import merge, split
from t5x_like.partitioning import axis_rules
from t5x_like.partitioning.mesh import make_mesh
from tests.golden.hugging_face_batches import batch_of, compared, loss_of
from tests.golden.make import hugging_face as reference
from tests.golden.make.hugging_face_kinds import KINDS, NEW, PROMPT

LOGITS, LOSS = 1e-4, 1e-5  # how far they may be apart, in float32


def imported(family: str, folder: pathlib.Path):
    """(the module, graphdef, parameters) of a folder."""
    text = folder / "model.gin"
    text.write_text(convert.gin_text(family_named(family), read_config(folder), ""))

    def train(*, model):
        return model

    table = CONFIGURABLES | {"train": train}
    make = configs.resolve(table, [str(text)], root="train", search_paths=["configs"]).call()
    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=0)))
    graphdef, shapes, axes = split(module)
    places = axis_rules.shardings(make_mesh(), axis_rules.AxisRules(), shapes, axes)
    target = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=places[n]) for n, s in shapes.items()}
    return module, graphdef, convert.import_params(family_named(family), module, target, Tensors(folder))


def compare(family: str, root: pathlib.Path) -> dict:
    """Differences of logits, loss and greedy tokens after import; of keys and logits after export."""
    given, exported = root / "given", root / "exported"
    given.mkdir()
    exported.mkdir()
    golden, theirs = reference.build(family, given)
    golden |= reference.results(theirs, golden)
    module, graphdef, params = imported(family, given)
    ours = jax.jit(lambda p, x: merge(graphdef, p)(x))
    logits = compared(golden, ours(params, batch_of(golden)))
    loss = loss_of(golden, logits)
    found = {
        "logits": float(np.abs(np.asarray(logits) - np.asarray(golden["logits"])).max()),
        "loss": abs(loss - golden["loss"]),
        "greedy": "-",
    }
    if "greedy" in golden:
        rows = [row[:PROMPT] for row in golden["inputs"]["tokens"]]
        for _ in range(NEW):
            whole = golden["inputs"] | {"tokens": rows, "targets": rows}
            likeliest = jnp.argmax(ours(params, batch_of(golden, whole))[:, -1], axis=-1).tolist()
            rows = [[*row, token] for row, token in zip(rows, likeliest, strict=True)]
        found["greedy"] = str([row[PROMPT:] for row in rows] == golden["greedy"])
    sizes, tensors = convert.export_tensors(family_named(family), module, params, np.float32)
    write_files(exported, tensors, sizes, max_bytes=20_000)  # several files
    config = convert.config_json(family_named(family), module, np.dtype("float32"))
    (exported / "config.json").write_text(json.dumps(config))
    cls = getattr(transformers, reference.MODELS[family][0])
    again, report = cls.from_pretrained(exported, output_loading_info=True, attn_implementation="eager")
    found["keys"] = sum(len(report[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs, _ = KINDS[golden["kind"]].call(again.eval(), golden["inputs"])
    found["exported"] = float(np.abs(theirs.numpy() - golden["logits"]).max())
    return found


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    table = Table("family", "max |logits|", "|loss|", "same greedy tokens", "keys left over", "exported, max |logits|")
    table.title = f"transformers {transformers.__version__}, torch {torch.__version__}, jax {jax.__version__}"
    failed = []
    for family in sys.argv[1:] or FAMILIES:
        with tempfile.TemporaryDirectory() as temporary:
            row = compare(family, pathlib.Path(temporary))
        numbers = [f"{row[name]:.1e}" for name in ("logits", "loss")]
        table.add_row(family, *numbers, row["greedy"], str(row["keys"]), f"{row['exported']:.1e}")
        fits = row["logits"] < LOGITS and row["loss"] < LOSS and row["exported"] < LOGITS
        if not fits or row["keys"] or row["greedy"] == "False":
            failed.append(family)
    Console(width=120).print(table)
    sys.exit(f"differ: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
