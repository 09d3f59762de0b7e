"""The look of all charts: colours, sizes, and SVG that follows the page from light to dark.

Figures are made with Matplotlib's object interface (no pyplot, no display). Text stays text in the
SVG, so it is drawn in the reader's own fonts and any script. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color Universal Design": told apart with any colour vision. Black is left to text.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
STROKES = ("-", "--", ":", "-.")  # for the 8th and later lines
INK, FAINT, LINE = "#1e2a33", "#64727c", "#d3dadf"
_DARK = {INK: "#e4e9ec", FAINT: "#97a4ad", LINE: "#3a454d", COLOURS[0]: "#3c9be0"}  # on a dark page
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "megavox", "text.parse_math": False, "axes.unicode_minus": True,
    "font.family": "DejaVu Sans", "font.size": 9.5, "axes.titlesize": 10, "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "legend.fontsize": 8.5, "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.edgecolor": FAINT,
    "xtick.color": FAINT, "ytick.color": FAINT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": LINE,
    "grid.linewidth": 0.7, "axes.axisbelow": True, "axes.linewidth": 0.8, "lines.linewidth": 1.7,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
}

WIDTH = 4.8  # inches: two charts stand side by side on a screen, one fills a phone


def colour(number: int) -> str:
    """Colour of the n-th thing, from 0; they repeat after the seventh."""
    return COLOURS[number % len(COLOURS)]


def stroke(number: int) -> str:
    """Line style of the n-th thing, from 0; it changes when the colours repeat."""
    return STROKES[number // len(COLOURS) % len(STROKES)]


def label(text: object, longest: int = 30) -> str:
    """A name that any chart can hold: on one line, printable, not too long."""
    line = "".join(c if c.isprintable() else " " for c in str(text)).strip() or "(no name)"
    line = line if len(line) <= longest else line[:longest - 1] + "…"
    return "\u200b" + line if line.startswith("_") else line  # Matplotlib hides a leading underscore


def styled(draw: Callable[..., Figure | str]) -> Callable[..., bytes | str]:
    """Run a drawing function in the charts' style and turn its figure into SVG bytes."""

    @wraps(draw)
    def wrapped(*arguments: Any, **options: Any) -> bytes | str:
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            # Matplotlib misses glyphs (of Japanese names) that the browser, which draws the text, has.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure = draw(*arguments, **options)
            return figure if isinstance(figure, str) else _svg(figure)

    return wrapped


def new_figure(height: float, rows: int = 1, columns: int = 1, width: float = WIDTH,
               **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure `height` and `width` inches large with a grid of axes, row by row."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).ravel())


def legend_below(figure: Figure, handles: list[Any], names: list[str], columns: int) -> None:
    """A legend under the axes, where it covers nothing."""
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=2.2)


def plain_number(value: float) -> str:
    """A tick's text: thousands apart, no powers of ten."""
    text = f"{value:,.10g}".replace(",", "\u202f")
    return text.replace("-", "\u2212")


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue().decode()
    text = text.replace("'DejaVu Sans'", FONTS)
    rules = "".join(f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
                    for light, dark in _DARK.items() for what in ("fill", "stroke"))
    style = f"<style>@media screen and (prefers-color-scheme:dark){{{rules}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda tag: tag[1] + style, text, count=1).encode()
