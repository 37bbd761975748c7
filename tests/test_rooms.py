"""The rooms of the house: what may import what, no circle, few floors, a sentence at each door.

docs/develop/architecture.md draws the same picture. Imports are read as text, those inside functions and those for type
checkers only included.
"""

import ast
from functools import lru_cache
from pathlib import Path

from yololoss._suite import FOLDER as ROOT

LOWEST = {"errors", "_suite"}
CASES = {"cases", *LOWEST}
DEVICES = {"devices", *CASES}
SUBJECTS = {"subjects", *DEVICES}
LAWS = {"laws", *SUBJECTS}
FINDINGS = {"findings", *LAWS}
ENGINE = {"engine", "config", *FINDINGS}
# What a room may import beside itself. The v5 loss and the lowest rooms import nothing of ours.
MAY = {
    "v5": set(),
    "tal": {"v5"},
    "yololoss": {"_suite", "v5", "tal", "training"},
    "errors": set(),
    "_suite": set(),
    "config": {"errors", "subjects"},
    "cases": LOWEST,
    "devices": CASES,
    "subjects": DEVICES,
    "laws": SUBJECTS,
    "training": SUBJECTS,
    "findings": LAWS,
    "engine": {"config", *FINDINGS},
    "prove": ENGINE,
    "history": ENGINE,
    "plugin": ENGINE,
    "mend": ENGINE,
    "cli": {"prove", "history", "mend", "training", *ENGINE},
    "__main__": {"cli"},
    "properties.shared": LAWS,
    "properties.v5": {"properties.shared", "prove", "v5", *ENGINE},
    "properties.tal": {"properties.shared", "prove", *ENGINE},
}
FLOORS = 10


@lru_cache
def modules() -> dict[str, Path]:
    """Every module of the package and of the laws, by its dotted name."""
    paths = [*(ROOT / "yololoss").rglob("*.py"), *(ROOT / "properties").rglob("*.py")]
    dotted = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {name.removesuffix(".__init__"): path for path, name in dotted.items() if name != "properties.__init__"}


def room(module: str) -> str:
    """The room that a module is in."""
    parts = module.split(".")
    if parts[0] == "properties":
        return ".".join(parts[:2])
    return (parts[2] if parts[1:2] == ["harness"] and len(parts) > 2 else parts[1]) if len(parts) > 1 else parts[0]


def imports(module: str) -> set[str]:
    """The modules of ours that a module imports."""
    path, found = modules()[module], set()
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            up = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            found |= {f"{base}.{a.name}" if f"{base}.{a.name}" in modules() else base for a in node.names}
    return {name for name in found if name in modules() and name != module}


def graph(of: dict[str, set[str]]) -> list[list[str]]:
    """The floors, lowest first: each node above all that it imports. Raises ValueError for a circle."""
    floors: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(of):
        ready = sorted(node for node in of if node not in placed and of[node] <= placed)
        if not ready:
            raise ValueError(f"a circle among {sorted(set(of) - placed)}")
        floors.append(ready)
        placed |= set(ready)
    return floors


def test_no_arrow_runs_where_the_house_does_not_allow_it():
    """Each import leads to a room that its own may use."""
    wrong = [
        f"{module} imports {other}: {room(module)} may not use {room(other)}"
        for module in modules()
        for other in sorted(imports(module))
        if room(module) not in ("harness", room(other)) and room(other) not in MAY[room(module)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_way_of_others():
    """No circle, not even through an import inside a function."""
    assert graph({module: imports(module) for module in modules()})


def test_the_house_has_at_most_ten_floors():
    """A room stands above all rooms that it imports."""
    rooms: dict[str, set[str]] = {}
    for module in modules():
        mine = rooms.setdefault(room(module), set())
        mine |= {room(other) for other in imports(module)} - {room(module)}
    floors = graph(rooms)
    assert len(floors) <= FLOORS, floors


def test_every_room_has_a_sentence_at_its_door():
    """What lives here, and what may not."""
    for module, path in modules().items():
        if path.stem == "__init__":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), module
