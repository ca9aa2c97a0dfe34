"""What a vocabulary makes of a corpus, group by group: how many tokens a word, a character and a byte take."""

import dataclasses
from collections.abc import Iterable

from t5x_like.vocabularies.load import Vocabulary


@dataclasses.dataclass
class Fertility:
    """Sums over the texts of one group.

    words    what spaces separate (a language without spaces has few)
    exact    texts that decode to themselves
    """

    texts: int = 0
    characters: int = 0
    bytes: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    exact: int = 0

    def add(self, text: str, vocabulary: Vocabulary) -> None:
        ids = vocabulary.encode(text)
        self.texts += 1
        self.characters += len(text)
        self.bytes += len(text.encode("utf-8", "replace"))
        self.words += len(text.split())
        self.tokens += len(ids)
        self.unknown += ids.count(vocabulary.special.unk)
        self.exact += vocabulary.decode(ids) == text

    def row(self) -> list[str]:
        """Texts, tokens, tokens a word, tokens a character, bytes a token, unknown tokens, exact texts."""
        return [
            f"{self.texts:,}",
            f"{self.tokens:,}",
            f"{self.tokens / max(self.words, 1):.2f}",
            f"{self.tokens / max(self.characters, 1):.3f}",
            f"{self.bytes / max(self.tokens, 1):.2f}",
            f"{self.unknown / max(self.tokens, 1):.3%}",
            f"{self.exact / max(self.texts, 1):.1%}",
        ]


COLUMNS = ("texts", "tokens", "tokens / word", "tokens / character", "bytes / token", "unknown", "exact")


def fertility(grouped: Iterable[tuple[str, str]], vocabulary: Vocabulary, max_texts: int) -> dict[str, Fertility]:
    """Of the first `max_texts` texts of each group, by group."""
    found: dict[str, Fertility] = {}
    for group, text in grouped:
        one = found.setdefault(group, Fertility())
        if one.texts < max_texts:
            one.add(text, vocabulary)
    if not found:
        raise ValueError("the corpus is empty: no document has any text; check the path and the file suffixes")
    return dict(sorted(found.items()))
