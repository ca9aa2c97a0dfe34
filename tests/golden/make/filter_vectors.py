"""Writes docs/filter_vectors.jsonl, for anybody's implementation: `python -m tests.golden.make.filter_vectors`.

A line is a document and what each preset says of it: null (it stays as it is), a reason (it goes), or {"text": ...},
what is left of it. Those that published code exists for were compared with it on many more documents: Gopher, FineWeb,
C4Paper and MC4Lines with datatrove 0.10.1, RefinedWebLines with DCLM's, Roots with BigScience's.
"""

import json
import pathlib
from collections.abc import Callable

from t5x_like.corpus.c4 import C4, C4Paper, MC4Lines
from t5x_like.corpus.fineweb import FineWeb
from t5x_like.corpus.gopher import GopherQuality, GopherRepetition
from t5x_like.corpus.refinedweb import RefinedWebLines
from t5x_like.corpus.roots import Roots, RootsEnglish
from tests.golden.make.corpus_filters import documents
from tests.golden.web_pages import C4_LINES, pages

VECTORS = pathlib.Path("docs/filter_vectors.jsonl")


def judged(reason: Callable[[str], str | None]) -> Callable[[str], str | None]:
    return reason


def cleaned(clean: Callable[[str], tuple[str, str | None]]) -> Callable[[str], str | dict | None]:
    def say(text: str) -> str | dict | None:
        left, reason = clean(text)
        return reason or (None if left == text else {"text": left})

    return say


def cut_and_judged(step: Roots) -> Callable[[str], str | dict | None]:
    def say(text: str) -> str | dict | None:
        left = step.cut(text)
        return step.reason(left) or (None if left == text else {"text": left})

    return say


PRESETS: dict[str, Callable[[str], str | dict | None]] = {
    "C4": cleaned(C4().clean),
    "C4Paper": cleaned(C4Paper().clean),
    "MC4Lines": judged(MC4Lines().reason),
    "GopherQuality": judged(GopherQuality().reason),
    "GopherRepetition": judged(GopherRepetition().reason),
    "FineWeb": judged(FineWeb().reason),
    "RefinedWebLines": cleaned(RefinedWebLines().clean),
    "Roots": cut_and_judged(Roots()),
    "RootsEnglish": cut_and_judged(RootsEnglish()),
}


def vectors() -> list[dict]:
    """Some of the documents that the rules were compared on."""
    texts = [*documents()[::10], *pages()[2:50:5], *pages(C4_LINES)[2:50:5]]
    return [{"document": text, **{name: say(text) for name, say in PRESETS.items()}} for text in texts]


def main() -> None:
    VECTORS.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in vectors()))


if __name__ == "__main__":
    main()
