"""Writes tests/golden/corpus_filters.json: what datatrove's filters say of the documents that are made here.

python -m tests.golden.make.corpus_filters, where datatrove (0.10.1) is installed with its extra `processing`. Its words
and sentences come from spaCy; here they are split as ours are, so that the rules alone are compared.
"""

import hashlib
import json
import pathlib
import random
from importlib import metadata

from t5x_like.corpus.c4 import SENTENCE_END
from tests.golden.web_pages import C4_LINES, pages

GOLDEN = pathlib.Path("tests/golden/corpus_filters.json")
COMMON = "the of and to in a is that for it as was with be by on not he his but at are this have from or had an"


def documents() -> list[str]:
    """Near both sides of every rule: words, lines and paragraphs that are repeated, marked, short or long by chance."""
    rng = random.Random(0)
    made = ["", "\n\n", "one two three"]
    for number in range(240):
        others = rng.choice([5, 60, 400])
        pool = COMMON.split() + ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 12))) for _ in range(others)]
        pool += rng.choice([[], ["#"], ["..."], ["12", "345", "6"], ["x" * 30], ["a", "b"]]) * rng.choice([1, 8, 60])
        lines = []
        for _ in range(rng.randint(1, 25)):
            line = " ".join(rng.choices(pool, k=rng.choice([2, 6, 12, 30])))
            mark = rng.choice(["", "- ", "• "]) if number % 5 == 0 else ""
            lines.append(mark + line + rng.choice([".", ".", "", "...", "!", ","]))
        if number % 3 == 0:
            lines += rng.choices(lines, k=rng.randint(1, len(lines)))
            rng.shuffle(lines)
        made.append(rng.choice(["\n", "\n", "\n\n"]).join(lines) + rng.choice(["", "\n"]))
    return made


def digest_of(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def main() -> None:
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4ParagraphFilter,
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
        c4_filters,
        fineweb_quality_filter,
        gopher_quality_filter,
        gopher_repetition_filter,
    )

    for module in (fineweb_quality_filter, gopher_quality_filter, gopher_repetition_filter):
        module.split_into_words = lambda text, language: text.split()
    filters = {"GopherQuality": GopherQualityFilter(), "GopherRepetition": GopherRepetitionFilter()}
    filters["FineWeb"] = FineWebQualityFilter()

    def reason(one, text: str) -> str | None:
        said = one.filter(Document(text=text, id="0"))
        return said[1] if isinstance(said, tuple) else None

    def page(one, text: str) -> str:
        """The reason, or the beginning of the hash of what is left."""
        document = Document(text=text, id="0")
        said = one.filter(document)
        return said[1] if isinstance(said, tuple) else hashlib.sha256(document.text.encode()).hexdigest()[:16]

    c4_filters.split_into_sentences = lambda text, language: SENTENCE_END.findall(text) or [text]
    texts = documents()
    made_with = f"datatrove {metadata.version('datatrove')}, words split at whitespace"
    told = {"made_with": made_with, "sha256": digest_of(texts)}
    told |= {name: [reason(one, text) for text in texts] for name, one in filters.items()}
    told["C4Paper"] = [page(C4QualityFilter(), text) for text in pages(C4_LINES)]
    told["MC4Lines"] = [reason(C4ParagraphFilter(), text) for text in pages(C4_LINES)]
    GOLDEN.write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
