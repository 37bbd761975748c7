"""Make the pictures of the docs: ``python docs/make_pictures.py``."""

from pathlib import Path

from yololoss.harness.draw import draw
from yololoss.harness.vectors import read_vectors

DOCS = Path(__file__).parent


def make(folder: Path) -> list[Path]:
    """Draw every picture that the docs show into ``folder``."""
    (vector,) = read_vectors(DOCS.parent / "golden" / "article.json").vectors
    path = folder / "guided-example.svg"
    draw(vector.case, path, "The guided example: targets (dotted: no anchor met) and the cells that answer for them")
    return [path]


if __name__ == "__main__":
    for made in make(DOCS):
        print(made)
