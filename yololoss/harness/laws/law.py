"""The registry of all laws, the decorator that adds to it, and how it is searched."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis.strategies import SearchStrategy

from yololoss import _suite
from yololoss.harness.cases.case import Case
from yololoss.harness.cases.vectors import as_name
from yololoss.harness.errors import UsageError, closest
from yololoss.harness.laws.exam import Exam, Law, Run
from yololoss.harness.subjects.family import Family, LossUnderTest, family_of_package, find_family

SHARED = "shared"
LAWS: dict[str, dict[str, Law]] = {}  # family name or SHARED: law id: law
SEED = 20261122  # of all that is drawn in the same way in every run
# For tests that other tools run, and for cases that are drawn apart from a session. No database: Hypothesis keys it by
# the test's source, and findings are saved in case files.
DRAWING = hypothesis.settings(
    max_examples=100,
    database=None,
    deadline=None,  # a slow machine is no fault of the loss
    report_multiple_bugs=False,  # one law, one finding
    print_blob=False,
    verbosity=hypothesis.Verbosity.quiet,  # the finding prints the case, in full
)


def drawn(strategy: SearchStrategy[Any], count: int, seed: int = SEED) -> list[Case]:
    """At most ``count`` cases of a strategy, the same in every run."""
    found: list[Case] = []

    def collect(case: Case) -> None:
        found.append(case)

    limits = hypothesis.settings(DRAWING, max_examples=count, phases=[hypothesis.Phase.generate])
    hypothesis.seed(seed)(limits(hypothesis.given(case=strategy)(collect)))()
    return list(dict.fromkeys(found))


def law(
    id: str,
    *,
    title: str = "",
    source: str,
    cases: SearchStrategy[Any] | str | tuple[Case, ...] | None,
    only: Mapping[str, str | tuple[str, ...]] | None = None,
    again: bool = False,
    on: tuple[str, ...] = (),
    infinite: bool = False,
    several: bool = False,
    everywhere: bool = False,
) -> Callable[[Callable[[Exam], str | None]], Callable[..., None]]:
    """Register the decorated judgement as a law, and make a test of it.

    The law belongs to the family in whose package it is written, or to all families (``properties/shared``). The
    judgement takes an `Exam`. It breaks the law by `Exam.expect`, `Exam.fail` and similar methods; a string that it
    returns is a note for the table of laws. The first paragraph of its docstring is the law's statement.

    ``id`` is the law's part, a dot and a name. ``title`` says in a sentence what is wrong if the law is broken; without
    it, that the statement does not hold. ``source`` says where the law comes from, such as a section of the
    specification. ``cases`` is the strategy that draws its cases, a name in `Family.shared_cases`, a tuple of cases, or
    None for the recorded cases of the subject. ``only`` says which dialects the law is about, by the option, or the
    options, of some choices; without it, all. ``again`` says that the law runs the loss again, so that it judges only a
    share of the cases. ``on`` names the kinds of device that the law is about; empty means all. With ``infinite`` it
    also judges NaN and infinity; other laws do not. ``several`` says that it tells faults apart, by the ``kind`` that
    it gives to `Exam.expect` or `Exam.fail`: each kind is a finding of its own. ``everywhere`` says that it holds for
    every valid case, and that its cases are only those on which it is judged: then it may explain why another law
    broke.

    Raises ValueError for an id that exists or has an unknown part, and for an unknown choice in ``only``.
    """

    def decorate(judge: Callable[[Exam], str | None]) -> Callable[..., None]:
        family = family_of_package(judge.__module__.rpartition(".")[0])
        known = LAWS.setdefault(family.name if family else SHARED, {})
        if id in known or id in LAWS.get(SHARED, {}):
            raise ValueError(f"law {id!r}: two judgements have this id")
        if family and id.partition(".")[0] not in family.parts:
            raise ValueError(f"law {id!r}: an id begins with its part (one of {', '.join(family.parts)}) and a dot")
        if as_name(id) != id:
            raise ValueError(f"law {id!r}: an id has at most 100 letters, digits, '.', '_' and '-'")
        statement = " ".join((judge.__doc__ or "").split("\n\n")[0].split())
        choices = type(family.dialects[family.usual_dialect]).model_fields if family else {}
        unknown = [choice for choice in only or () if choice not in choices]
        if unknown:
            raise ValueError(f"law {id!r}: no such choice as {unknown[0]!r} (known: {', '.join(choices)})")
        entry = known[id] = Law(
            id,
            statement,
            title or f"This does not hold: {statement}",
            source,
            family,
            judge,
            cases,
            only or {},
            again,
            on,
            infinite,
            several,
            everywhere,
        )

        def examine(subject: LossUnderTest, case: Case) -> None:
            entry.examine(Run(subject, case))

        def examine_all(subject: LossUnderTest) -> None:
            strategy = entry.strategy(subject.family)
            for case in entry.own(subject) if strategy is None else drawn(strategy, DRAWING.max_examples):
                examine(subject, case)

        # The plugin has laws judged by a session. Other tools, and tests without it, run this function.
        test: Callable[..., None] = examine if isinstance(cases, SearchStrategy) else examine_all
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(test, name, getattr(judge, name))
        test = DRAWING(hypothesis.given(case=cases)(test)) if isinstance(cases, SearchStrategy) else test
        examined: Callable[..., None] = pytest.mark.law(entry)(test)
        return examined

    return decorate


def find_laws(family: Family, patterns: Iterable[str] = ()) -> dict[str, Law]:
    """The laws of a family by id, in the order in which they run.

    A pattern is an id, the beginning of an id before a dot, or a glob such as ``totals.*-gain``. Without patterns, all
    laws. Raises UsageError, one line with the closest match, for a pattern that fits no law.
    """
    for package in (_suite.SHARED, family.package):
        for path in sorted(Path(import_module(package).__path__[0]).glob("test_*.py")):
            import_module(f"{package}.{path.stem}")
    found_laws = LAWS.get(SHARED, {}) | LAWS.get(family.name, {})
    known = dict(sorted(found_laws.items(), key=lambda entry: entry[1].place(family)))
    wanted = list(patterns)
    found: set[str] = set()
    for pattern in wanted:
        fits = {id for id in known if id == pattern or id.startswith(f"{pattern}.") or fnmatchcase(id, pattern)}
        if not fits:
            parts = {id.partition(".")[0] for id in known}
            others = (
                name for name in _suite.FAMILIES if name != family.name and pattern in find_laws(find_family(name))
            )
            if other := next(others, None):
                raise UsageError(
                    f"--laws {pattern}: a law of the family {other}; the loss is of the family {family.name}"
                )
            hint = closest(pattern, (*known, *parts)) or "; yololoss laws lists them"
            raise UsageError(f"--laws {pattern}: no such law{hint}")
        found |= fits
    return {id: law for id, law in known.items() if not wanted or id in found}
