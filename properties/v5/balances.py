"""The balance that a loss is found to have, from the weight of each layer at each number of layers."""

from collections.abc import Iterable, Mapping

import numpy as np

from .dialects import DIALECTS, Dialect, Table, Tables
from .reference import Reference
from .trials import case_of

MOST_LAYERS = 6
NEAR = 2e-6  # relative error of a weight that is read off float32 gradients


def layer_weights(dialect: Dialect) -> dict[int, Table]:
    """The weight of each layer's objectness, by number of layers, as far as the balance goes."""
    tables = {n: dialect.balance_of(n)[:n] for n in range(1, MOST_LAYERS + 1)}
    scales = {n: Reference(case_of((), layers=n), dialect).scales[1] for n in tables}
    return {n: tuple(scales[n] * weight for weight in table) for n, table in tables.items() if len(table) == n}


def has_weights(dialect: Dialect, weights: Mapping[int, Table]) -> bool:
    """Whether a dialect has these weights. Other numbers of layers, for which a loss gave none, do not matter."""
    own = layer_weights(dialect)
    return all(n in own and np.allclose(own[n], table, rtol=NEAR) for n, table in weights.items())


def balanced(dialect: Dialect, weights: Mapping[int, Table]) -> Dialect:
    """The dialect with the balance that is left of the weights when its own factors are taken out."""
    ones = layer_weights(dialect.but(balance=1.0))
    tables = {n: tuple(shortest(weight / ones[n][0]) for weight in table) for n, table in weights.items()}
    return dialect.but(balance=_as_known(tables, (dialect.layers,) if dialect.layers else range(1, MOST_LAYERS + 1)))


def _as_known(tables: Mapping[int, Table], layers: Iterable[int]) -> Table | float | Tables:
    """A balance with these tables by number of layers, of those that matter: a known one, or the shortest."""
    for each in DIALECTS.values():
        shown = {n: each.balance_of(n)[:n] for n in layers}
        if {n: table for n, table in shown.items() if len(table) == n} == tables:
            return each.balance
    longest = tables[max(tables)]
    other = {str(n): table for n, table in tables.items() if table != longest[:n]}
    usual = longest[0] if len({*longest}) == 1 else longest
    return {**other, "else": usual} if other else usual


def oddity(dialect: Dialect) -> int:
    """How many digits a balance has; 0 for a known one."""
    if any(dialect.balance == each.balance for each in DIALECTS.values()):
        return 0
    tables = dialect.balance.values() if isinstance(dialect.balance, dict) else [dialect.balance]
    return len("".join(repr(table) for table in tables))


def shortest(value: float) -> float:
    """The shortest number that is as near as rounding leaves it."""
    for digits in range(1, 7):
        if abs((near := float(f"{value:.{digits}g}")) - value) <= NEAR * abs(value):
            return near
    return value
