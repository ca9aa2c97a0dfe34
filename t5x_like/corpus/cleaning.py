"""Text made right before anything judges it: encoding repaired, one Unicode form, whitespace, language, addresses."""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Sequence

import ftfy
import pyarrow as pa

from t5x_like.corpus.documents import column, drop, map_texts, with_column

_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False)
# A first byte of UTF-8 and a later one, as Latin-1 or Windows-1252 show them; the names that HTML has for characters.
_LATER_BYTES = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0)) + "\u0080-\u00bf"
_MARKS_OF_DAMAGE = re.compile(f"[\u00c2-\u00f4][{_LATER_BYTES}]|\ufffd|&[a-zA-Z#]")
_SPACES = re.compile(r"[^\S\n]+")
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\ufeff]")


@dataclasses.dataclass(frozen=True)
class RepairText:
    """Text that was decoded with the wrong encoding is repaired (ftfy), control characters go, and the form is NFC.

    Quotes, ligatures and full-width letters stay what they were written as.
    """

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return map_texts(batch, repair)


def repair(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _MARKS_OF_DAMAGE.search(text):  # ftfy takes 2,000 times as long as this look
        text = ftfy.fix_text(text, _REPAIR)
    return unicodedata.normalize("NFC", _NOT_TEXT.sub("", text))


@dataclasses.dataclass(frozen=True)
class Whitespace:
    """One space for several, none at the ends of lines, at most `blank_lines` empty lines in a row. Not for code."""

    blank_lines: int = 1

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return map_texts(batch, self.clean)

    def clean(self, text: str) -> str:
        lines = [line.strip() for line in _SPACES.sub(" ", text).split("\n")]
        most = "\n" * (self.blank_lines + 1)
        return re.sub(f"{most}\n+", most, "\n".join(lines)).strip()


@dataclasses.dataclass(frozen=True)
class NormalizeUrl:
    """As C4 does before it compares addresses: no scheme, no www., nothing from `?utm_|ref|feed` on, no last slash."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return with_column(batch, "url", [normalize_url(url) for url in column(batch, "url")])


def normalize_url(url: str) -> str:
    url = re.sub(r"^https?://(www\.)?", "", url)
    return re.sub(r"\?(utm_|ref|feed).*", "", url).rstrip("/")


@dataclasses.dataclass(frozen=True)
class Language:
    """Tells the language of documents whose source does not (py3langid, 140 languages), and keeps those asked for.

    keep          ISO 639-1 codes; empty: all
    at_least      the probability that the choice needs; below it a document is dropped as "language unsure"
    among         languages to choose among; empty: all that the model knows
    """

    keep: Sequence[str] = ()
    at_least: float = 0.65
    among: Sequence[str] = ()

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        told = column(batch, "language")
        found = [
            (known, 1.0) if known else classify(text, tuple(self.among))
            for known, text in zip(told, column(batch, "text"), strict=True)
        ]
        batch = with_column(batch, "language", [language for language, _ in found])
        return drop(batch, [self.reason(language, sure) for language, sure in found])

    def reason(self, language: str, sure: float) -> str | None:
        if sure < self.at_least:
            return "language unsure"
        return f"language {language}" if self.keep and language not in self.keep else None


@functools.lru_cache
def _identifier(among: tuple[str, ...]):
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if among:
        identifier.set_languages(list(among))
    return identifier


def classify(text: str, among: tuple[str, ...] = ()) -> tuple[str, float]:
    """(ISO 639-1 code, probability), from the first 2,000 characters without their line breaks."""
    language, probability = _identifier(among).classify(text[:2000].replace("\n", " "))
    return language, float(probability)
