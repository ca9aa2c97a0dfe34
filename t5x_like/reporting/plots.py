"""Curves as inline SVG, with colours that follow the page: light or dark. The only importer of matplotlib.

No text of the data gets into a figure (legends are HTML), and no state is left behind in matplotlib.
"""

import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from t5x_like.reporting.run_folder import Series

NUM_COLORS = 8
MAX_POINTS = 600  # a longer curve is drawn as the means of so many bins: more cannot be seen, and the page stays small
SMOOTHED_FROM = 80  # points; a shorter curve is drawn as it is

# matplotlib knows no CSS variables, so that each is drawn in a colour of its own and replaced in the text of the SVG.
INK, GRID = "#a00001", "#a00002"
SERIES_COLORS = [f"#b0000{i}" for i in range(NUM_COLORS)]
CSS_COLORS = {INK: "var(--ink)", GRID: "var(--grid)"} | {c: f"var(--series{i})" for i, c in enumerate(SERIES_COLORS)}


class Curve(NamedTuple):
    """color: index of the page's series colours, taken modulo their number
    style: "noisy" (smoothed, the raw values faint behind), "line", "points" (with a dot for each) or "dotted"
    """

    series: Series
    color: int
    style: str = "line"


class Level(NamedTuple):
    """A dotted horizontal line, such as a baseline."""

    value: float
    color: int


def curves_svg(
    title: str, curves: Sequence[Curve], *, levels: Sequence[Level] = (), width: float, height: float, from_zero: bool
) -> str:
    """Curves over training steps; `title` is for screen readers. Sizes are in inches at the page's text size.

    `from_zero` lets the vertical axis start at zero; otherwise it shows the range of the values.
    """
    settings = {
        "svg.fonttype": "none",  # text stays text: selectable, and in the page's font
        "svg.hashsalt": f"{title} {width}",  # other ids in each figure of a page, the same in each process
        "font.size": 9,
        "axes.edgecolor": GRID,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        for curve in curves:
            draw(axes, curve)
        for level in levels:
            color = SERIES_COLORS[level.color % NUM_COLORS]
            axes.axhline(level.value, color=color, linestyle=(0, (1, 2.5)), linewidth=1.4)
        low, high = visible_range(curves, [level.value for level in levels], from_zero)
        axes.set_ylim(low, high)
        finish(axes)
        text = io.StringIO()
        no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure).print_svg(text, metadata=no_metadata)
    return for_page(text.getvalue(), title)


def draw(axes, curve: Curve) -> None:
    steps, values = binned(curve.series)
    color = SERIES_COLORS[curve.color % NUM_COLORS]
    if curve.style == "noisy" and len(values) >= SMOOTHED_FROM:
        axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.35)
        values = smoothed(values)
    marker = "o" if curve.style == "points" or len(values) == 1 else None
    dashes = (0, (1, 2)) if curve.style == "dotted" else "-"
    axes.plot(steps, values, color=color, linewidth=1.6, marker=marker, markersize=3.5, linestyle=dashes)


def binned(points: Series) -> Series:
    """Means over at most MAX_POINTS runs of neighbouring points."""
    if len(points.steps) <= MAX_POINTS:
        return points
    edges = np.linspace(0, len(points.steps), MAX_POINTS + 1).astype(int)
    counts = np.diff(edges)
    return Series(*(np.add.reduceat(column, edges[:-1]) / counts for column in points))


def smoothed(values: np.ndarray) -> np.ndarray:
    """Centred moving mean over a fortieth of the curve, of what there is at the ends."""
    half = max(1, len(values) // 80)
    kernel = np.ones(2 * half + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def visible_range(curves: Sequence[Curve], levels: Sequence[float], from_zero: bool) -> tuple[float, float]:
    """All of the curves, but for spikes of the noisy ones that would flatten the rest."""
    tops, lows = list(levels), list(levels)
    for curve in curves:
        values = curve.series.values
        if len(values):
            lows.append(float(values.min()))
            usual = float(np.percentile(values, 99))
            is_spiky = curve.style == "noisy" and values.max() - lows[-1] > 3 * (usual - lows[-1])
            tops.append(usual if is_spiky else float(values.max()))
    low, high = (min(lows), max(tops)) if lows else (0.0, 1.0)
    low = min(0.0, low) if from_zero else low
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return (low if from_zero and low == 0 else low - margin), high + margin


def finish(axes) -> None:
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, pad=5)
    axes.margins(x=0.015)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """2000 -> 2k, 0.0003 -> 3e-4, 1.5 -> 1.5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    if 0 < abs(value) < 1e-3:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:.4g}"


def for_page(svg: str, title: str) -> str:
    """The element alone, as wide as its place on the page, in the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # names of matplotlib's parts, the same in every figure
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    for color, name in CSS_COLORS.items():
        svg = svg.replace(color, name)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
