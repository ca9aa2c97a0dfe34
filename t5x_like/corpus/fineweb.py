"""FineWeb's own rules (arXiv:2406.17557, section 3.5): of lines, how they end, how short they are, what is repeated."""

import dataclasses

import pyarrow as pa

from t5x_like.corpus.documents import column, drop
from t5x_like.corpus.gopher import repeated

# Marks that end a sentence in the scripts of the project's languages.
TERMINAL = tuple(".?!\"'”’»。！？…؟۔।॥։።")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineWeb:
    min_ended_lines: float = 0.12
    max_short_lines: float = 0.67
    short_line: int = 30
    max_characters_of_repeated_lines: float = 0.01
    max_breaks_per_word: float = 0.3

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return drop(batch, [self.reason(text) for text in column(batch, "text")])

    def reason(self, text: str) -> str | None:
        lines = [line for line in text.split("\n") if line.strip()]
        if not lines:
            return "empty"
        if sum(line.rstrip().endswith(TERMINAL) for line in lines) / len(lines) < self.min_ended_lines:
            return "too few lines end a sentence"
        if sum(len(line) <= self.short_line for line in lines) / len(lines) > self.max_short_lines:
            return "too many short lines"
        _, characters = repeated(lines)
        if characters / max(len(text.replace("\n", "")), 1) > self.max_characters_of_repeated_lines:
            return "characters of repeated lines"
        if text.count("\n") / len(text.split()) > self.max_breaks_per_word:
            return "too many line breaks"
        return None
