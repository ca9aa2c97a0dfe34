"""Writes tests/golden/kenlm_scores.json: `python -m tests.golden.make.kenlm_scores`, with the package kenlm.

A model of three words in a row with chances from a random generator, as an ARPA file, and what KenLM says of sentences
with words and n-grams that it has, that it has not, and with neither (the stored ones: kenlm 0.3.0).

kenlm_trie.b64 is the same model as KenLM's program writes it (`build_binary trie model.arpa model.bin`), in zlib and
base64.
"""

import base64
import importlib.metadata
import json
import pathlib
import random
import tempfile
import zlib

import kenlm

from t5x_like.corpus.kenlm_file import KenlmFile

GOLDEN = pathlib.Path("tests/golden/kenlm_scores.json")
BINARY = pathlib.Path("tests/golden/kenlm_trie.b64")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "дом", "家", "."]


def model(rng: random.Random) -> str:
    sentences = [["<s>", *rng.choices(WORDS, k=rng.randint(1, 7)), "</s>"] for _ in range(12)]
    sections = []
    for order in (1, 2, 3):
        found = {tuple(words[i : i + order]) for words in sentences for i in range(len(words) - order + 1)}
        rows = []
        for words in sorted(found | ({("<unk>",)} if order == 1 else set())):
            chance = -99.0 if words == ("<s>",) else -rng.uniform(0.1, 3.0)
            backoff = [f"{-rng.uniform(0.0, 1.0):.5f}"] if order < 3 and words[-1] != "</s>" else []
            rows.append("\t".join([f"{chance:.5f}", " ".join(words), *backoff]))
        sections.append(rows)
    counts = "\n".join(f"ngram {order}={len(rows)}" for order, rows in enumerate(sections, 1))
    body = "\n\n".join(f"\\{order}-grams:\n" + "\n".join(rows) for order, rows in enumerate(sections, 1))
    return f"\\data\\\n{counts}\n\n{body}\n\n\\end\\\n"


def check(found, told: dict[str, float]) -> None:
    """That KenlmFile gives of a binary file the perplexities of these log10 p."""
    for one, (sentence, value) in zip(found, told.items(), strict=True):
        expected = 10 ** (-value / (len(sentence.split()) + 1))
        if abs(one - expected) > 1e-6 * expected:
            raise SystemExit(f"KenlmFile says {one} of {sentence!r}, KenLM {expected}")


def main() -> None:
    rng = random.Random(0)
    arpa, words = model(rng), [*WORDS, "dog"]
    sentences = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        path, binary = pathlib.Path(folder, "model.arpa"), pathlib.Path(folder, "model.bin")
        path.write_text(arpa, encoding="utf-8")
        score = kenlm.Model(str(path)).score
        told = {sentence: score(sentence) for sentence in sentences}
        if BINARY.exists():  # of the same ARPA file
            binary.write_bytes(zlib.decompress(base64.b64decode(BINARY.read_text())))
            check(KenlmFile(path=str(binary)).scores(list(told)), told)
    made_by = f"kenlm {importlib.metadata.version('kenlm')}"
    GOLDEN.write_text(
        json.dumps({"made_by": made_by, "arpa": arpa, "log10": told}, indent=1, ensure_ascii=False) + "\n"
    )


if __name__ == "__main__":
    main()
