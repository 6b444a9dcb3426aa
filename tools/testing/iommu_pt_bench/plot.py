# SPDX-License-Identifier: GPL-2.0
"""The plot: cost per entry against mapped size, as plain SVG."""

import math

from .chart import curve, document, line, spread_out, text

SHOWN = ("clean", "random1", "run10", "random50", "all", "limit")
COLOURS = {
    "clean": "#1b6ca8",
    "random1": "#2a9d5c",
    "run10": "#8a5fbf",
    "random50": "#d97706",
    "all": "#c0392b",
    "limit": "#555555",
}
WIDTH, HEIGHT = 460, 360
LEFT, RIGHT, TOP, BOTTOM = 52, 96, 40, 44


class Axes:
    """Places values on a panel; both axes are logarithmic."""

    def __init__(self, sizes, values, x):
        self.x, self.sizes = x, sizes
        self.low = 10 ** math.floor(math.log10(min(values)))
        self.high = 10 ** math.ceil(math.log10(max(values)))
        if self.low == self.high:
            self.high *= 10

    def across(self, mib):
        first, last = math.log2(self.sizes[0]), math.log2(self.sizes[-1])
        part = (math.log2(mib) - first) / (last - first) if last > first else 0.5
        return self.x + LEFT + part * (WIDTH - LEFT - RIGHT)

    def up(self, value):
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _size(mib):
    return f"{mib >> 10} GiB" if mib >= 1024 else f"{mib} MiB"


def _frame(axes, title):
    right, bottom = axes.x + WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [text((axes.x + LEFT + right) / 2, TOP - 14, title, size=14)]
    value = axes.low
    while value <= axes.high * 1.01:
        y = axes.up(value)
        parts.append(line(axes.x + LEFT, y, right, y, "#dddddd"))
        parts.append(text(axes.x + LEFT - 6, y + 4, f"{value:g}", "end"))
        value *= 10
    for mib in axes.sizes:
        x = axes.across(mib)
        parts.append(line(x, bottom, x, bottom + 4, "#222"))
        parts.append(text(x, bottom + 18, _size(mib)))
    parts.append(line(axes.x + LEFT, bottom, right, bottom, "#222"))
    return parts


def _panel(figures, name, x):
    shown = [figure for figure in figures if figure.work in SHOWN]
    chosen = [figure for figure in shown if figure.format == name]
    sizes = sorted({figure.mib for figure in chosen})
    # Over all formats, so that the panels can be compared.
    values = [
        figure.median(side) for figure in shown for side in ("c", "rust") if figure.median(side)
    ]
    if not sizes or not values:
        return []
    axes = Axes(sizes, values, x)
    parts = _frame(axes, name)
    labels = []
    for work in SHOWN:
        for side, dashed in (("c", True), ("rust", False)):
            if work == "limit" and side == "c" and any("rust" in f.samples for f in chosen):
                continue
            points = sorted(
                (figure.mib, figure.median(side))
                for figure in chosen
                if figure.work == work and figure.median(side)
            )
            places = [(axes.across(mib), axes.up(value)) for mib, value in points]
            parts += curve(places, COLOURS[work], dashed)
            if points:
                words = work if work == "limit" else f"{work} {'C' if dashed else 'Rust'}"
                labels.append((axes.up(points[-1][1]), words, COLOURS[work]))
    for y, words, colour in spread_out(labels):
        parts.append(text(x + WIDTH - RIGHT + 6, y + 4, words, "start", colour, 10))
    return parts


def svg(figures):
    """Return the plot, a panel for each format."""
    # Formats with a dirty query.
    names = list(dict.fromkeys(figure.format for figure in figures if figure.work == "clean"))
    width = WIDTH * max(1, len(names))
    parts = []
    for index, name in enumerate(names):
        parts += _panel(figures, name, index * WIDTH)
    words = "ns per 4 KiB leaf against mapped memory; filled: Rust, hollow and dashed: C"
    parts.append(text(width / 2, HEIGHT + 12, f"read_and_clear_dirty: {words}", size=12))
    return document(width, HEIGHT + 24, parts)
