"""Who is spoken of in a corpus, and whom its filters take away: labels of documents, counted after every step.

Filters discriminate too: rules of quality and word lists drop texts of and about some people more often (Dodge et al.,
arXiv:2104.08758, section 5.3). This step drops nothing; the report shows how much of each group's documents is left
beside how much is left of all, and which occupations stand near women and near men, before and after.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
from collections.abc import Mapping

import pyarrow as pa

from t5x_like.corpus.documents import column, with_column
from t5x_like.corpus.groups import GROUPS, OCCUPATIONS

NEAR = " near "  # in a label: "nurse near women"
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*['’]?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupMentions:
    """Labels every document with the groups that it mentions: "gender: women", "dialect: Scots", "nurse near women".

    lists     '' for the English ones of `corpus/groups.py`, or a JSON file {kind: {group: [words or phrases]}}
    language  only documents in this one are looked at; empty: all
    near      an occupation within so many words of a word for women or men is near them
    """

    lists: str = ""
    language: str = "en"
    near: int = 10

    def __post_init__(self):
        if self.near < 1:
            raise ValueError(f"near {self.near} must be at least 1 word")
        if self.lists:
            read_lists(self.lists)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = zip(column(batch, "text"), column(batch, "language"), column(batch, "labels"), strict=True)
        found = [
            sorted({*(before or ()), *(self.labels(text) if self.language in ("", language) else ())})
            for text, language, before in rows
        ]
        return with_column(batch, "labels", found)

    def labels(self, text: str) -> set[str]:
        """Of one text."""
        lists = read_lists(self.lists) if self.lists else GROUPS
        words, phrases = index_of(tuple((k, g, w) for k, own in lists.items() for g, ws in own.items() for w in ws))
        tokens = [token.replace("’", "'") for token in _WORD.findall(text.lower())]
        found = {label for token in set(tokens) for label in words.get(token, ())}
        spaced = f" {' '.join(tokens)} " if phrases else ""
        found |= {label for phrase, label in phrases if f" {phrase} " in spaced}
        return found | self.occupations(tokens, words)

    def occupations(self, tokens: list[str], words: Mapping[str, frozenset[str]]) -> set[str]:
        found = set()
        for place, token in enumerate(tokens):
            name = token if token in _OCCUPATIONS else token.removesuffix("s")
            if name not in _OCCUPATIONS:
                continue
            beside = tokens[max(place - self.near, 0) : place + self.near + 1]
            labels = {label for other in beside for label in words.get(other, ())}
            found |= {f"{name}{NEAR}{group}" for group in ("women", "men") if f"gender: {group}" in labels}
        return found


_OCCUPATIONS = frozenset(OCCUPATIONS)


@functools.lru_cache(maxsize=4)
def index_of(entries: tuple[tuple[str, str, str], ...]) -> tuple[dict[str, frozenset[str]], list[tuple[str, str]]]:
    """(labels of each single word, (phrase, label) of those of several)."""
    words: dict[str, set[str]] = {}
    phrases = []
    for kind, group, word in entries:
        word = word.lower()
        if _WORD.fullmatch(word):
            words.setdefault(word, set()).add(f"{kind}: {group}")
        else:
            phrases.append((" ".join(_WORD.findall(word)), f"{kind}: {group}"))
    return {word: frozenset(labels) for word, labels in words.items()}, phrases


@functools.lru_cache(maxsize=4)
def read_lists(path: str) -> dict[str, dict[str, list[str]]]:
    """A file of lists; ValueError where it is none."""
    try:
        told = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        is_one = all(isinstance(w, str) for own in told.values() for words in own.values() for w in words)
    except (AttributeError, TypeError, ValueError):
        is_one = False
    if not is_one:
        raise ValueError(f"{path} is no file of lists: write JSON, {{kind: {{group: [words]}}}}")
    return told


def shares_left(
    before: Mapping[str, int], after: Mapping[str, int], read: int, left: int
) -> list[tuple[str, int, int, float]]:
    """(group, documents before, after, share that is left over the share of all), the worst first.

    Below 0.8 is what employment law calls adverse impact (the four-fifths rule); with few documents it is chance.
    """
    whole = left / read if read else 0.0
    found = [
        (label, number, after.get(label, 0), after.get(label, 0) / number / whole if whole else math.nan)
        for label, number in before.items()
        if NEAR not in label
    ]
    return sorted(found, key=lambda row: (row[3], row[0]))


def associations(counts: Mapping[str, int]) -> dict[str, float]:
    """{occupation: log of how much more often it stands near women than near men, per document with either}.

    0: as often; half a document is added to each count, so that none is infinite.
    """
    totals = {group: counts.get(f"gender: {group}", 0) + 1 for group in ("women", "men")}
    names = sorted({label.split(NEAR)[0] for label in counts if NEAR in label})

    def rate(name: str, group: str) -> float:
        return (counts.get(f"{name}{NEAR}{group}", 0) + 0.5) / totals[group]

    return {name: math.log(rate(name, "women") / rate(name, "men")) for name in names}
