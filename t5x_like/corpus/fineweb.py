"""FineWeb's own rules (arXiv:2406.17557, section 3.5): of lines, how they end, how short they are, what is repeated."""

import dataclasses

import pyarrow as pa

from t5x_like.corpus.documents import column, drop
from t5x_like.corpus.gopher import repeated

# Unicode's property Sentence_Terminal in its first plane, by ranges of code points: neither quotes nor ellipses.
_RANGES = """
    0021 002e 003f 0589 061d-061f 06d4 0700-0702 07f9 0837 0839 083d-083e 0964-0965 104a-104b 1362
    1367-1368 166e 1735-1736 17d4-17d6 17d9-17da 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f
    1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 a4ff a60e-a60f a6f3
    a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f
    ff61
"""
TERMINAL = tuple(chr(code) for part in _RANGES.split() for code in range(int(part[:4], 16), int(part[-4:], 16) + 1))


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
        if sum(line.endswith(TERMINAL) for line in lines) / len(lines) < self.min_ended_lines:
            return "too few lines end a sentence"
        if sum(len(line) <= self.short_line for line in lines) / len(lines) > self.max_short_lines:
            return "too many short lines"
        _, characters = repeated(lines)
        if characters / max(len(text.replace("\n", "")), 1) > self.max_characters_of_repeated_lines:
            return "characters of repeated lines"
        if text.count("\n") / len(text.split()) > self.max_breaks_per_word:
            return "too many line breaks"
        return None
