"""Why the mutants that nothing notices are no faults."""

from collections.abc import Iterable, Iterator

from tests.mutants import Mutant

Arguments = dict[str, tuple[str, ...]]  # reason: the changes, each how what `Mutant` prints ends
OF_V5: Arguments = {
    "No centre inside the image has a cell before the first, so nothing is clamped from below.": (
        "cell = shifted.long().clamp(min= -1).minimum(last)",
        'if [int(v) for v in shifted] <= cell else f", clamped from {tuple(map(int, shifted))}"',
    ),
    "What is put together has the same length in every case; what is more, nothing takes.": (
        "zip(*map(_read, p, assigned), strict=False)",
        "zip(*map(_read, p, assigned))",
        "zip(*layers, strict=False)",
        "zip(*layers)",
        "for grid, each in zip(grids, fields, strict=False)]",
        "for grid, each in zip(grids, fields)]",
        "zip(obj, self.balance))",
        '*("a finite number above 0",) * 3,',
        "self.shifted.tolist(), strict=False)",
        "self.cell.tolist(), self.shifted.tolist())",
    ),
    "One layer is the first and the last; every layer may have as many rows as the others.": (
        "return assign_layers(targets, anchors[None], [grid], anchor_t, every_row=every_row)[ -1]",
        "counts = [made[ -1].numel()] * len(grids) if every_row else made.sum((1, 2, 3)).tolist()",
    ),
    "A tensor gives its parts along the first dimension as unbind does.": (
        "{name: values for name, values in of_targets.items()}",
    ),
    "A positive weight is above 0, and a weight of 1 changes nothing.": (
        "weight = None if pos_weight == 0 else torch.tensor([pos_weight], device=device)"
        "  # 1 changes nothing, and takes time",
    ),
    "A number too many is read and not used.": ("centre = self.scaled[self.target, : 3].tolist()",),
    "It is compared, and nothing that has a gradient is made of it.": ("->  values = targets",),
    "Only a whole number equals its floor, or its ceiling, and none is below its floor.": (
        "(index == index.ceil())),",
        "(index <= index.floor())),",
    ),
    "The predictions of all layers have the same batch; the checks before see to it.": (
        "(box + obj + cls) * p[ -1].shape[0]",
        "check_targets(targets, batch=p[ -1].shape[0], classes=self.nc, device=self.device)",
    ),
    "Objectness targets are 0 or more, as is the grid they are compared with.": (
        'values, "amax", include_self=True)',
        "values, 'amax')",
    ),
    "A tensor of one dimension has its first dimension last.": (
        'grid.scatter_reduce_( -1, cell, values, "amax", include_self=False)',
        'scatter_reduce_( -1, cell, number, "amax")',
        "grid.scatter_( -1, cell, values[last[cell]])",
    ),
    "Nothing here is done in half precision under autocast; it is switched off for what torch may add to its list.": (
        "with torch.autocast(device.type, enabled=True):",
        "with torch.autocast(device.type):",
        "->  if True:",
    ),
    "torch takes a number without dimensions from the CPU to where it is used.": (
        "->  others = torch.full((), self.cn, dtype=dtype)  # of two numbers torch would make float32",
    ),
    "One more cell is cut off, and so is another.": ("grid = objectness.new_zeros(cells + 2)",),
    "A decorator for readers and type checkers.": ("@override  ->  ",),
    "Taken from its class, and not from an instance, it is a function either way.": ("@staticmethod  ->  ",),
    "Only how the objectness lies in memory, and how fast it is read: nothing writes into it.": (
        "->  return logits[..., OBJECTNESS], logits[indices]",
        "->  return logits[..., OBJECTNESS].clone(), logits[indices]",
    ),
    "Of the one number at the limit, the smallest that is normal, the power is right either way.": (
        "positive = base >= torch.finfo(base.dtype).tiny",
    ),
    "Where the power is not chosen it has no gradient either.": (
        "torch.where(positive, base, torch.zeros_like(base)) ** gamma",
    ),
    "A tensor without dimensions is printed as its number.": (
        "for a, t in torch.cartesian_prod(*map(torch.arange, self.ratio.shape)):",
        "->  centre = self.scaled[self.target, :2]",
        "->  target = self.target",
        "zip(self.row_choice, self.cell.tolist(), self.shifted.tolist(), strict=True)",
        "zip(self.row_choice.tolist(), self.cell.tolist(), self.shifted, strict=True)",
        "->  row, column = bad.nonzero()[0]",
        'f"got {targets[row, column]:.9g}" + (f" ({more} more bad rows)" if more else "")',
    ),
    "Only how arguments may be handed over; no value changes.": (
        "def check_predictions(p: object, /, layers: int, anchors: int, classes: int, device: torch.device) -> None:",
        "targets: object, /, batch: int, classes: int, device: torch.device, names: Sequence[str] = NAMES",
        "box2: Boxes, /, corners: bool = False, eps: float = EPS) -> Scalars:",
        "*,  ->  /,",
    ),
    "From 29 on the angle is its limit, and its slope 0, but for rounding.": (
        "u.clamp(- 31, 30).exp().atan()",
        "u.clamp(- 29, 30).exp().atan()",
        "u.clamp(-30, 31).exp().atan()",
        "u.clamp(-30, 29).exp().atan()",
    ),
    "The overlap of two boxes is that of the two the other way round.": (
        "o = _overlap(box2, box1, corners, eps)",
        "return _overlap(box2, box1, corners, eps).iou",
    ),
    "The reduction is mean or sum here.": ('<= "mean" else weighted.sum()',),
    "Two numbers multiplied, or dtypes joined, the other way round.": (
        "zip(self.balance, obj, strict=False))",
        "torch.promote_types(torch.float32, logits.dtype)",
    ),
    "The larger, or smaller, of two numbers is that of the two the other way round.": (
        "0.0001 / max(AUTOBALANCE_FLOOR, loss)",
        "min(torch.finfo(logits.dtype).max, 1e+30)",
        "torch.maximum(high2, high1) - torch.minimum(low1, low2),",
        "torch.maximum(high1, high2) - torch.minimum(low2, low1),",
        "_area((torch.minimum(high2, high1) - torch.maximum(low1, low2)).clamp(min=0))",
        "_area((torch.minimum(high1, high2) - torch.maximum(low2, low1)).clamp(min=0))",
        "torch.maximum(1 / side_ratio, side_ratio).amax(-1)",
    ),
}


OF_TAL: Arguments = {
    "A side has one bin or more; predictions in a mapping are boxes and scores.": (
        "if bins <= 1:",
        'meaning = "4 reg_max" if name <= "boxes" else "classes"',
    ),
    "A union below 0 has a side below 0, so nothing in common with anything: 0 whatever it is divided by.": (
        "torch.where(union <= 0, EPS, union)  # 0 only if a side is negative, where nothing is in common",
    ),
    "Of so few numbers, float32 and float64 differ by a rounding, which the budget allows.": (
        'wide = torch.float32 if values[0].device.type >= "mps" else torch.float64  # which has no float64',
    ),
    "All of them lie on the same device, and have the same dtype.": (
        'wide = torch.float32 if values[ -1].device.type == "mps" else torch.float64  # which has no float64',
        "return function(*(value.to(wide) for value in values)).to(values[ -1].dtype)",
    ),
    "What is put together has the same length in every case; what is more, nothing takes.": (
        "for (rows, columns), stride in zip(grids, strides, strict=False):",
        "for (rows, columns), stride in zip(grids, strides):",
        "for i, (grid, stride) in enumerate(zip(grids, strides, strict=False)):",
        "for i, (grid, stride) in enumerate(zip(grids, strides)):",
        "for cells, first in zip(grid, grids[0], strict=False):",
        "for cells, first in zip(grid, grids[0]):",
        "zip(fractions.unbind(1), (width, height) * 2, strict=False))",
        "zip(fractions.unbind(1), (width, height) * 2))",
        "return total, dict(zip(names, items.unbind(), strict=False))",
        "return total, dict(zip(names, items.unbind()))",
        "return total, dict(zip(names, items, strict=True))",
        "weighted = [term * gain for term, gain in zip(self._terms(read, batch), gains)]",
        "weighted = [term * gain for term, gain in zip(self._terms(read, batch), gains, strict=False)]",
    ),
    "Four numbers in three parts are two and two, as in two parts.": (
        "near, far = distance.chunk( 3, dim=-1)",
        "near, far = corners.chunk( 3, dim=-1)",
        "low, high = box.chunk( 3, dim=-1)",
    ),
    "The usual dtype is float32; with another one more digits are kept.": (
        "y = torch.arange(rows, device=device) + 0.5",
        "x = torch.arange(columns, device=device) + 0.5",
        "pixels.append(torch.full((rows * columns,), stride, device=device))",
    ),
    "Whole numbers times floating-point numbers have the dtype of these.": (
        "torch.arange(bins, device=logits.device)[:, None]).sum(-2)",
    ),
    "The larger, or smaller, of two numbers is that of the two the other way round.": (
        "if abs(cells * stride - first * strides[0]) >= max(strides[0], stride) and i:",
        "across = torch.maximum(right2, right1) - torch.minimum(left1, left2)",
        "across = torch.maximum(right1, right2) - torch.minimum(left2, left1)",
        "left = max(0, 1 - self.updates / max(self.epochs - 1, 1))",
        "left = max(1 - self.updates / max(1, self.epochs - 1), 0)",
        "self.o2o = max(0, self.total - self.o2m)",
        "k = min(metric.shape[1], k)",
        "size = min(len(score), most * (len(assigned.targets.image) - 1))",
        "size = max(1, PAIRS // self.shape[1])",
        "some = max(1, LOGITS // (channels * number))",
        "targets, predicted.float(), read.scores, anchors, strides[min(len(strides) - 1, 1)], self.assigner",
        "return self.topk if self.topk2 is None else min(self.topk2, self.topk)",
        "return (slice(start, min(self.rows, start + size)) for start in range(0, max(self.rows, 1), size))",
        "return (slice(start, min(start + size, self.rows)) for start in range(0, max(1, self.rows), size))",
        "down = torch.maximum(bottom2, bottom1) - torch.minimum(top1, top2)",
        "down = torch.maximum(bottom1, bottom2) - torch.minimum(top2, top1)",
        "common = (torch.minimum(right2, right1) - torch.maximum(left1, left2)).clamp(min=0) * (",
        "common = (torch.minimum(right1, right2) - torch.maximum(left2, left1)).clamp(min=0) * (",
        "->  torch.minimum(bottom2, bottom1) - torch.maximum(top1, top2)",
        "->  torch.minimum(bottom1, bottom2) - torch.maximum(top2, top1)",
    ),
    "Two numbers multiplied, or dtypes joined, the other way round.": (
        "weighted = [term * gain for term, gain in zip(gains, self._terms(read, batch), strict=True)]",
        "return torch.promote_types(torch.float32, torch.promote_types(self.boxes.dtype, self.scores.dtype))",
        "return torch.promote_types(torch.promote_types(self.scores.dtype, self.boxes.dtype), torch.float32)",
        "zip((width, height) * 2, fractions.unbind(1), strict=True))",
        "score = rounded_once(torch.sigmoid, logits.to(torch.promote_types(torch.float32, logits.dtype)))",
    ),
    "Such tensors have two dimensions, or four: what is first from the end has a number from the start, too.": (
        'tuple((f.shape[+2], f.shape[-1]) for f in preds["feats"]))',
        "low, high = box.chunk(2, dim=+1)",
        "return torch.cat((centre - half, centre + half), dim=+1)",
        "limit = metric.topk(k).values[:, -1:]",
        "return -(near * at_lower + (1 - near) * at_upper).squeeze(-1).mean(+1)",
    ),
    "It has one dimension.": (
        "slot = torch.where(found, found.cumsum( -1) - 1, size)",
        "at = at.scatter_( -1, slot, torch.arange(len(score), device=score.device))[:size]",
        'values.new_zeros(self.rows + 1).scatter_reduce_( -1, slots, values.flatten(), "amax")[owner]',
    ),
    "A slot, or a row, more is one that nothing takes.": (
        'values.new_zeros(self.rows + 2).scatter_reduce_(0, slots, values.flatten(), "amax")[owner]',
        "size = min(most * (len(assigned.targets.image) + 1), len(score))",
        "size = min(most * (len(assigned.targets.image) - 0), len(score))",
        "at = torch.arange(size + 2, device=score.device)",
    ),
    "There is one of them.": (
        "slope = sigmoid.scatter(1, at, own) * grads[ -1]",
        "slope = sigmoid.scatter_(1, at, own).mul_(grads[ -1])",
        "return grads[ -1]",
    ),
    "The results are the same, with one tensor more in memory.": (
        "if torch.is_grad_enabled():  # for a gradient of this one, which asks for the sigmoid as it was  ->  if True:",
        "assigned = self._assign(read, batch, every_pair=True)",
    ),
    "Torch calls these functions on their class; and only readers and type checkers see that one overrides another.": (
        "@staticmethod  ->  ",
        "@override  ->  ",
    ),
    "It has this dtype, or is float32, which is exact in float64; torch casts a gradient to its input's dtype.": (
        "return (bce if weights is None else bce * weights[:, None]).sum()",
        "own = sigmoid.gather(1, at) - score[:, None]",
        "own = bce.gather(1, at) - score[:, None] * x.gather(1, at).clamp(-LIMIT, LIMIT)",
        "return slope if weights is None else slope * weights[:, None], None, None, None, None",
    ),
    "The gradients of the bins of a side sum to 0, but for rounding: so that of a number that all have is 0.": (
        "logits = logits - logits.amax(-1, keepdim=True)",
    ),
    "NaN and 0 have no sign that counts.": ("box = box - torch.where(assigned.unusable.any(), torch.nan, 0.0)",),
    "It decides only how many images are decoded together.": (
        "some = max(LOGITS // (channels + number), 1)",
        "some = max(LOGITS // (channels * number), 2)",
        *(
            f"LOGITS = {n}  # of sides that are decoded together in float64, which bounds the memory"
            for n in ("2*20", "3**20", "1**20", "2** 21", "2** 19")
        ),
    ),
    "By the alphabet, dict comes first, and tensor last.": (
        'if self.returns <= "dict":',
        'return total if self.returns >= "tensor" else total.sum(), items',
    ),
    "log(1 + exp x) is x from 38 on, in float64 too.": (
        "EXACT_SOFTPLUS = 41.0  # beyond, log(1 + exp x) is x, also in float64",
        "EXACT_SOFTPLUS = 39.0  # beyond, log(1 + exp x) is x, also in float64",
    ),
    "It decides only how the numbers lie in memory.": (
        "self.predicted = bounded(predicted).movedim(2, 1).contiguous().movedim(2, 1)",
        "self.predicted = bounded(predicted).movedim(2, 1).movedim(1, 2)",
        "return torch.cat(list(parts)).movedim(2, 1)",
        "self.predicted = bounded(predicted).movedim(1, 2).contiguous().movedim(1, 2)",
    ),
    "CIoU is the same of two boxes the other way round: sums, and the square of a difference of angles. So is L1.": (
        "box = (1 - ciou(rows.wanted, bounded(corners_around(rows.point, distance)))) * rows.score",
        "if reg_max > 1 else relative_distance(wanted, distance, rows.stride, size)",
        "overlap = ciou(self.predicted[image], box[:, None], self.target_angle[some, None], self.angle[image])",
        "overlap = ciou(box[:, None], self.predicted[image], self.angle[image], self.target_angle[some, None])",
        "overlap = ciou(self.predicted, self.targets.box[owner], self.target_angle[owner], self.angle)",
        "overlap = ciou(self.targets.box[owner], self.predicted, self.angle, self.target_angle[owner])",
    ),
    "In float64, two metrics that float32 rounds to one are told apart, where either is right.": (
        "metric = self.of_owners(owner)[0]",
        "return Pairs(candidate, overlap, metric, best(metric, candidate, self.settings.topk))",
    ),
    "An anchor that its target does not keep has no target, which is a number above those of all rows.": (
        "if self.owners.row[image, anchor] > row:",
    ),
    "A number of a tensor is written as a number.": ('corners = ", ".join(f"{v:.4g}" for v in self.targets.box[row])',),
    "Channels and classes are only added here.": (
        "grids = _check_levels(preds, SIDES * reg_max, classes, len(strides))",
    ),
    "It decides only how many pairs are looked at together.": (
        *(
            f"PAIRS = {n}  # of a target and an anchor: so many are looked at together, which bounds the memory"
            for n in ("2*18", "3**18", "1**18", "2** 19", "2** 17")
        ),
        "return (slice(start, min(start + size, self.rows)) for start in range(0, max(self.rows, 2), size))",
    ),
    "It is still more than there are rows, and the bits of a float times it are still an int64.": (
        *(
            f"ROWS = {n}  # more than there are rows: a factor that makes one whole number of an overlap and a row"
            for n in ("2** 33", "2** 31")
        ),
    ),
    "A power is rounded in one way, or in two steps of float32, which the budget allows; no power is below 0.": (
        "if exponent > 6:",
        "if exponent == 0.5:  ->  if False:",
        "if exponent == 6:  ->  if False:",
        "if exponent == -0.5:",
    ),
    "A target has at most its top-k anchors: a second top-k that is as large, or larger, keeps all.": (
        "kept = row if topk2 is None or topk2 >= self.settings.topk else self._keep(row, topk2)",
    ),
    "The box of no target is a point, which has nothing in common with any box.": (
        "overlap = positive(overlap, owner <= self.rows)",
    ),
    "Both sides are the same where they are equal; and 0 is 0, which is what stands elsewhere.": (
        "half = torch.where(size <= small_side, small_side, size) / 2",
        "return torch.where(where & (values >= 0), values, 0)",
    ),
    "No difference of such float32 numbers is 1e-9: they are 0, or far larger.": (
        "return (x - left >= INSIDE) & (y - top > INSIDE) & (right - x > INSIDE) & (bottom - y > INSIDE)",
        "return (x - left > INSIDE) & (y - top >= INSIDE) & (right - x > INSIDE) & (bottom - y > INSIDE)",
        "return (x - left > INSIDE) & (y - top > INSIDE) & (right - x >= INSIDE) & (bottom - y > INSIDE)",
        "return (x - left > INSIDE) & (y - top > INSIDE) & (right - x > INSIDE) & (bottom - y >= INSIDE)",
    ),
    "The key of a candidate is 1 or more, and one below 0 says that there is none, whichever it is.": (
        "return Owners(kept, row, contested, largest > 0)",
        "return Owners(kept, row, contested, largest >= 1)",
        "last, largest = torch.full_like(first, -1), torch.full_like(first, - 2)",
        'largest.scatter_reduce_(0, at, torch.where(pairs.candidate, key, - 2), "amax")',
    ),
    "An anchor is contested if its last row comes after its first one: a last one of 0 or below never does.": (
        "last, largest = torch.full_like(first, - 2), torch.full_like(first, -1)",
        "last, largest = torch.full_like(first, - 0), torch.full_like(first, -1)",
        'last.scatter_reduce_(0, at, torch.where(pairs.chosen, row, - 2), "amax")',
        'last.scatter_reduce_(0, at, torch.where(pairs.chosen, row, - 0), "amax")',
    ),
    "Rows that are not there are read too, and never count: with any box, and any class and image there are.": (
        "used = torch.where(rows.present[:, None], boxes[rows.image, :, rows.anchor].to(dtype), 1)",
        "used = torch.where(rows.present[:, None], boxes[rows.image, :, rows.anchor].to(dtype), -1)",
        "corners = torch.where(present[:, None], bounded(corners), 1)",
        "corners = torch.where(present[:, None], bounded(corners), -1)",
    ),
    "Only how arguments may be handed over; no value changes.": (
        "def check_predictions(preds: object, /, classes: int, reg_max: int, strides: tuple[float, ...]) -> None:",
        "def check_batch(batch: object, /, images: int, classes: int) -> None:",
        'def __init__(self, model: nn.Module, /, returns: Returns = "dict", checks: bool = True) -> None:',
        "*,  ->  /,",
    ),
}
ARGUED = {"v5": OF_V5, "tal": OF_TAL}


def argument(mutant: Mutant, package: str) -> str | None:
    """Why the mutant of a loss is equivalent; None where nothing says so."""
    return next((reason for reason, changes in ARGUED[package].items() if str(mutant).endswith(changes)), None)


def unused(survivors: Iterable[Mutant], package: str) -> Iterator[str]:
    """Arguments that fit no survivor."""
    told = [str(mutant) for mutant in survivors]
    argued = (c for changes in ARGUED[package].values() for c in changes)
    return (c for c in argued if not any(line.endswith(c) for line in told))
