"""Samples of what the model writes, as cards: input, truth, model, and the gaps of the input filled in.

input    Thank you <extra_id_0> me to your <extra_id_1> last week
truth    <extra_id_0> for inviting <extra_id_1> party
model    <extra_id_0> for asking <extra_id_1> party
filled   Thank you [-for inviting-] [+for asking+] me to your [+party+] last week
"""

import re
from collections.abc import Iterable
from typing import Any

from t5x_like.reporting.page import Html, details, element, safe

SENTINEL = re.compile(r"<(?:extra_id_\d+|s\d+|sentinel_\d+)>")
SHOWN_AT_ONCE = 8
MAX_CHARACTERS = 4000


def sample_cards(samples: list[dict[str, Any]]) -> Html:
    """The samples of the last step first; those that are too many are folded away."""
    newest_first = sorted(samples, key=lambda s: -s["step"] if isinstance(s.get("step"), int | float) else 0)
    cards = [card(sample) for sample in newest_first]
    shown, folded = "".join(cards[:SHOWN_AT_ONCE]), "".join(cards[SHOWN_AT_ONCE:])
    more = details(f"{len(cards) - SHOWN_AT_ONCE} more", folded) if folded else ""
    return element("div", shown + more, class_="samples") if cards else Html("")


def card(sample: dict[str, Any]) -> Html:
    texts = {name: shorten(str(sample.get(name, ""))) for name in ("input", "truth", "model")}
    rows: list[tuple[str, str]] = [(name, marked(text)) for name, text in texts.items()]
    if set(SENTINEL.findall(texts["input"])) & set(SENTINEL.findall(texts["truth"])):
        rows.append(("filled in", filled(texts["input"], spans(texts["truth"]), spans(texts["model"]))))
    where = f"{sample.get('task', '')}" + (f", step {sample['step']:,}" if isinstance(sample.get("step"), int) else "")
    return element("article", element("div", safe(where), class_="where") + definition_list(rows))


def definition_list(rows: Iterable[tuple[str, str]]) -> Html:
    return element(
        "dl",
        "".join(element("dt", safe(name)) + element("dd", content, class_="text-sample") for name, content in rows),
    )


def shorten(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]} … ({len(text) - MAX_CHARACTERS:,} more characters)"


def pieces(text: str) -> Iterable[tuple[str, str]]:
    """(sentinel, text up to the next one); the first sentinel is empty."""
    starts = [(0, 0, ""), *((m.start(), m.end(), m.group()) for m in SENTINEL.finditer(text))]
    ends = [start for start, _, _ in starts[1:]] + [len(text)]
    return [(sentinel, text[begin:end]) for (_, begin, sentinel), end in zip(starts, ends, strict=True)]


def marked(text: str) -> Html:
    return Html("".join((element("mark", safe(s)) if s else "") + safe(rest) for s, rest in pieces(text)))


def spans(text: str) -> dict[str, str]:
    return {sentinel: span.strip() for sentinel, span in reversed(pieces(text)) if sentinel}


def filled(text: str, truth: dict[str, str], model: dict[str, str]) -> Html:
    """The input with the model's span in each gap, and the true one struck out where it is another."""
    parts = []
    for sentinel, rest in pieces(text):
        if sentinel and sentinel not in truth:
            parts.append(element("mark", safe(sentinel)))
        elif sentinel and model.get(sentinel) == truth[sentinel]:
            parts.append(element("ins", safe(truth[sentinel])))
        elif sentinel:
            parts.append(element("mark", safe(model.get(sentinel, "…"))) + " " + element("del", safe(truth[sentinel])))
        parts.append(safe(rest))
    return Html("".join(parts))
