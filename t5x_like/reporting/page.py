"""The page around a report: safe text, small elements, and the style sheet.

Nothing on it is fetched, and nothing is run but a script of ours that the page's policy names by its hash.
"""

import base64
import hashlib
import html
import re
from collections.abc import Iterable, Sequence
from typing import Any, NewType

Html = NewType("Html", str)  # text that is markup already; everything else passes through `safe`

# Terminal and bidirectional controls, and halves of surrogate pairs; newline and tab are kept.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def safe(text: Any) -> Html:
    """Any value as text of the page: control characters removed, markup escaped."""
    return Html(html.escape(CONTROLS.sub("", str(text).replace("\r\n", "\n"))))


def element(tag: str, content: str = "", **attributes: str) -> Html:
    """`content` is markup. An attribute `class_` is written `class`, one `data_x` is written `data-x`."""
    written = "".join(f' {name.rstrip("_").replace("_", "-")}="{safe(value)}"' for name, value in attributes.items())
    return Html(f"<{tag}{written}>{content}</{tag}>")


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], *, num_text_columns: int = 1) -> Html:
    """Columns after the first `num_text_columns` hold numbers, set flush right."""

    def row(tag: str, cells: Sequence[Any]) -> str:
        kinds = ["text" if i < num_text_columns else "number" for i in range(len(cells))]
        return element("tr", "".join(element(tag, safe(c), class_=k) for c, k in zip(cells, kinds, strict=True)))

    body = "".join(row("td", cells) for cells in rows)
    top = element("thead", row("th", head)) if any(head) else ""
    return element("div", element("table", top + element("tbody", body)), class_="wide")


def legend(entries: Iterable[tuple[str, int, str]]) -> Html:
    """Entries are (label, colour, kind of line: line or dotted)."""
    items = (
        element("li", element("i", class_=kind, style=f"--swatch: var(--series{color % 8})") + safe(label))
        for label, color, kind in entries
    )
    return element("ul", "".join(items), class_="legend")


def figure(title: str, svg: str, note: str = "", *, keys: str = "", class_: str = "") -> Html:
    caption = element("figcaption", element("b", safe(title)) + (element("span", safe(note)) if note else ""))
    return element("figure", caption + keys + svg, class_=class_)


def section(title: str, *content: str) -> Html:
    return element("section", element("h2", safe(title)) + "".join(content)) if any(content) else Html("")


def details(summary: str, content: str) -> Html:
    return element("details", element("summary", safe(summary)) + content)


def document(title: str, body: str, script: str = "") -> str:
    """`body` is markup; the page's policy lets no script run but this one."""
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{allowed}'" if script else POLICY
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{safe(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f"{element('script', script) if script else ''}</body>\n</html>\n"
    )


STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #24292f; --soft: #646b73; --grid: #e4e2dd; --accent: #0b6bb5;
  --good: #d9f0de; --good-ink: #115e2b; --bad: #fbe0dc; --bad-ink: #8f2617; --mark: #fff0c2; --mark-ink: #6b4c00;
  --series0: #0b6bb5; --series1: #d1570b; --series2: #188a5e; --series3: #b0358f;
  --series4: #8a6d00; --series5: #5b4fc4; --series6: #a13a2e; --series7: #4a6070;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171b; --card: #1c2026; --ink: #dfe3e8; --soft: #98a1ab; --grid: #323840; --accent: #6cb6ff;
  --good: #173a26; --good-ink: #8fdcab; --bad: #472320; --bad-ink: #ffb3a6; --mark: #43391a; --mark-ink: #f3d27a;
  --series0: #5fb0f5; --series1: #f59b56; --series2: #55c99a; --series3: #e58acb;
  --series4: #d6b94c; --series5: #a79df5; --series6: #ee8577; --series7: #a3b5c2;
} }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2.8rem 0 .8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--grid); }
p { max-width: 80ch; margin: .5rem 0; }
.headline { font-size: 1.2rem; line-height: 1.45; margin: .8rem 0 1.4rem; }
.soft, figcaption span, .samples .where { color: var(--soft); font-size: .875rem; }
.warning { background: var(--bad); color: var(--bad-ink); padding: .5rem .8rem; border-radius: .4rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.4rem, 1fr)); gap: .75rem; margin: 0; }
.tiles div, figure, .samples article { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem; }
.tiles div { padding: .6rem .9rem; }
.tiles dt { color: var(--soft); font-size: .8rem; }
.tiles dd { margin: 0; font-size: 1.2rem; overflow-wrap: anywhere; font-weight: 600;
  font-variant-numeric: tabular-nums; }
figure { margin: 0; padding: .9rem 1rem .6rem; min-width: 0; }
figcaption b { margin-right: .6rem; }
figure svg { display: block; width: 100%; height: auto; margin-top: .3rem; font-family: inherit; }
.grid { display: grid; gap: 1rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(18.5rem, 100%), 1fr)); }
.funnel td.bar { width: 30%; min-width: 8rem; }
.funnel td.bar i { display: block; height: .8rem; margin-top: .35rem; border-radius: .2rem; background: var(--series0);
  width: calc(100% * var(--share)); }
.score { margin: 1rem 0; }
.score input { width: 100%; accent-color: var(--accent); }
.score rect { fill: var(--series0); }
.score rect.out { fill: var(--grid); }
.score svg { height: 6rem; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .4rem 0 0; padding: 0;
  font-size: .875rem; }
.legend li { overflow-wrap: anywhere; }
.legend i { display: inline-block; width: 1.4rem; margin-right: .45rem; vertical-align: middle;
  border-top: 3px solid var(--swatch); }
.legend i.dotted { border-top-style: dotted; }
.shares { display: flex; height: 1.1rem; border-radius: .3rem; overflow: hidden; gap: 2px; margin: .5rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; font-size: .8rem; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--grid); text-align: left; vertical-align: top; }
td.text { overflow-wrap: anywhere; min-width: 8rem; }
th.number, td.number { text-align: right; white-space: nowrap; }
.samples article { padding: .7rem 1rem .8rem; margin: .8rem 0; }
.samples dl { display: grid; grid-template-columns: 4.5rem minmax(0, 1fr); gap: .3rem .8rem; margin: .4rem 0 0; }
.samples dt { color: var(--soft); font-size: .8rem; line-height: 1.7; }
.samples dd { margin: 0; }
pre, .text-sample { font-size: .84rem;
  font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.text-sample { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 84ch; }
mark { background: var(--mark); color: var(--mark-ink); border-radius: .2rem; padding: 0 .15em; }
ins { background: var(--good); color: var(--good-ink); text-decoration: none; border-radius: .2rem; padding: 0 .1em; }
del { background: var(--bad); color: var(--bad-ink); border-radius: .2rem; padding: 0 .1em; }
pre { background: var(--card); border: 1px solid var(--grid); border-radius: .5rem; padding: .8rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre .origin { color: var(--soft); }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print { details { display: block; } figure, article { break-inside: avoid; } }
"""
