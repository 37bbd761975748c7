"""Files that a stranger may have made, and what commands do with them: ``python -m tests.hostile FOLDER [NAME]``.

Runs commands on each file in one process, and prints for each a line of JSON. Reports the memory used at the end. Each
file is given to every fourth command, another one for the next file; to all of them with ``every`` as the name.
"""

import copy
import gc
import json
import resource
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from properties.v5.case import LARGEST as LOGITS
from properties.v5.case import LAYERS, PAIRS
from tests.test_cli import run
from tests.test_files import CASE, GOOD, MALFORMED, OVERRIDE, changed
from yololoss.harness.cases.files import LARGEST

NAMES = (
    "../../x",
    "/tmp/outside-yololoss",
    "a/b",
    "a\\b",
    "..",
    ".",
    "...",
    "",
    "a\nb",
    "a\x00b",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a b",
    "é",
    "a" * 101,
    "-rf /",
    "$(touch x)",
    "\u202egnp.x",
)
TEXTS = (
    "\x1b[2J",
    "two\nlines",
    "\x00",
    "\x9b31m",
    "\u202eleft",
    "$\\frac{",
    "\ufffe",
    "<script>",
    "{{ 7 * 7 }}",
    "目",
)
TWICE = ('"id": "a"', '"version": 1', '"batch": 1', '"seed": 3', '"box": 0.05', '"project": "x"')


def many(count: int, layers: int = 1, anchors: int = 1, side: int = 8) -> dict[str, Any]:
    """A file with a case of that many targets, layers and anchors."""
    file = copy.deepcopy(GOOD)
    targets = [[0.0, 1.0, (n % 97 + 0.5) / 97, (n % 89 + 0.3) / 89, 0.2, 0.3] for n in range(count)]
    file["vectors"][0]["case"] |= {
        "grids": [[side, side]] * layers,
        "strides": [8.0] * layers,
        "anchors": [[[1.0, 1.5]] * anchors] * layers,
        "targets": targets,
    }
    return file


def refused() -> dict[str, str]:
    """Texts of files that every command refuses, by a name."""
    found = {f"malformed-{n}": text for n, text in enumerate(MALFORMED)}
    for place in (("vectors", 0, "id"), ("vectors", 0, "law"), ("family",), ("broken",)):
        for n, name in enumerate(NAMES):
            found[f"{place[-1]}-{n}"] = changed(place, [name] if place == ("broken",) else name)
    text = json.dumps(GOOD)
    found |= {f"twice-{n}": text.replace(part, f"{part}, {part}") for n, part in enumerate(TWICE)}
    found |= {f"key-{n}": changed(("vectors", 0, "case", name), 1) for n, name in enumerate(TEXTS)}
    return found | {
        "layers": json.dumps(many(1, LAYERS + 1)),
        "pairs": json.dumps(many(PAIRS + 1)),
        "anchors": json.dumps(many(2, 1, PAIRS)),
        "logits": changed((*CASE, "grids"), [[LOGITS, 1]]),
        "long-key": changed(("vectors", 0, "x" * 10**6), 1),
        "digits": changed((*CASE, "batch"), 3).replace('"batch": 3', f'"batch": {"9" * 10**5}'),
        "family-of-nobody": changed(("family",), "x" * 100),
    }


def accepted() -> dict[str, str]:
    """Texts of files that are read, but are large, odd or hostile in what they say."""
    found = {f"comment-{n}": changed(("vectors", 0, "comment"), text) for n, text in enumerate(TEXTS)}
    for n, value in enumerate(("1e999", "NaN", '"nan"', "-1e999", "1e300", "-5.0")):
        found[f"target-{n}"] = changed((*CASE, "targets"), [[0.0, 1.0, 0.5, 0.75, 0.2, 0.3]]).replace("0.75", value)
    return found | {
        "no-law": changed(("vectors", 0, "law"), None),
        "law-of-nobody": changed(("vectors", 0, "law"), "totals.nobody"),
        "no-vector": changed(("vectors",), []),
        "no-target": changed((*CASE, "targets"), []),
        "long-comment": changed(("vectors", 0, "comment"), "x" * 10**6),
        "many-layers": json.dumps(many(4, LAYERS)),
        "many-targets": json.dumps(many(PAIRS // 9, 3, 3, 80)),
        "many-anchors": json.dumps(many(20, 1, PAIRS // 20)),
        "many-flags": changed(("vectors", 0, "flags"), [""] * 10**6),
        "many-sources": changed(("source",), {str(n): "" for n in range(10**5)}),
        "many-vectors": json.dumps({**GOOD, "vectors": [{**GOOD["vectors"][0], "id": f"v{n}"} for n in range(200)]}),
        "wide": changed((*CASE, "grids"), [[1, 2**21]]),
        "widest": changed((*CASE, "grids"), [[LOGITS // 7, 1]]),
    }


HUGE = {
    "vectors": (("vectors",), "{}"),
    "flags": (("vectors", 0, "flags"), '""'),
    "targets": ((*CASE, "targets"), "[0.0,1.0,0.5,0.5,0.2,0.3]"),
    "no-targets": ((*CASE, "targets"), "[]"),
    "overrides": ((*CASE, "predictions", "overrides"), json.dumps(OVERRIDE)),
    "no-overrides": ((*CASE, "predictions", "overrides"), "{}"),
    "gradients": (("vectors", 0, "expected"), '{"values": 0}'),
    "values": (("vectors", 0, "expected", "gradients", 0, "values"), "[0.5]"),
}

SHARE = 4  # of the commands, for each file


def huge(name: str) -> str:
    """The text of a file of nearly the largest size. Most are refused, some are valid."""
    place, unit = HUGE[name]
    gradient = {"cells": [], "values": [], "obj_sum": 0.0, "obj_abs_sum": 0.0}
    text = changed(("vectors", 0, "expected"), {"gradients": [gradient]})
    text = changed(place, "?", json.loads(text))
    return text.replace('"?"', f"[{','.join([unit] * (LARGEST * 9 // 10 // (len(unit) + 1)))}]")


def commands(name: str, *, good: bool) -> Iterator[tuple[object, ...]]:
    """The commands that read the file, or a folder with it; of a good file, those that take a second."""
    yield "draw", f"{name}/f.json", "-o", "out/a.png"
    yield "draw", f"{name}/f.json"
    yield "replay", f"{name}/f.json", "--memory", 1500, "--limit", 9, "--findings", "out"
    yield "explain", f"{name}/f.json", "--memory", 1500, "--limit", 9, "--for", "1s", "--findings", "out"
    yield "mend", "--case", f"{name}/f.json", "--for", "1s", "--findings", "out"
    yield "replay", f"{name}/f.json", "--export", "pytest", "--limit", 9, "--findings", "out", "--json"
    yield "corpus", "list", name
    yield "corpus", "list", name, "--json"
    yield "corpus", "merge", "merged", name
    yield "corpus", "promote", name, "a", "-o", "out/promoted.json"
    yield "check", "--baseline", f"{name}/gone" if good else f"{name}/f.json", "--laws", "totals.sum"
    if not good:
        yield "corpus", "minimise", name
        yield "check", "--corpus", name, "--laws", "totals.sum", "--findings", "out"
        yield "record", "yololoss:ComputeLoss", "--case", f"{name}/f.json", "-o", "out/b.json"
        yield "fuzz", "--corpus", name, "--out", "out/fuzz", "--cases", 1


def main(folder: Path, name: str = "") -> None:
    """Make the files in the folder, or the huge file of that name, and run the commands there."""
    one, step = name in HUGE, 1 if name else SHARE
    kinds = {"huge": {name: huge(name)}} if one else {"refused": refused(), "accepted": accepted()}
    for kind, texts in kinds.items():
        for number, (each, text) in enumerate(texts.items()):
            path = folder / each / "f.json"
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")
            for command in islice(commands(each, good=kind == "accepted"), number % step, 4 if one else None, step):
                start = time.process_time()
                status, output, errors = run(*command, cwd=folder)
                told = {"kind": kind, "status": status, "output": output[: 10**4], "errors": errors[: 10**4]}
                told |= {"command": command, "processor": time.process_time() - start}
                print(json.dumps(told), flush=True)
                if one:  # as if each command had a process of its own
                    gc.collect()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"files": len(list(folder.rglob("f.json"))), "MiB": used}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
