"""Writes tests/golden/contrastive_losses.json: `python -m tests.golden.make.contrastive_losses`, with open_clip.

Losses of open_clip.loss on CPU in float64 (versions: "made_with" in the file), on unit vectors drawn by NumPy from
seed 0: ClipLoss, SigLipLoss, and CoCaLoss with caption weight 2 and contrastive weight 1.
"""

import importlib.metadata
import json
import pathlib

import numpy as np
import torch
from open_clip.loss import ClipLoss, CoCaLoss, SigLipLoss

GOLDEN = pathlib.Path("tests/golden/contrastive_losses.json")
B, W, L, V = 6, 5, 4, 7


def main() -> None:
    rng = np.random.default_rng(0)
    image, text = (rng.standard_normal((B, W)) for _ in range(2))
    image, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    logits, labels = rng.standard_normal((B, L, V)), rng.integers(1, V, (B, L))
    labels[:, -1] = 0  # padding
    x, y, scale, bias = torch.tensor(image), torch.tensor(text), torch.tensor(9.0), torch.tensor(-3.0)
    coca = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0, pad_id=0)
    contrast, caption = coca(x, y, torch.tensor(logits), torch.tensor(labels), scale)
    found = {
        "made_with": f"open_clip_torch {importlib.metadata.version('open_clip_torch')}, torch {torch.__version__}",
        "image": image.tolist(),
        "text": text.tolist(),
        "logits": logits.tolist(),
        "labels": labels.tolist(),
        "scale": 9.0,
        "bias": -3.0,
        "softmax": ClipLoss()(x, y, scale).item(),
        "sigmoid": SigLipLoss()(x, y, scale, bias).item(),
        "coca_contrast": contrast.item(),
        "coca_caption": caption.item(),
    }
    GOLDEN.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
