"""Charts as inline SVG: drawn by matplotlib, coloured by the page's CSS, so that they suit light and dark alike."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
from markupsafe import Markup

from wavmill.pipeline.errors import Bug
from wavmill.pipeline.store.names import printable_lines

INK, SOFT, LINE, ACCENT, SECOND, FILL = (f"#0102{i:02x}" for i in range(3, 9))  # stand for the variables of the page
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", ACCENT: "accent", SECOND: "second", FILL: "fill"}
WIDTH_IN = 4.4
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and in the page's own font
    "font.size": 8,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "text.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.limits": (-3, 6),
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "image.interpolation": "none",  # the frames as they are; the browser scales them
}
_drawing = Lock()  # matplotlib's settings are the whole process's


def drawn(label: str, draw: Callable[[Any], None], height_in: float = 2.0) -> Markup:
    """A figure as SVG of any width; ``label`` says in words what it shows."""
    import matplotlib
    from matplotlib.figure import Figure

    label, sink = printable_lines(label), io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with _drawing, matplotlib.rc_context({**STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=(WIDTH_IN, height_in))
        figure.subplots_adjust(0.12, 0.38 / height_in, 0.985, 1 - 0.06 / height_in, hspace=0.12)  # alike in all charts
        draw(figure)
        figure.savefig(sink, format="svg", transparent=True, metadata=nothing)
    text = sink.getvalue()
    inside = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    inside = re.sub(r"<(metadata|style)\b.*?</\1>", "", inside, flags=re.DOTALL)
    inside = re.sub(r'<(g|image) id="[^"]*"', r"<\1", inside)  # figure_1 and its like: the same in every chart
    inside = re.sub(r"(font: [\d.]+px|font-family:) [^;\"]*", r"\1 sans-serif", inside).replace("xlink:href", "href")
    for colour, name in VARIABLES.items():
        inside = inside.replace(colour, f"var(--{name})")
    box = re.search(r'viewBox="([^"]*)"', text)
    if box is None:
        raise Bug("matplotlib wrote a chart without its viewBox")
    svg = Markup('<svg viewBox="{}" role="img" aria-label="{}">{}</svg>')
    return svg.format(box[1], label, Markup(inside))


def histogram(label: str, values: np.ndarray, x: str, y: str) -> Markup:
    def draw(figure: Any) -> None:
        axes = _axes(figure, x, y)
        axes.hist(values, bins=min(40, max(1, len(values))), color=ACCENT, rwidth=0.9)

    return drawn(label, draw)


def rates(label: str, heights: Sequence[float], width: float, x: str, y: str) -> Markup:
    """Steps of equal width from 0 on."""

    def draw(figure: Any) -> None:
        axes, edges = _axes(figure, x, y), width * np.arange(len(heights) + 1)
        axes.stairs(heights, edges, fill=True, color=FILL)
        axes.stairs(heights, edges, color=ACCENT, linewidth=1.2)
        axes.set_xlim(0, edges[-1])

    return drawn(label, draw)


def ranks(label: str, shares: np.ndarray, x: str, y: str, even: str) -> Markup:
    """Shares, the largest first, beside what each would be if all were alike."""

    def draw(figure: Any) -> None:
        axes, edges = _axes(figure, x, y), np.arange(len(shares) + 1)
        axes.stairs(np.sort(shares)[::-1], edges, fill=True, color=ACCENT)
        axes.axhline(1 / len(shares), color=SECOND, linestyle=(0, (4, 3)), linewidth=1, label=even)
        axes.set_xlim(0, edges[-1])
        axes.legend(loc="upper right")

    return drawn(label, draw)


def curves(
    label: str, lines: Mapping[str, tuple[Sequence[Any], Sequence[Any]]], x: str, y: str, reference: str = ""
) -> Markup:
    """Named lines of (x, y); None and NaN are left out, the last of several is drawn on top, ``reference`` dashed."""

    def draw(figure: Any) -> None:
        axes = _axes(figure, x, y)
        for number, (name, points) in enumerate(lines.items()):
            at, value = (np.array(side, float) for side in points)
            good = np.isfinite(at) & np.isfinite(value)
            dashed = {"color": SOFT, "linestyle": (0, (4, 3)), "linewidth": 1.0}
            solid = {"color": (ACCENT, SECOND)[number % 2], "marker": "o" if good.sum() < 40 else "", "markersize": 2.5}
            axes.plot(at[good], value[good], label=name, **(dashed if name == reference else solid))
        if len(lines) > 1:
            axes.legend(loc="best")

    return drawn(label, draw)


def spectrogram(label: str, mel: np.ndarray, seconds: float, codes: Sequence[int] | None = None) -> Markup:
    """Log-mel (T, bands) over time; below it a strip of its tokens, in which the same code has the same colour."""

    def draw(figure: Any) -> None:
        import matplotlib

        two = codes is not None and len(codes) > 0
        if two:
            sound, strip = figure.subplots(2, 1, sharex=True, height_ratios=[7, 1])
        else:
            sound = strip = figure.subplots()
        within = (0, seconds, 0, mel.shape[1])
        floor = max(float(mel.min()), float(mel.max()) - 9)  # nepers, about 80 dB below the loudest
        sound.imshow(mel.T, aspect="auto", origin="lower", cmap="magma", extent=within, vmin=floor)
        sound.set_ylabel("mel band")
        sound.yaxis.set_label_coords(-0.1, 0.5)
        if two:
            hues = matplotlib.colormaps["hsv"](np.asarray(codes) * 0.618034 % 1.0)[None, :, :3] * 0.55 + 0.35
            strip.imshow(np.clip(hues, 0, 1), aspect="auto", extent=(0, seconds, 0, 1))
            strip.set_yticks([])
            strip.set_ylabel("token", rotation=0, ha="right", va="center")
        strip.set_xlabel("s")

    return drawn(label, draw, height_in=1.9)


def _axes(figure: Any, x: str, y: str) -> Any:
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.yaxis.set_label_coords(-0.1, 0.5)
    axes.grid(True, axis="y")
    axes.locator_params(axis="y", nbins=5)
    return axes
