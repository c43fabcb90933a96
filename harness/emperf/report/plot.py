"""The baseline's learning curve as a small plot of characters."""

from __future__ import annotations

from itertools import pairwise

from emperf.report.numbers import Json

WIDTH, HEIGHT = 36, 8


def curve(matched: Json) -> list[str]:
    """Lines of at most WIDTH + 8 characters. Right: learned more in-domain; down: more misaligned.

    `o` the baseline (base model, checkpoints, trained), `.` the line through them, `X` the mitigated model.
    """
    points = sorted((-p["in_domain"], p["out_of_domain"]) for p in matched["curve"])
    ours = (-matched["mitigated"]["in_domain"], matched["mitigated"]["out_of_domain"])
    xs, ys = zip(*points, ours, strict=True)
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]

    def put(x: float, y: float, mark: str) -> None:
        column = round((x - left) / ((right - left) or 1) * (WIDTH - 1))
        row = round((high - y) / ((high - low) or 1) * (HEIGHT - 1))
        grid[row][column] = mark

    for (x0, y0), (x1, y1) in pairwise(points):
        for part in range(WIDTH):
            put(x0 + (x1 - x0) * part / WIDTH, y0 + (y1 - y0) * part / WIDTH, ".")
    for point in points:
        put(*point, "o")
    put(*ours, "X")
    labels = {0: f"{high:+.2f}", HEIGHT - 1: f"{low:+.2f}"}
    lines = [f"{labels.get(row, ''):>6} |{''.join(cells).rstrip()}" for row, cells in enumerate(grid)]
    axis = f"{-left:+.2f}".ljust(WIDTH - 6) + f"{-right:+.2f}".rjust(6)
    return [*lines, " " * 7 + "+" + "-" * WIDTH, " " * 8 + axis]
