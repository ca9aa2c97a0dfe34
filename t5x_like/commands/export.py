"""`t5x_like export`: a checkpoint of a run, or of an import, to a Hugging Face folder."""

import json
import os
import pathlib
import shutil

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("export", "Writes config.json and safetensors that transformers loads.")
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="a run, or a folder that `import` wrote")
    parser.add_argument("--output_dir", required=True, metavar="DIR")
    parser.add_argument("--family", required=True, metavar="NAME", help="llama, gpt2, t5_1_1, ...")
    parser.add_argument("--step", type=int, metavar="N", help="default: the newest sound one")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--max_file_gb", type=float, default=4.0, metavar="GB", help="of one file of weights")
    shared.add_device_options(parser)
    options = shared.parse(parser, arguments)
    shared.start_devices(options)

    import jax.numpy as jnp
    from flax import nnx

    from t5x_like.models.hugging_face import convert, tensors, tokenizer_files
    from t5x_like.models.hugging_face.table import family_named
    from t5x_like.partitioning.axis_rules import AxisRules
    from t5x_like.partitioning.mesh import make_mesh
    from t5x_like.train import checkpoints
    from t5x_like.train.initial import FromCheckpoint
    from t5x_like.train.state import plan_params

    family, output = family_named(options.family), pathlib.Path(options.output_dir)
    if output.exists():
        raise FileExistsError(f"--output_dir={output} exists: name a new folder, or delete it")
    arguments = shared.resolve_open([str(config_of(pathlib.Path(options.model_dir)))])
    model = arguments["model"]
    folder = pathlib.Path(options.model_dir) / "checkpoints"
    _, target = plan_params(model, make_mesh(data=-1), AxisRules())
    module = nnx.eval_shape(lambda: model(rngs=nnx.Rngs(params=0)))
    step = FromCheckpoint(folder=str(folder), step=options.step).chosen_step()
    dtype = jnp.dtype(options.dtype)
    config = convert.config_json(family, module, dtype)
    params = checkpoints.restore_params(folder, step, target)
    sizes, stream = convert.export_tensors(family, module, params, dtype)
    tokenizer = tokenizer_files.in_folder(pathlib.Path(options.model_dir))
    if not tokenizer and arguments.get("data"):
        tokenizer = tokenizer_files.of_data(pathlib.Path(arguments["data"].directory), family.model_type)
    incomplete = output.with_name(f"{output.name}.{os.getpid()}.incomplete")
    incomplete.mkdir(parents=True)
    try:
        (incomplete / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        tensors.write_files(incomplete, stream, sizes, int(options.max_file_gb * 1e9))
        for name, file in tokenizer.items():
            shutil.copyfile(file, incomplete / name)
        incomplete.rename(output)
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)
    print(f"step {step}: {len(sizes)} tensors, {sum(sizes.values()) / 1e9:.3f} GB, in {output}")
    print(f"tokenizer: {', '.join(tokenizer) or 'none, its file is not where the run has it from; copy it yourself'}")


def config_of(folder: pathlib.Path) -> pathlib.Path:
    for name in ("config.gin", "model.gin"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has neither config.gin nor model.gin: give a run, or a folder of `import`")
