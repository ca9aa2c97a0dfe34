"""Speed and memory of the models that score a corpus, and whether they tell what they should: not a test.

python -m benchmarks.scoring --reference wikitext-2/train.txt --held-out wikitext-2/valid.txt --web c4_demo.jsonl
"""

import argparse
import pathlib
import random
import resource
import tempfile
import time

import numpy as np

from benchmarks.record import provenance, publish, table
from t5x_like.corpus import learning
from t5x_like.corpus.linear_model import TrainLinear
from t5x_like.corpus.perplexity import TrainNgrams
from t5x_like.tasks.readers import JsonLines, TextFiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="text of one language, a document a line")
    parser.add_argument("--held-out", required=True, help="text like it, that is not in it")
    parser.add_argument("--web", required=True, help="JSON lines of ordinary text")
    parser.add_argument("--output", help="a file to append the table to")
    options = parser.parse_args()
    reference, held_out = (TextFiles([path], per="line") for path in (options.reference, options.held_out))
    web = JsonLines([options.web])
    texts = [text for text in learning.texts_of(held_out) if len(text) > 200]
    pages = list(learning.texts_of(web))
    size, rows = pathlib.Path(options.reference).stat().st_size / 1e6, []
    models = {f"n-grams of {order}": TrainNgrams(reference=reference, order=order) for order in (3, 5)}
    models["linear"] = TrainLinear(good=reference, ordinary=web)
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            rows.append(row(name, size, model, pathlib.Path(folder, name), texts, pages))
    header = [
        "model",
        "trained on MB",
        "CPU s",
        "scored, MB / CPU s",
        "peak MB",
        "held out",
        "web",
        "shuffled",
        "above",
    ]
    publish(f"{table(header, rows)}\n\n{provenance(['numpy', 'scipy', 'sentencepiece'])}", options.output)


def row(name: str, size: float, model, folder: pathlib.Path, texts: list[str], pages: list[str]) -> list[str]:
    """Medians of what the model says of held-out texts, of web pages, and of the texts with their words shuffled."""
    started = time.process_time()
    made, card = learning.fit(model, folder)
    trained = time.process_time() - started
    print(name, card)
    made.scores(texts[:1])  # the files are read
    started = time.process_time()
    found = made.scores(texts)
    speed = sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - started)
    mixed = made.scores([" ".join(random.Random(0).sample(words := text.split(), len(words))) for text in texts])
    medians = [f"{np.nanmedian(values):.3g}" for values in (found, made.scores(pages), mixed)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = [name, f"{size:.1f}", f"{trained:.1f}", f"{speed:.1f}", f"{peak:.0f}"]
    return [*told, *medians, f"{np.mean(mixed > found):.1%}"]


if __name__ == "__main__":
    main()
