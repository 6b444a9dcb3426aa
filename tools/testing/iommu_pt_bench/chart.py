# SPDX-License-Identifier: GPL-2.0
"""Parts of a plot, as plain SVG.

Not by matplotlib: for it alone the set-up would install 55 packages of Debian, 450 MB.
"""


def text(x, y, words, anchor="middle", colour="#222", size=11):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{words}</text>'


def line(x1, y1, x2, y2, colour, more=""):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def curve(places, colour, dashed):
    """Return a line through `places`, with a mark at each."""
    if not places:
        return []
    dash = 'stroke-dasharray="5 4"' if dashed else ""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" {dash}/>']
    fill = "white" if dashed else colour
    for x, y in places:
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{fill}" stroke="{colour}"/>')
    return parts


def spread_out(labels, gap=13):
    """Return the labels with their heights moved apart."""
    placed = []
    for y, words, colour in sorted(labels):
        if placed and y - placed[-1][0] < gap:
            y = placed[-1][0] + gap
        placed.append((y, words, colour))
    return placed


def document(width, height, parts):
    """Return the whole plot."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )
