"""The weights of the stored models: drawn from the names of the tensors, so that only results have to be stored."""

import zlib

import numpy as np


def weight(name: str, shape: list[int], *, scales_around: float) -> np.ndarray:
    """float32. Matrices are N(0, 0.2); vectors N(0, 0.1), and around `scales_around` where they are a norm's scale."""
    draw = np.asarray(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape), np.float32)
    if len(shape) > 1:
        return 0.2 * draw
    is_scale = name.endswith("weight")
    return np.asarray(0.1 * draw + np.float32(scales_around * is_scale))


def weights(golden: dict) -> dict[str, np.ndarray]:
    around, prefix = golden["scales_around"], golden.get("scales_around_one", "-")
    return {
        name: weight(name, shape, scales_around=1.0 if name.startswith(prefix) else around)
        for name, shape in golden["tensors"].items()
    }
