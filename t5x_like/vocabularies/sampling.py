"""Which texts a vocabulary is trained on: an even sample of a corpus, or one that gives small languages more."""

import heapq
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable


class Sample:
    """Whole documents of at most `max_characters` together, each as likely as any other: those with the lowest draws.

    A single document that is longer is cut to that.
    """

    def __init__(self, max_characters: int, seed: int):
        self._most, self._rng = max_characters, random.Random(seed)
        self._heap: list[tuple[float, int, str]] = []  # the document with the largest draw goes first
        self.held = self.seen = self.documents = self._added = 0

    def add(self, text: str) -> None:
        text, self._added = text[: self._most], self._added + 1
        self.seen, self.documents = self.seen + len(text), self.documents + bool(text)
        heapq.heappush(self._heap, (-self._rng.random(), self._added, text))
        self.held += len(text)
        while self.held > self._most and len(self._heap) > 1:
            self.held -= len(heapq.heappop(self._heap)[2])

    def texts(self) -> list[str]:
        """In the order in which they came."""
        return [text for _, _, text in sorted(self._heap, key=lambda item: item[1])]


def sample(texts: Iterable[str], *, max_characters: int, seed: int) -> list[str]:
    """An even sample of whole documents of at most `max_characters`, in their order; the same for the same seed."""
    kept = Sample(max_characters, seed)
    for order, text in enumerate(texts):
        kept.add(text)
        if order % 10_000 == 9_999:
            say(f"read {order + 1:,} documents, {kept.seen / 1e6:,.1f} million characters")
    if not kept.held:
        raise ValueError("the corpus is empty: no document has any text; check the path and the file suffixes")
    millions = f"{kept.seen / 1e6:,.1f} million characters, of which {kept.held / 1e6:,.1f} are used"
    say(f"read {kept.documents:,} documents, {millions}")
    return kept.texts()


def balanced(
    grouped: Callable[[], Iterable[tuple[str, str]]], *, max_characters: int, alpha: float, seed: int
) -> list[str]:
    """A sample in which a group of n characters has a share like n ** alpha, or all it has.

    alpha    0.3 for languages (XLM-R, arXiv:1911.02116, section 3.1); 1: as they are, 0: the same of each
    grouped  gives (group, text) pairs, and is asked twice: once to count
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha {alpha} must be between 0, the same of each group, and 1, as they are")
    sizes = Counter()
    for group, text in grouped():
        sizes[group] += len(text)
    budgets = shares_of(sizes, max_characters, alpha)
    kept = {group: Sample(budget, seed ^ zlib.crc32(group.encode())) for group, budget in budgets.items() if budget}
    for group, text in grouped():
        if group in kept:
            kept[group].add(text)
    if not kept:
        raise ValueError("the corpus is empty: no document has any text; check the path and the file suffixes")
    for group in sorted(kept):
        say(f"{group or '(none)'}: {sizes[group]:,} characters, of which {kept[group].held:,} are used")
    return [text for group in sorted(kept) for text in kept[group].texts()]


def shares_of(sizes: dict[str, int], total: int, alpha: float) -> dict[str, int]:
    """Characters of each group; what a small group does not have the others get."""
    left, budgets = {group: size for group, size in sizes.items() if size}, {}
    while left:
        weights = {group: sizes[group] ** alpha for group in left}
        unit = (total - sum(budgets.values())) / sum(weights.values())
        full = [group for group in left if sizes[group] <= weights[group] * unit]
        if not full:
            return budgets | {group: int(weights[group] * unit) for group in left}
        for group in full:
            budgets[group] = left.pop(group)
    return budgets


def say(message: str) -> None:
    print(f"tokenizer: {message}", file=sys.stderr, flush=True)
