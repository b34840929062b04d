"""The graph of what comes before what, drawn from the chapters' own fields.

Chapters stand in the book's order, one below the other, so that the drawing fits a phone. A line
leaves a chapter, goes down on a track of its own, and arrives at those that need it.
"""

from html import escape

from tools.teaching import direct_needs, short

ROW, TRACK, CORNER = 26, 13, 6  # heights and widths in the drawing's units
MARGIN, LETTER = 6, 6.7
APART = 3  # what arrives at a chapter stands so far above its middle, what leaves it below


def spans() -> dict[str, tuple[int, int]]:
    """For each chapter that others need, its row and the last row that needs it."""
    rows = list(direct_needs())
    last = {
        need: rows.index(chapter) for chapter, needs in direct_needs().items() for need in needs
    }
    return {chapter: (rows.index(chapter), last[chapter]) for chapter in rows if chapter in last}


def tracks() -> dict[str, int]:
    """A track for each chapter that others need, from the left; no two lines share a stretch."""
    taken: dict[int, list[tuple[int, int]]] = {}
    found = {}
    for chapter, (top, end) in sorted(spans().items(), key=lambda each: each[1][0] - each[1][1]):
        track = 0
        while any(top < below and above < end for above, below in taken.get(track, [])):
            track += 1
        taken.setdefault(track, []).append((top, end))
        found[chapter] = track
    return found


def description() -> str:
    """The drawing in words, for who does not see it."""
    said = [
        f"{short(chapter)} needs {' and '.join(map(short, needs))}"
        for chapter, needs in direct_needs().items()
        if needs
    ]
    return "Graph of the chapters. " + "; ".join(said) + "."


def drawing() -> str:
    """The graph as SVG, in the colours of the page around it."""
    rows, track = list(direct_needs()), tracks()
    dot = 2 * MARGIN + TRACK * (max(track.values()) + 1)
    shapes = []
    for row, (chapter, needs) in enumerate(direct_needs().items()):
        middle = ROW * row + ROW // 2
        for need in needs:
            x, start, end = MARGIN + TRACK * track[need], rows.index(need), middle - APART
            leaves = ROW * start + ROW // 2 + APART
            shapes.append(
                f'<path d="M{dot} {leaves}H{x + CORNER}Q{x} {leaves} {x} {leaves + CORNER}'
                f'V{end - CORNER}Q{x} {end} {x + CORNER} {end}H{dot - 5}"/>'
                f'<path class="tip" d="M{dot - 5} {end}l-6 -3.5v7z"/>'
            )
        shapes.append(f'<circle cx="{dot}" cy="{middle}" r="5"/>')
        shapes.append(f'<text x="{dot + 12}" y="{middle + 4.5}">{escape(short(chapter))}</text>')
    width = dot + 12 + LETTER * max(len(short(chapter)) for chapter in rows)
    return (
        f'<svg class="prerequisites" viewBox="0 0 {width:.0f} {ROW * len(rows)}" role="img" '
        f'aria-label="{escape(description())}">{"".join(shapes)}</svg>'
    )


def directive(_argument: str = "") -> list[str]:
    """The drawing in MyST."""
    return ["```{raw} html", drawing(), "```"]
