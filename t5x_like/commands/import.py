"""`t5x_like import`: a Hugging Face folder to a checkpoint and a config of ours."""

import json
import os
import pathlib
import shutil

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("import", "Reads config.json and safetensors, writes model.gin and checkpoints/0.")
    parser.add_argument("folder", metavar="HUGGING_FACE_FOLDER", help="as transformers' save_pretrained writes it")
    parser.add_argument("--output_dir", required=True, metavar="DIR")
    parser.add_argument("--family", metavar="NAME", help="default: what config.json says")
    parser.add_argument(
        "--layer_loop", default="unrolled", choices=["unrolled", "scanned", "shared"], help="as the run will have it"
    )
    shared.add_device_options(parser)
    options = shared.parse(parser, arguments)
    shared.start_devices(options)

    from t5x_like.models.hugging_face import convert, tokenizer_files
    from t5x_like.models.hugging_face.table import family_named, family_of
    from t5x_like.models.hugging_face.tensors import Tensors, read_config

    source, output = pathlib.Path(options.folder), pathlib.Path(options.output_dir)
    if output.exists():
        raise FileExistsError(f"--output_dir={output} exists: name a new folder, or delete it")
    config = read_config(source)
    name = options.family or family_of(config)
    family = family_named(name)
    tensors = Tensors(source)
    incomplete = output.with_name(f"{output.name}.{os.getpid()}.incomplete")
    incomplete.mkdir(parents=True)
    try:
        text = convert.gin_text(family, config, layer_loop_of(name, options.layer_loop))
        (incomplete / "model.gin").write_text(
            f"# Imported from {source.name}, family {name}.\n{text}", encoding="utf-8"
        )
        count = write_checkpoint(family, incomplete, tensors)
        for file, path in tokenizer_files.in_folder(source).items():
            shutil.copyfile(path, incomplete / file)
        (incomplete / "source.json").write_text(json.dumps({"family": name, "config": config}, indent=1))
        incomplete.rename(output)
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)
    print(f"{count:,} parameters of {name} in {output}; train on with --gin_file={output}/model.gin")
    print(f"train.initial=@FromCheckpoint() FromCheckpoint.folder={output}/checkpoints")


def layer_loop_of(family: str, wanted: str) -> str:
    """ALBERT's layers are one, whatever is wanted."""
    return "" if family == "albert" else wanted


def write_checkpoint(family, folder: pathlib.Path, tensors) -> int:
    """The parameters, on all devices of this process, as step 0; returns how many numbers they are."""
    import contextlib

    from flax import nnx

    from t5x_like.models.hugging_face import convert
    from t5x_like.partitioning.axis_rules import AxisRules
    from t5x_like.partitioning.mesh import make_mesh
    from t5x_like.train import checkpoints
    from t5x_like.train.state import plan_params

    model = shared.resolve_model([str(folder / "model.gin")])
    mesh = make_mesh(data=-1)
    _, target = plan_params(model, mesh, AxisRules())
    module = nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=0)))
    params = convert.import_params(family, module, target, tensors)
    with contextlib.closing(checkpoints.Checkpoints(folder / "checkpoints", max_to_keep=1)) as saver:
        saver.save(0, {"params": params}, data={}, metadata={"imported_from": tensors.folder.name})
    return sum(leaf.size for leaf in target.values())
