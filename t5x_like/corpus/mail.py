"""Mail: the threads of an mbox file, each one document, in the order in which it was written."""

import collections
import dataclasses
import email.header
import email.message
import email.policy
import email.utils
import mailbox
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from t5x_like.corpus.warc import html_text
from t5x_like.tasks.files import expand
from t5x_like.tasks.readers import MAX_DOCUMENT_BYTES

_IDS = re.compile(r"<[^<>\s]+>")
_QUOTED = re.compile(r"^\s*(>|\|\s)")
_SAYS_WHO = re.compile(
    r"^(on\b.{0,200}\bwrote|am\b.{0,200}\bschrieb.{0,60}|le\b.{0,200}\ba écrit)\s*:?\s*$", re.IGNORECASE
)
_REPLY = re.compile(r"^\s*((re|aw|fwd?|wg)\s*:\s*|\[[^\]]{1,40}\]\s*)+", re.IGNORECASE)
_BLANK_LINES = re.compile(r"\n{3,}")


class Place(NamedTuple):
    """Of a message in its file: when it was sent (seconds, and as written), its number, the subject of its thread."""

    seconds: float
    number: int
    date: str
    subject: str


@dataclasses.dataclass(frozen=True)
class Mailbox:
    """The threads of .mbox files: {"text", "date"}: the subject, then each message without quotes and signature.

    Messages belong together by In-Reply-To and References. Only headers are held in memory. A thread longer than
    `max_document_bytes` is dropped as too_long, one without text as empty.
    """

    paths: Sequence[str]
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def files(self) -> list[pathlib.Path]:
        return expand(self.paths)

    def documents(self, path: pathlib.Path, counts: collections.Counter) -> Iterator[dict | str]:
        with path.open("rb") as file:  # a missing or unreadable file is an error before mailbox makes one
            file.read(1)
        box = mailbox.mbox(path, factory=None, create=False)
        try:
            for thread in threads(box):
                yield self.document(box, thread)
        finally:
            box.close()

    def document(self, box: mailbox.mbox, thread: list[Place]) -> dict | str:
        parts, size = [thread[0].subject], 0
        for place in thread:
            data = box.get_bytes(place.number)
            size += len(data)
            if size > self.max_document_bytes:
                return "too_long"
            parts.append(own_words(body_of(email.message_from_bytes(data, policy=email.policy.default))))
        if not any(parts[1:]):
            return "empty"
        return {"text": "\n\n".join(part for part in parts if part), "date": thread[0].date}


def threads(box: mailbox.mbox) -> list[list[Place]]:
    """Messages that answer one another, oldest first; threads by their first message."""
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while root.setdefault(name, name) != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    places = []
    for number in box.keys():  # noqa: SIM118  a mailbox yields messages
        headers = email.message_from_bytes(box.get_bytes(number).split(b"\n\n", 1)[0], policy=email.policy.compat32)
        own = next(iter(_IDS.findall(str(headers.get("Message-ID", "")))), f"<{number}>")
        for header in ("In-Reply-To", "References"):
            for other in _IDS.findall(str(headers.get(header, ""))):
                root[find(own)] = find(other)
        places.append((own, place_of(headers, number)))
    grouped = collections.defaultdict(list)
    for own, place in places:
        grouped[find(own)].append(place)
    return sorted((sorted(group) for group in grouped.values()), key=lambda group: group[0].number)


def place_of(headers: email.message.Message, number: int) -> Place:
    """A message without a date that can be read stands where it is in the file."""
    try:
        sent = email.utils.parsedate_to_datetime(str(headers["Date"]))
        seconds, date = sent.timestamp(), sent.isoformat()
    except (TypeError, ValueError, OverflowError):
        seconds, date = 0.0, ""
    subject = str(email.header.make_header(email.header.decode_header(str(headers.get("Subject", "")))))
    return Place(seconds, number, date, _REPLY.sub("", " ".join(subject.split())))


def body_of(message: email.message.EmailMessage) -> str:
    """The plain text, or that of the HTML where there is none; empty for what cannot be decoded."""
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return ""
    try:
        content = part.get_content()
    except (LookupError, ValueError):
        content = (part.get_payload(decode=True) or b"").decode("utf-8", errors="replace")
    return html_text(content.encode(), "utf-8", False) if part.get_content_subtype() == "html" else content


def own_words(text: str) -> str:
    """Without what is quoted, who wrote it, and the signature behind "-- "."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line in ("-- ", "--"):
            break
        if not _QUOTED.match(line) and not _SAYS_WHO.match(line):
            lines.append(line.rstrip())
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()
