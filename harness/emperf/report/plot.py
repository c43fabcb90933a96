"""The baseline's learning curve as a small plot made of characters, with its uncertainty."""

from __future__ import annotations

from itertools import pairwise

from emperf.report.numbers import Json

WIDTH, HEIGHT = 36, 10


def curve(points: list[Json]) -> list[str]:
    """Lines of at most WIDTH + 8 characters. Right: learned more in-domain; down: more misaligned.

    `points`: as of a poison's entry of result.json. `o` the baseline (base model, checkpoints, trained), `.` the line
    through them, `|` the 95 % interval of each one's EM, `X` the mitigated model.
    """
    baseline = [(0.0, 0.0, 0.0, 0.0)]
    mitigated: list[tuple[float, float, float, float]] = []
    for point in points:
        em = point["em"]
        place = (-point["in_domain"]["value"], em["value"], em["low"], em["high"])
        (mitigated if point["who"] == "mitigated" else baseline).append(place)
    baseline.sort()
    every = [*baseline, *mitigated]
    left, right = min(x for x, *_ in every), max(x for x, *_ in every)
    low, high = min(y for *_, y, _ in every), max(y for *_, y in every)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]

    def put(x: float, y: float, mark: str) -> None:
        column = round((x - left) / ((right - left) or 1) * (WIDTH - 1))
        row = round((high - y) / ((high - low) or 1) * (HEIGHT - 1))
        grid[row][column] = mark

    for (x0, y0, *_), (x1, y1, *_) in pairwise(baseline):
        for part in range(WIDTH):
            put(x0 + (x1 - x0) * part / WIDTH, y0 + (y1 - y0) * part / WIDTH, ".")
    for x, _, bottom, top in every:
        for part in range(HEIGHT + 1):
            put(x, bottom + (top - bottom) * part / HEIGHT, "|")
    for x, y, *_ in baseline:
        put(x, y, "o")
    for x, y, *_ in mitigated:
        put(x, y, "X")
    labels = {0: f"{high:+.2f}", HEIGHT - 1: f"{low:+.2f}"}
    lines = [f"{labels.get(row, ''):>6} |{''.join(cells).rstrip()}" for row, cells in enumerate(grid)]
    axis = f"{-left:+.2f}".ljust(WIDTH - 6) + f"{-right:+.2f}".rjust(6)
    return [*lines, " " * 7 + "+" + "-" * WIDTH, " " * 8 + axis]
