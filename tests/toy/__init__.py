"""A tiny second family: plain classification. It shows that the harness knows a family only through one object."""

from tests.toy.family import FAMILY

__all__ = ["FAMILY"]
