"""Writes tests/golden/collators.json: `python -m tests.golden.make.collators`. Needs transformers, torch and trl.

What transformers' collators hide in many texts of numbered words, counted, and how trl packs texts of given lengths.
"""

import json
import pathlib

import datasets
import numpy as np
import tokenizers
import torch
import transformers
import trl
from trl.data_utils import pack_dataset

GOLDEN = pathlib.Path("tests/golden/collators.json")
WORDS, ROWS, LENGTH, PIECES_PER_WORD = 600, 4000, 64, 2
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Words w0 w1 ..., each followed by a piece ##0 ##1 ... that goes on with it."""
    vocabulary = {piece: number for number, piece in enumerate(SPECIAL)}
    for number in range(WORDS):
        vocabulary[f"w{number}"] = len(vocabulary)
        vocabulary[f"##{number}"] = len(vocabulary)
    model = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    roles = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=model, **roles)


def hidden(**settings) -> dict[str, float | int]:
    """Counts over all rows: tokens, those predicted, and of these masked, replaced by another, and kept."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    read, first = tokenizer(), len(SPECIAL)
    collator = transformers.DataCollatorForLanguageModeling(read, mlm_probability=0.15, **settings)
    words = rng.integers(0, WORDS, (ROWS, LENGTH // PIECES_PER_WORD - 1))
    pieces = np.stack([first + 2 * words, first + 2 * words + 1], axis=-1).reshape(ROWS, -1)
    ends = np.ones((ROWS, 1), np.int64)
    rows = np.concatenate([2 * ends, pieces, 3 * ends], axis=1)
    examples = [
        {
            "input_ids": row.tolist(),
            "special_tokens_mask": [1, *[0] * (len(row) - 2), 1],
            "offset_mapping": [[0, 0], *_offsets(len(row) - 2), [0, 0]],
        }
        for row in rows
    ]
    if not settings.get("whole_word_mask"):
        for example in examples:
            del example["offset_mapping"]
    made = collator(examples)
    inputs, labels = made["input_ids"].numpy(), made["labels"].numpy()
    chosen = labels != -100
    assert (labels[chosen] == rows[chosen]).all() and (inputs[~chosen] == rows[~chosen]).all()
    whole = chosen[:, 1:-1].reshape(ROWS, -1, PIECES_PER_WORD)
    return {
        "tokens": int(rows[:, 1:-1].size),
        "predicted": int(chosen.sum()),
        "special_predicted": int(chosen[:, [0, -1]].sum()),
        "masked": int((inputs[chosen] == 4).sum()),
        "kept": int((inputs[chosen] == rows[chosen]).sum()),
        "words_cut": int((whole.any(axis=-1) & ~whole.all(axis=-1)).sum()),
    }


def _offsets(count: int) -> list[list[int]]:
    """Words of two pieces, a space between words."""
    places = []
    for word in range(count // PIECES_PER_WORD):
        begin = word * 5
        places += [[begin, begin + 2], [begin + 2, begin + 4]]
    return places


def packed(capacity: int, lengths: list[int]) -> dict:
    """How full trl's rows are: the sum of the lengths in each, sorted."""
    dataset = datasets.Dataset.from_dict({"input_ids": [[number] * length for number, length in enumerate(lengths)]})
    rows = pack_dataset(dataset, seq_length=capacity, strategy="bfd")
    return {"capacity": capacity, "lengths": lengths, "fills": sorted(len(row) for row in rows["input_ids"])}


def main() -> None:
    rng = np.random.default_rng(0)
    lengths = [
        (16, rng.integers(1, 17, 60)),
        (64, np.minimum(rng.geometric(0.06, 150), 64)),
        (128, np.minimum(rng.lognormal(3.2, 1.0, 200).astype(int) + 1, 128)),
    ]
    golden = {
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}, trl {trl.__version__}",
        "masked": {"tokens": hidden(), "whole words": hidden(whole_word_mask=True)},
        "packed": [packed(capacity, sizes.tolist()) for capacity, sizes in lengths],
    }
    GOLDEN.write_text(json.dumps(golden) + "\n")
    print(golden["masked"], [len(row["fills"]) for row in golden["packed"]])


if __name__ == "__main__":
    main()
