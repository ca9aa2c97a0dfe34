"""Personal data found as spans, and replaced: the same value by the same placeholder within a document.

  e-mail   a@b.org with a dot in its domain
  ip       IPv4 and IPv6 addresses that are global (not 127.0.0.1, 10.0.0.1), which version numbers rarely are
  card     13 to 19 digits whose Luhn sum is right
  phone    international form (+49 ...), or three groups as in the United States
  id       Chinese resident ids (GB 11643, with its check digit), US social security numbers in their valid ranges
  key      private-key blocks, and tokens with the prefixes that GitHub, AWS, Slack and Google give theirs

First spans, then replacement: `find` is what a report counts, and overlaps go to the kind that is named first.
"""

import collections
import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from t5x_like.corpus.documents import column, drop, with_column


class Span(NamedTuple):
    start: int
    end: int
    kind: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PersonalData:
    """kinds     what is looked for
    most      a document with more spans than this is dropped as "personal data": a list of people, no text
    """

    kinds: Sequence[str] = ("key", "email", "id", "card", "ip", "phone")
    most: int = 100

    def __post_init__(self):
        if unknown := sorted(set(self.kinds) - set(FINDERS)):
            raise ValueError(f"kinds {unknown}: choose among {', '.join(FINDERS)}")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts, reasons = [], []
        for text in column(batch, "text"):
            spans = find(text, self.kinds)
            reasons.append("personal data" if len(spans) > self.most else None)
            texts.append(replace(text, spans))
        return drop(with_column(batch, "text", texts), reasons)


def find(text: str, kinds: Sequence[str]) -> list[Span]:
    """Spans in their order, without overlaps."""
    found, taken = [], bytearray(len(text))
    for kind in kinds:
        for start, end in FINDERS[kind](text):
            if not any(taken[start:end]):
                taken[start:end] = b"\1" * (end - start)
                found.append(Span(start, end, kind))
    return sorted(found)


def replace(text: str, spans: Sequence[Span]) -> str:
    """Each value becomes <email-1>, <email-2>, ...: numbered by kind, in the order of their first places."""
    numbers: dict[str, dict[str, int]] = collections.defaultdict(dict)
    parts, end = [], 0
    for span in spans:
        value = re.sub(r"[\s().-]", "", text[span.start : span.end]).lower()
        number = numbers[span.kind].setdefault(value, len(numbers[span.kind]) + 1)
        parts += [text[end : span.start], f"<{span.kind}-{number}>"]
        end = span.end
    return "".join([*parts, text[end:]])


_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.[A-Za-z]{2,}")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")
_DIGIT_GROUPS = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
_PHONE = re.compile(
    r"(?<![\w+.])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}(?!\w)"
    r"|(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w-])"
)
_CHINESE_ID = re.compile(r"(?<!\w)[1-8]\d{5}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?!\w)")
_SOCIAL_SECURITY = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_KEY = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]{20,8000}?-----END [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:gh[pousr]_[A-Za-z0-9]{36,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{20,}|AIza[\w-]{35})"
)


def luhn(digits: str) -> bool:
    """The check sum of payment cards (ISO/IEC 7812-1)."""
    numbers = [int(digit) for digit in reversed(digits)]
    doubled = [2 * n - 9 * (n > 4) for n in numbers[1::2]]
    return (sum(numbers[::2]) + sum(doubled)) % 10 == 0


def chinese_check(number: str) -> bool:
    """The check digit of GB 11643-1999 (ISO 7064, MOD 11-2)."""
    weights = [2 ** (17 - i) % 11 for i in range(17)]
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], weights, strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def _emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        yield from (match.span() for match in _EMAIL.finditer(text))


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match.group())
            except ValueError:
                continue
            if address.is_global:
                yield match.span()


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _DIGIT_GROUPS.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if len(set(digits)) > 1 and luhn(digits):
            yield match.span()


def _ids(text: str) -> Iterator[tuple[int, int]]:
    yield from (match.span() for match in _CHINESE_ID.finditer(text) if chinese_check(match.group()))
    yield from (match.span() for match in _SOCIAL_SECURITY.finditer(text))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        if 7 <= len(re.sub(r"\D", "", match.group())) <= 15:
            yield match.span()


def _keys(text: str) -> Iterator[tuple[int, int]]:
    yield from (match.span() for match in _KEY.finditer(text))


FINDERS: dict[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "key": _keys,
    "email": _emails,
    "id": _ids,
    "card": _cards,
    "ip": _addresses,
    "phone": _phones,
}
