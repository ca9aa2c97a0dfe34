"""Writes tests/golden/pair_losses.json: `python -m tests.golden.make.pair_losses`. Needs torch and transformers.

What BertForPreTraining and AlbertForPreTraining say of a batch with padding: the loss of masked tokens and of pairs of
sentences together, and the logits of the pairs. The models are the stored ones with a pooler and a classifier more,
weights drawn from their names.
"""

import json
import pathlib

import numpy as np
import torch
import transformers

from tests.golden.hugging_face_weights import weight
from tests.golden.make.hugging_face import MODELS, V

GOLDEN = pathlib.Path("tests/golden/pair_losses.json")
LABEL = {"bert": "next_sentence_label", "albert": "sentence_order_label"}
LENGTHS = (9, 6, 8)  # of rows of 9; what is behind is padding


def batch() -> dict[str, list]:
    """Tokens, segments, classes of pairs, and targets: -100 where nothing is predicted."""
    rng = np.random.default_rng(0)
    place = np.arange(9)
    inside = place[None] < np.array(LENGTHS)[:, None]
    predicted = inside & (rng.random((3, 9)) < 0.4)
    return {
        "tokens": np.where(inside, rng.integers(3, V, (3, 9)), 0).tolist(),
        "type_ids": (inside & (place >= 4)).astype(int).tolist(),
        "targets": np.where(predicted, rng.integers(3, V, (3, 9)), -100).tolist(),
        "pairs": [1, 0, 1],
        "lengths": list(LENGTHS),
    }


def made(family: str, given: dict[str, list]) -> dict:
    name, _, settings = MODELS[family]
    cls = getattr(transformers, name.replace("MaskedLM", "PreTraining"))
    model = cls(cls.config_class(**settings, attn_implementation="eager")).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.copy_(torch.tensor(weight(key, list(value.shape), scales_around=1.0)))
    tokens = torch.tensor(given["tokens"])
    labels = {"labels": torch.tensor(given["targets"]), LABEL[family]: torch.tensor(given["pairs"])}
    seen = torch.arange(9)[None] < torch.tensor(given["lengths"])[:, None]
    types = torch.tensor(given["type_ids"])
    told = model(input_ids=tokens, attention_mask=seen.long(), token_type_ids=types, **labels)
    logits = told.seq_relationship_logits if family == "bert" else told.sop_logits
    shapes = {key: list(value.shape) for key, value in model.named_parameters()}
    added = {key: shape for key, shape in shapes.items() if any(part in key for part in ("pooler", "class", "seq_"))}
    return {"loss": float(told.loss.detach()), "pair_logits": logits.detach().tolist(), "tensors": added}


def main() -> None:
    given = batch()
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    found = {family: made(family, given) for family in LABEL}
    GOLDEN.write_text(json.dumps({"made_by": versions, "inputs": given, **found}) + "\n")


if __name__ == "__main__":
    main()
