"""What a recipe did, as one HTML file: the funnel, what rules took and kept, scores with a movable limit, shares."""

import collections
import itertools
import json
from collections.abc import Iterable

from t5x_like.corpus import bias, tally
from t5x_like.reporting.page import Html, details, document, element, figure, safe, section, table

MOST_REASONS = 200  # rows; a recipe that hits more (evaluation texts, say) has them all in manifest.json
BEGINNING = 80  # characters of a text in a table
WIDTH, HEIGHT = 640.0, 90.0  # of a histogram, in its own units


def page_of(manifest: dict, told: tally.Tally, title: str) -> str:
    """The whole page; `told` is what the recipe counted, `manifest` what `curate` writes."""
    body = [
        element("h1", safe(title)),
        headline(manifest, told),
        section("What was left after each step", funnel_table(told), groups(told)),
        section("What was taken away, and why", reasons(told)),
        section("Duplicates", *map(clusters, sorted(told.clusters.items(), key=lambda item: tally.place_of(item[0])))),
        section("Who is spoken of, and who is left", people(told)),
        section("Scores: where a limit would cut", *histograms(told)),
        section("What was written", mix_table(manifest)),
        section("Models that were trained", model_table(manifest)),
        section("The recipe", element("pre", safe(manifest["recipe"]))) if manifest["recipe"] else "",
    ]
    return document(title, "\n".join(body), script=SCRIPT)


def headline(manifest: dict, told: tally.Tally) -> Html:
    steps = list(tally.by_step(told))
    documents, _, size = steps[0][1] if steps else (0, 0, 0)
    left, _, rest = steps[-1][1] if steps else (0, 0, 0)
    text = (
        f"Of {documents:,} documents ({megabytes(size)} MB) {left:,} are left ({megabytes(rest)} MB, "
        f"{share(rest, size)} of the text), after {sum(told.seconds.values()):,.1f} s of CPU; "
        f"{manifest['written']:,} were written in {len(manifest['shards'])} shards."
    )
    return element("p", safe(text), class_="headline")


def funnel_table(told: tally.Tally) -> Html:
    steps = list(tally.by_step(told))
    if not steps:
        return element("p", "No document could be read.")
    names = ("step", "bytes left", "documents", "characters", "bytes", "taken", "CPU s")
    kinds = ("text", "text", "number", "number", "number", "number", "number")
    head = element("tr", "".join(element("th", safe(n), class_=k) for n, k in zip(names, kinds, strict=True)))
    first, rows = steps[0][1], []
    for (step, sizes), (_, before) in zip(steps, [steps[0], *steps], strict=False):
        bar = element("i", style=f"--share: {sizes[2] / max(first[2], 1):.4f}")
        numbers = [f"{size:,}" for size in sizes]
        numbers += [share(before[2] - sizes[2], first[2]), f"{told.seconds.get(step, 0.0):,.2f}"]
        cells = [element("td", safe(step), class_="text"), element("td", bar, class_="bar")]
        rows.append(element("tr", "".join([*cells, *(element("td", safe(n), class_="number") for n in numbers)])))
    content = element("table", element("thead", head) + element("tbody", "".join(rows)), class_="funnel")
    return element("div", content, class_="wide")


def groups(told: tally.Tally) -> Html:
    """First and last by source and language."""
    steps = sorted(told.funnel, key=tally.place_of)
    if not steps:
        return Html("")
    first, last = told.funnel[steps[0]], told.funnel[steps[-1]]
    names = sorted(last, key=lambda name: -last[name][2])
    names += sorted(set(first) - set(last))
    rows = []
    for name in names:
        before, after = first.get(name, [0, 0, 0]), last.get(name, [0, 0, 0])
        whole = sum(sizes[2] for sizes in last.values())
        rows.append(
            [name, f"{before[0]:,}", f"{after[0]:,}", f"{before[2]:,}", f"{after[2]:,}", share(after[2], whole)]
        )
    head = ["source, language", "documents read", "left", "bytes read", "left", "share of what is left"]
    return details("By source and language, as read and as left", table(head, rows))


def reasons(told: tally.Tally) -> Html:
    read = told.counts.get("read", 0)
    kept = {
        step.split(" ")[-1]: texts
        for step, texts in sorted(told.kept.items(), key=lambda item: tally.place_of(item[0]))
    }
    found = [(name, count) for name, count in told.counts.most_common() if name not in ("read", "read characters")]
    rows = []
    for name, count in found[:MOST_REASONS]:
        pair = ""
        if name in told.examples:
            sides = (("taken", told.examples[name]), ("kept by this step", kept.get(name.split(":")[0], [])))
            pair = "".join(
                element("div", element("h3", safe(title)) + "".join(map(sample, texts))) for title, texts in sides
            )
        summary = f"{name}: {count:,} ({share(count, read)})"
        rows.append(details(summary, element("div", pair, class_="grid")) if pair else element("p", safe(summary)))
    if len(found) > MOST_REASONS:
        rows.append(element("p", safe(f"{len(found) - MOST_REASONS:,} more reasons are in manifest.json.")))
    return Html("".join(rows))


def sample(text: str) -> Html:
    return element("p", safe(text), class_="text-sample")


def clusters(of_step: tuple[str, dict]) -> Html:
    """How many clusters there are of each size, doubling, and the largest ones: who stays, who goes, and how alike."""
    step, told = of_step
    sizes = collections.Counter()
    for size, number in told["sizes"].items():
        sizes[int(size).bit_length()] += number
    ranges = [f"{1 << bits - 1:,} to {(1 << bits) - 1:,}" for bits in sorted(sizes)]
    rows = [[span, f"{sizes[bits]:,}"] for span, bits in zip(ranges, sorted(sizes), strict=True)]
    found = [cluster(one) for one in told["largest"]]
    note = element("p", safe(f"Of a cluster one document stays: keep = '{told['keep']}'."), class_="soft")
    return Html(element("h3", safe(step)) + note + table(["documents in a cluster", "clusters"], rows) + "".join(found))


def cluster(told: dict) -> Html:
    head = ["", "source", "address", "begins with", "like the first", "characters", "quality", "date"]
    rows = []
    for one in told["members"]:
        begins = one.get("text", "(of an earlier corpus)")[:BEGINNING]
        told_of = [one.get("source", ""), one.get("url") or one.get("path", ""), begins]
        numbers = [f"{one['like']:.2f}", f"{one['characters']:,}", f"{one['quality']:g}", one["date"][:8]]
        rows.append(["goes" if one["goes"] else "stays", *told_of, *numbers])
    more = told["documents"] - len(rows)
    rest = element("p", safe(f"and {more:,} more"), class_="soft") if more else ""
    return details(f"{told['documents']:,} documents", Html(table(head, rows, num_text_columns=4) + rest))


def people(told: tally.Tally) -> Html:
    """Each group's documents where they were first labelled and at the end, and occupations near women and men."""
    steps = sorted(told.labels, key=tally.place_of)
    if not steps:
        return Html("")
    documents = {step: sizes[0] for step, sizes in tally.by_step(told)}
    first, last = steps[0], max(told.funnel, key=tally.place_of)
    before, after = told.labels[first], told.labels.get(last, {})
    whole = documents[last] / max(documents[first], 1)
    rows = []
    for label, number, left, ratio in bias.shares_left(before, after, documents[first], documents[last]):
        falls = [(told.labels[b][label] / max(told.labels[a][label], 1), b) for a, b in itertools.pairwise(steps)]
        worst = min(falls, default=(1.0, ""))
        where = worst[1] if worst[0] < 1 else ""
        rows.append([label, where, f"{number:,}", f"{left:,}", share(left, number), f"{ratio:.2f}"])
    head = ["group", "most go at", "documents", "left", "share", "of the share of all"]
    note = f"Of all documents {whole:.1%} are left. Below 0.80 less than four fifths of that is left of a group."
    was, now = bias.associations(before), bias.associations(after)
    near = [
        [name, f"{value:+.2f}", f"{now.get(name, 0.0):+.2f}"] for name, value in sorted(was.items(), key=lambda x: x[1])
    ]
    columns = ["occupation", "log ratio women : men, before", "after"]
    beside = details("Occupations near women and near men", table(columns, near)) if near else ""
    return Html(element("p", safe(note), class_="soft") + table(head, rows, num_text_columns=2) + beside)


def histograms(told: tally.Tally) -> Iterable[Html]:
    for score, languages in sorted(told.scores.items()):
        for language, bins in sorted(languages.items()):
            yield histogram(score, language, {int(number): tuple(told) for number, told in bins.items()})


def histogram(score: str, language: str, bins: dict[int, tuple[int, str]]) -> Html:
    """Bars over the bins of one score, and a slider that says what lies on either side of it."""
    numbers = sorted(bins)
    low, high = numbers[0], numbers[-1]
    highest, step = max(count for count, _ in bins.values()), WIDTH / (high - low + 1)
    bars = []
    for number in numbers:
        tall = HEIGHT * bins[number][0] / highest
        place = {"x": f"{(number - low) * step:.2f}", "y": f"{HEIGHT - tall:.2f}"}
        bars.append(element("rect", **place, width=f"{max(step - 0.4, 0.6):.2f}", height=f"{tall:.2f}"))
    svg = element("svg", "".join(bars), viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", preserveAspectRatio="none", role="img")
    data = [[tally.lower_edge(number), bins[number][0], bins[number][1]] for number in numbers]
    slider = element("input", type="range", min="0", max=str(len(numbers) - 1), value=str(len(numbers) // 2))
    told = "".join(element("p", "", class_=name) for name in ("soft cut", "text-sample below", "text-sample above"))
    total = f"{sum(count for count, _ in bins.values()):,} documents"
    content = figure(f"{score}, {language or 'any language'}", svg + slider + told, total)
    return element("div", content, class_="score", data_bins=json.dumps(data))


def mix_table(manifest: dict) -> Html:
    rows = [
        [name, f"{told['documents']:,}", f"{told['characters']:,}", f"{told['wanted']:,}", f"{told['epochs']:.2f}"]
        for name, told in manifest["sources"].items()
    ]
    return table(["source", "documents left", "characters left", "characters wanted", "epochs"], rows)


def model_table(manifest: dict) -> Html:
    rows = [
        [name, ", ".join(f"{k}: {v}" for k, v in card.items())] for name, card in manifest["models"].items() if card
    ]
    return table(["score", "trained on, and what came of it"], rows, num_text_columns=2) if rows else Html("")


def share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f}"


# Moves the limit of one score: bars below it fade, and the texts next to it on both sides are shown. Texts are set as
# text, never as markup.
SCRIPT = """
for (const score of document.querySelectorAll('.score')) {
  const bins = JSON.parse(score.dataset.bins), bars = score.querySelectorAll('rect');
  const slider = score.querySelector('input'), put = (name, text) => { score.querySelector(name).textContent = text; };
  const total = bins.reduce((sum, bin) => sum + bin[1], 0);
  const show = () => {
    const at = Number(slider.value), below = bins.slice(0, at).reduce((sum, bin) => sum + bin[1], 0);
    bars.forEach((bar, i) => bar.classList.toggle('out', i < at));
    const part = n => n.toLocaleString('en') + ' (' + (100 * n / total).toFixed(1) + ' %)';
    const limit = bins[at][0].toPrecision(4);
    put('.cut', 'limit ' + limit + ': below ' + part(below) + ', from it on ' + part(total - below));
    put('.below', at ? 'just below: ' + bins[at - 1][2] : '');
    put('.above', 'just above: ' + bins[at][2]);
  };
  slider.addEventListener('input', show);
  show();
}
"""
