"""The assignment of a batch, which says of itself why each anchor has its target."""

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Bool, Float, Float32
from torch import Tensor

from yololoss.tal.assign import Owners, Pairs
from yololoss.tal.boxes import Anchors
from yololoss.tal.inputs import Targets


@dataclass(frozen=True, eq=False)
class Assignment:
    """The target of every anchor, and every step that led to it. B images, A anchors, T targets.

    Anchors are numbered through the levels: level after level, row after row, columns fastest. ``owners.row`` is the
    row of the anchor's target in the batch, and T in the background; so T is also the last entry of ``targets``, which
    is that of no target. ``metric`` and ``overlap`` are those of the anchor with that target.
    """

    grids: tuple[tuple[int, int], ...]  # rows H, columns W of each level
    anchors: Anchors
    targets: Targets
    owners: Owners
    metric: Float[Tensor, "B A"]
    overlap: Float32[Tensor, "B A"]
    score: Float[Tensor, "B A"]  # what the class logit at the target's class should predict
    unusable: Bool[Tensor, "B A"]  # a candidate whose predicted box is not finite: the loss is NaN
    pairs: Pairs | None  # from `TaskAlignedLoss.assign`

    def explain(self) -> list[str]:
        """One line for each target, followed by one for each of its candidates: how good it is, and what became of it.

        Empty if the assignment is without pairs.
        """
        if self.pairs is None:
            return []
        return [line for row in range(len(self.pairs.candidate)) for line in self._target(row, self.pairs)]

    def _target(self, row: int, pairs: Pairs) -> Iterator[str]:
        image, cls = int(self.targets.image[row]), int(self.targets.cls[row])
        if not self.targets.present[row]:
            yield f"target {row} is left out: no such image or class, or no box of finite size"
            return
        corners = ", ".join(f"{v:.4g}" for v in self.targets.box[row].tolist())
        found = pairs.candidate[row].nonzero().flatten().tolist()
        owned = int((self.owners.row[image] == row).sum())
        yield (
            f"target {row}: image {image}, class {cls}, corners ({corners}): "
            f"{len(found)} candidates, {int(pairs.chosen[row].sum())} chosen, {owned} in the end"
        )
        for anchor in found:
            yield (
                f"  anchor {anchor} ({self._place(anchor)}): overlap {pairs.overlap[row, anchor]:.4g}, "
                f"metric {pairs.metric[row, anchor]:.4g}, {self._fate(row, image, anchor, pairs)}"
            )

    def _place(self, anchor: int) -> str:
        level, first = 0, 0
        for rows, columns in self.grids[:-1]:
            if anchor < first + rows * columns:
                break
            level, first = level + 1, first + rows * columns
        row, column = divmod(anchor - first, self.grids[level][1])
        return f"level {level}, row {row}, column {column}"

    def _fate(self, row: int, image: int, anchor: int, pairs: Pairs) -> str:
        if self.unusable[image, anchor]:
            return "its predicted box is not finite"
        owner, chosen = int(self.owners.before_topk2[image, anchor]), bool(pairs.chosen[row, anchor])
        contested = bool(self.owners.contested[image, anchor])
        if owner != row:
            return f"chosen, lost to target {owner}" if chosen else "not among the best"
        how = ("chosen, won" if contested else "chosen") if chosen else "not among the best, inherited"
        if self.owners.row[image, anchor] != row:
            return f"{how}, not among the best of its own"
        return f"{how}: score {self.score[image, anchor]:.4g}"
