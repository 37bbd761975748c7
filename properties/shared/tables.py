"""Parts of a case's description that families share."""

from collections.abc import Sequence

SHOWN = 25  # most targets in the description of a case


def target_table(targets: Sequence[Sequence[float]]) -> list[str]:
    """Rows of image, class, x, y, w, h as lines of a table."""
    if not targets:
        return ["no targets"]
    header = ("target", "image", "class", "x", "y", "w", "h")
    table = [header, *((str(i), *(f"{v:.9g}" for v in row)) for i, row in enumerate(targets[:SHOWN]))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(v.rjust(w) for v, w in zip(row, widths, strict=True)) for row in table]
    return lines if len(targets) <= SHOWN else [*lines, f"and {len(targets) - SHOWN} more targets"]
