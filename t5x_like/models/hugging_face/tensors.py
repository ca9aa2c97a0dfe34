"""Folders of safetensors files: read tensor by tensor, written file by file. Pickled weights are never opened."""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping

import numpy as np
import safetensors
import safetensors.numpy

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Tensors:
    """The tensors of a Hugging Face folder by name, in one file or in several with an index."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._open: dict[str, safetensors.safe_open] = {}
        self.files = self._files()

    def _files(self) -> dict[str, str]:
        if (self.folder / INDEX).is_file():
            files = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(files.values()))
            # A file beside the index, and nowhere else.
            wrong = [
                name for name in names if pathlib.PurePath(name).name != name or not (self.folder / name).is_file()
            ]
            if wrong:
                raise FileNotFoundError(f"{self.folder / INDEX} names {', '.join(wrong)}, which is not in that folder")
            return files
        if (self.folder / SINGLE).is_file():
            return dict.fromkeys(self._handle_of(SINGLE).keys(), SINGLE)
        if any(self.folder.glob("*.bin")) or any(self.folder.glob("*.pt")):
            raise ValueError(
                f"{self.folder} has its weights in pickled files, which can run any code and are not opened: "
                "convert them with transformers, model.save_pretrained(folder)"
            )
        raise FileNotFoundError(f"{self.folder} holds neither {SINGLE} nor {INDEX}: give a folder of save_pretrained")

    def _handle_of(self, file: str):
        if file not in self._open:
            try:
                self._open[file] = safetensors.safe_open(str(self.folder / file), framework="np")
            except safetensors.SafetensorError as error:
                raise ValueError(f"{self.folder / file} is damaged: fetch it again ({error})") from None
        return self._open[file]

    def names(self) -> set[str]:
        return set(self.files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._handle_of(self.files[name]).get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """As float32, whatever it was saved as."""
        return self._handle_of(self.files[name]).get_tensor(name).astype(np.float32)


def plan_files(sizes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Names in their order, as many to a file as fit into `max_bytes`; a larger tensor has a file of its own."""
    files: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if files[-1] and used + size > max_bytes:
            files.append([])
            used = 0
        files[-1].append(name)
        used += size
    return files


def write_files(
    folder: pathlib.Path, tensors: Iterable[tuple[str, np.ndarray]], sizes: Mapping[str, int], max_bytes: int
) -> None:
    """Writes `tensors`, which come in the order of `sizes` (bytes of each); one file's worth is in memory at a time."""
    plan, stream = plan_files(sizes, max_bytes), iter(tensors)
    if len(plan) == 1:
        safetensors.numpy.save_file(dict(stream), str(folder / SINGLE), metadata={"format": "pt"})
        return
    weight_map = {}
    for number, names in enumerate(plan, start=1):
        file = f"model-{number:05d}-of-{len(plan):05d}.safetensors"
        part = dict(next(stream) for _ in names)
        if list(part) != names:
            raise AssertionError(f"tensors came as {list(part)[:3]}, planned were {names[:3]}")
        safetensors.numpy.save_file(part, str(folder / file), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def read_config(folder: pathlib.Path) -> dict:
    """config.json of a Hugging Face folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no config.json: give a folder of transformers' save_pretrained")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): fetch it again") from None


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
