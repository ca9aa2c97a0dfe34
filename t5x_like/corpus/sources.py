"""Where documents come from: a reader of files, and what is known of all that it reads."""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from t5x_like.corpus.documents import TEXT_COLUMNS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A reader of `tasks.readers` or of this package, under a name.

    domain, language, licence   of its documents that do not tell their own
    rank                        its documents' quality until a step scores them: of duplicates the highest stays
    """

    reader: Any
    name: str
    domain: str = ""
    language: str = ""
    licence: str = ""
    rank: float = 0.0

    def __post_init__(self):
        if not self.name or "/" in self.name:
            raise ValueError(f"source name {self.name!r}: give a word without '/'")

    def records(self, path: pathlib.Path, counts: Counter) -> Iterator[dict | str]:
        """The documents of one file as columns of SCHEMA, or the reason why one could not be read."""
        known = {"source": self.name, "domain": self.domain, "language": self.language, "licence": self.licence}
        for item in self.reader.documents(path, counts):
            if isinstance(item, str):
                yield item
                continue
            told = {name: value for name, value in item.items() if name in TEXT_COLUMNS and value}
            yield {**known, "path": path.name, "quality": self.rank, **told} if "text" in told else "empty"
