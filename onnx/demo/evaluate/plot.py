"""Small plots as SVG, the same bytes for the same numbers."""

from xml.sax.saxutils import escape

GUIDED, UNGUIDED, OTHER, INK, GRID = "#1b6ca8", "#c9743a", "#4f8a4c", "#222", "#ddd"


class Plot:
    """Panels in a column, each drawn with coordinates from its top left corner."""

    def __init__(self, width):
        self.width, self.height, self.parts = width, 0, []

    def text(self, x, y, text, anchor="start", colour=INK, weight="normal"):
        self.parts.append(
            f'<text x="{x:.1f}" y="{self.height + y:.1f}" text-anchor="{anchor}" fill="{colour}" '
            f'font-weight="{weight}">{escape(text)}</text>'
        )

    def line(self, points, colour, width=1.0, dash=""):
        path = " ".join(f"{x:.1f},{self.height + y:.1f}" for x, y in points)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>')

    def dot(self, x, y, colour, radius=4.0):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{self.height + y:.1f}" r="{radius}" fill="{colour}"/>')

    def pairs(self, title, rows, low=-1.0, high=1.0):
        """One row a name with two values: guided and unguided."""
        left, right, top, step = 150, self.width - 30, 52, 18
        place = lambda value: left + (min(max(value, low), high) - low) / (high - low) * (right - left)
        bottom = top + step * len(rows)
        self.text(14, 20, title, weight="bold")
        for x, label, colour in ((left, "guided", GUIDED), (left + 90, "unguided, same seed", UNGUIDED)):
            self.dot(x, 35, colour)
            self.text(x + 9, 39, label)
        for k in range(5):
            value = low + (high - low) * k / 4
            self.line([(place(value), top - 6), (place(value), bottom - 4)], GRID)
            self.text(place(value), bottom + 12, f"{value:g}", "middle")
        for n, (name, guided, unguided) in enumerate(rows):
            y = top + step * n + 5
            self.text(left - 12, y + 4, name, "end")
            self.line([(place(unguided), y), (place(guided), y)], "#aaa", 2)
            self.dot(place(unguided), y, UNGUIDED)
            self.dot(place(guided), y, GUIDED)
        self.height += bottom + 34

    def curves(self, title, ticks, curves, chosen=None):
        """Curves of values 0..1 over evenly spaced, labelled settings; `chosen` is the label of the default."""
        left, right, top, bottom = 60, self.width - 190, 40, 190
        across = lambda n: left + (right - left) * n / max(len(ticks) - 1, 1)
        down = lambda value: bottom - min(max(value, 0.0), 1.0) * (bottom - top)
        self.text(14, 20, title, weight="bold")
        for k in range(5):
            self.line([(left, down(k / 4)), (right, down(k / 4))], GRID)
            self.text(left - 8, down(k / 4) + 4, f"{k / 4:g}", "end")
        for n, tick in enumerate(ticks):
            self.text(across(n), bottom + 18, tick, "middle", weight="bold" if tick == chosen else "normal")
            if tick == chosen:
                self.line([(across(n), top), (across(n), bottom)], "#888", 1, "4 3")
        for k, (name, values, colour) in enumerate(curves):
            self.line([(across(n), down(v)) for n, v in enumerate(values)], colour, 2)
            for n, value in enumerate(values):
                self.dot(across(n), down(value), colour, 3)
            self.line([(right + 18, top + 10 + 20 * k), (right + 36, top + 10 + 20 * k)], colour, 2)
            self.text(right + 42, top + 14 + 20 * k, name)
        self.height += bottom + 40

    def write(self, path):
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" font-family="sans-serif" font-size="12">'
        )
        paper = f'<rect width="{self.width}" height="{self.height}" fill="#fff"/>'
        path.write_text("\n".join([head, paper, *self.parts, "</svg>"]) + "\n")
