"""tests/golden/fasttext: a classifier of 2 KB that fastText trained, and what fastText says of some texts.

In an environment with fasttext-community 0.11.9: python -m tests.golden.make.fasttext_file
"""

import json
import pathlib
import random

import fasttext

OUT = pathlib.Path("tests/golden/fasttext")
KINDS = {
    "prose": "the old farmer walked slowly to a small town near the river and sold his milk at the market",
    "advert": "buy cheap now click here free offer discount win prize limited sale order today best price",
}
TEXTS = [
    "the old farmer",
    "buy cheap now",
    "a river of offers",
    "nothing known here",
    "milk, milk\nand a prize",
    "农夫",
]


def main() -> None:
    rng, lines = random.Random(0), []
    for _ in range(300):
        lines += [f"__label__{kind} {' '.join(rng.choices(words.split(), k=9))}" for kind, words in KINDS.items()]
    OUT.mkdir(exist_ok=True)
    (OUT / "lines.txt").write_text("\n".join(lines) + "\n")
    numbers = {"dim": 4, "bucket": 50, "wordNgrams": 2, "epoch": 5, "lr": 0.2, "thread": 1, "verbose": 0}
    model = fasttext.train_supervised(str(OUT / "lines.txt"), **numbers)
    model.save_model(str(OUT / "prose.bin"))
    vectors = fasttext.train_unsupervised(str(OUT / "lines.txt"), dim=1, bucket=1, minn=0, maxn=0, thread=1, verbose=0)
    vectors.save_model(str(OUT / "vectors.bin"))
    (OUT / "lines.txt").unlink()
    told = []
    for text in TEXTS:
        labels, values = model.predict(text.replace("\n", " "), k=-1)
        told.append({"text": text, "probabilities": dict(zip(labels, map(float, values), strict=True))})
    (OUT / "said.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
