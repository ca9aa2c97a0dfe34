"""Tokenizer files that go with a model: found in a folder of transformers, or in the prepared data of a run."""

import json
import pathlib

NAMES = ("tokenizer.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
# What transformers calls a SentencePiece file, where it is not tokenizer.model.
SENTENCEPIECE_NAMES = {
    **dict.fromkeys(("t5", "mt5", "umt5", "albert"), "spiece.model"),
    "mbart": "sentencepiece.bpe.model",
}


def in_folder(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """By name, those that lie in a folder of `save_pretrained` or of `import`."""
    return {name: folder / name for name in NAMES if (folder / name).is_file()}


def of_data(directory: pathlib.Path, model_type: str) -> dict[str, pathlib.Path]:
    """By the name that transformers looks for, that of a folder of `prepare`; bytes have none."""
    for manifest in sorted(directory.glob("*/task.json")):
        spec = json.loads(manifest.read_text(encoding="utf-8"))["vocabulary"]
        if spec["kind"] != "byte":
            sentencepiece = SENTENCEPIECE_NAMES.get(model_type, "tokenizer.model")
            name = "tokenizer.json" if spec["kind"] == "huggingface" else sentencepiece
            return {name: manifest.parent / pathlib.PurePath(spec["file"]).name}
    return {}
