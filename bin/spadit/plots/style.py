"""Colours, fonts and file writing shared by all figures.

The colours are Okabe and Ito's (distinguishable with the common colour deficiencies) and never the only carrier of a meaning:
the ceiling is hatched as well, statuses are written out. Widths are in inches; 7.2 in is a journal's double column, at which the
smallest text is 6.5 pt.
"""

from __future__ import annotations

import functools
import io
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every letter that a PDF gets

WIDTH = 7.2
"""Width of a full figure in inches (180 mm)."""

INK = "#1b2733"
MUTED = "#5d6b78"
GRID = "#e3e8ec"
MISSING = "#d5dade"
MAP = "viridis"

MODEL = "SpaDiT"
"""The name of the project's own method in ``metrics.csv``."""

ROLES = {
    "model": ("#0072B2", "SpaDiT"),
    "floor": ("#E69F00", "simple method (floor)"),
    "method": ("#56B4E9", "other method"),
    "control": ("#CC79A7", "control: one number per spot"),
    "ceiling": ("#c3cad0", "ceiling: sees the truth, not ranked"),
}
"""Role of a method -> fill colour and name in legends."""

STATUS = {"pass": "#00795c", "warn": "#8f5600", "not predictable": "#b3261e", "failed": "#b3261e"}
RELIABILITY = {"reliable": "#0072B2", "use with care": "#E69F00", "do not use": "#8a949d"}

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#4d4d4d")
"""Colours of lines that have no role: Okabe and Ito's order, without yellow (too faint on white)."""
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "spadit",  # the same figure gives the same file
    "pdf.fonttype": 42,  # letters stay letters, for editing
    "text.parse_math": False,  # a gene or sample name may hold a dollar sign
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw with the project's fonts and lines, leaving the caller's matplotlib settings as they are."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(_RC):
            return draw(*args, **kwargs)

    return wrapper


def series(k: int) -> tuple[str, object]:
    """Colour and dash of the k-th line: dashes change where there are more lines than colours."""
    return SERIES[k % len(SERIES)], DASHES[k // len(SERIES) % len(DASHES)]


def shorten(text: str, length: int) -> str:
    """At most ``length`` characters, the last of them … where something was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def role(method: str) -> str:
    """Role of a method by its name in ``metrics.csv``: a key of :data:`ROLES`. What is not one of the project's methods is 'method'."""
    from spadit.methods import METHODS

    if method == MODEL:
        return "model"
    return METHODS[method].kind if method in METHODS else "method"


def label(method: str) -> str:
    """A method's name as figures and tables show it."""
    suffix = {"control": " (control)", "ceiling": " (ceiling)"}.get(role(method), "")
    return (MODEL if role(method) == "model" else method) + suffix


def _to_file(figure: Figure, target, format: str, dpi: int) -> None:
    metadata = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}.get(format)
    with matplotlib.rc_context(_RC):
        figure.savefig(target, format=format, dpi=dpi, metadata=metadata)


def save(figure: Figure, stem: str | Path, dpi: int = 200, formats: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write ``stem.svg`` (vector; dense point clouds inside are rasterised) and ``stem.png``, each whole or not at all.

    ``formats`` may also name 'pdf'.
    """
    paths = []
    for format in formats:
        path = Path(f"{stem}.{format}")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        try:
            _to_file(figure, temporary, format, dpi)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        paths.append(path)
    return paths


def svg(figure: Figure) -> bytes:
    """The figure as an SVG document."""
    buffer = io.BytesIO()
    _to_file(figure, buffer, "svg", 200)
    return buffer.getvalue()


def png(figure: Figure, dpi: int = 150) -> bytes:
    """The figure as a PNG image."""
    buffer = io.BytesIO()
    _to_file(figure, buffer, "png", dpi)
    return buffer.getvalue()


def small_png(figure: Figure, limit: int = 50_000, dpi: int = 96) -> bytes:
    """The figure as a PNG of at most ``limit`` bytes: a palette of 64 colours, then lower resolution until it fits."""
    from PIL import Image

    while True:
        image = Image.open(io.BytesIO(png(figure, dpi))).convert("RGB")
        buffer = io.BytesIO()
        image.quantize(64).save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= limit or dpi <= 30:
            return buffer.getvalue()
        dpi = int(dpi * 0.85)
