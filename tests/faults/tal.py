"""Planted faults of the task-aligned loss: single careless edits of the bundled one. Its laws must find each of them.

``field`` is a fault's number in the list of faults that losses of this family had (L001 to L107).
"""

from collections.abc import Callable
from dataclasses import replace

from tests.faults import Fault

# The steps of the loss, and the parts (or ids) of laws that speak of them.
STEPS = {
    "INPUT": ("input", "form", "run"),
    "TARGETS": ("assign", "scores", "state", "boxes", "third", "form", "input"),
    "ANCHOR": ("assign", "scores", "boxes", "third", "run"),
    "DECODE": ("assign", "scores", "boxes", "third"),
    "CAND": ("assign", "scores"),
    "METRIC": ("assign", "scores"),
    "TOPK": ("assign", "scores", "input", "run"),
    "CONFLICT": ("assign", "scores"),
    "SCORE": ("scores", "totals.finite", "assign.anchors"),  # an anchor whose score is 0 has no target for all to see
    "CLS": ("classes", "totals", "symmetry.image-order"),
    "BOX": ("boxes", "totals.finite", "gradients.finite"),
    "THIRD": ("third", "totals.finite", "gradients.finite"),
    "SCALE": ("classes.divisor", "totals", "symmetry.duplicated-batch", "boxes.item", "third.item"),
    "RETURN": ("totals", "form", "run"),
    "STATE": ("state", "form", "run", "input.spoils-nothing"),
    "DTYPE": ("totals", "gradients", "assign", "scores", "run", "boxes", "third", "classes", "form", "state"),
    "AUTOGRAD": ("gradients", "boxes", "classes", "third", "totals"),
    "DEVICE": ("devices",),
    "E2E": ("assign", "scores", "totals", "classes", "gradients", "state", "run"),
}

# The module and the class of the loss of each kind.
LOSSES = {
    "one": ("loss", "TaskAlignedLoss"),
    "YOLO26": ("ends", "E2ELoss"),
    "YOLOv10": ("ends", "E2EDetectLoss"),
}


def in_tal(
    name: str, step: str, law: str, module: str, old: str, new: str, field: str = "", heads: str = "one"
) -> Fault:
    """A fault of a module of a loss of one head, or of two. A law about the step is among the first that it breaks."""
    if not STEPS.keys() >= {*step.split(", ")}:
        raise ValueError(f"{name}: unknown step {step}")
    dialect = "yololoss" if heads == "one" else f"yololoss, heads = {heads}"
    return Fault(name, step, "", law, module, old, new, field, "cpu", "tal", LOSSES[heads], dialect)


def faults_of(step: str, module: str, law: str) -> Callable[..., Fault]:
    """A function that makes faults of one step and module: (name, old, new, field="", law=law)."""

    def make(name: str, old: str, new: str, field: str = "", law: str = law) -> Fault:
        return in_tal(name, step, law, module, old, new, field)

    return make


_target = faults_of("TARGETS", "inputs", "assign.anchors")
_anchor = faults_of("ANCHOR", "boxes", "assign.anchors")
_decode = faults_of("DECODE", "boxes", "scores.value")
_candidate = faults_of("CAND", "assign", "assign.anchors")
_metric = faults_of("METRIC", "assign", "scores.value")
_topk = faults_of("TOPK", "assign", "assign.anchors")
_conflict = faults_of("CONFLICT", "assign", "scores.value")
_score = faults_of("SCORE", "assign", "scores.value")
_cls = faults_of("CLS", "terms", "classes.item")
_box = faults_of("BOX", "terms", "boxes.item")
_third = faults_of("THIRD", "terms", "third.item")
_scale = faults_of("SCALE", "loss", "classes.divisor")
_return = faults_of("RETURN", "loss", "totals.sum")
_input = faults_of("INPUT", "checks", "input.class-negative")
_grad = faults_of("AUTOGRAD", "loss", "gradients.value")

CORNERS = "torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=1)"
POINT = "torch.arange(columns, dtype=torch.float32, device=device) + 0.5"
SMALL = "half = torch.where(size < small_side, small_side, size) / 2"
INSIDE = "(x - left > INSIDE) & (y - top > INSIDE) & (right - x > INSIDE) & (bottom - y > INSIDE)"
METRIC = "power(score, self.settings.alpha) * power(overlap, self.settings.beta)"
OWNERS = "row = torch.where(contested, nobody - largest % ROWS, first)"
SCORE = "metric * largest_overlap / (largest_metric + self.settings.eps)"
BCE = "bce = softplus(x, threshold=EXACT_SOFTPLUS).clamp_(max=LIMIT)"
OWN = "bce.scatter_(1, at, own)"
SLOPE = "own = sigmoid.gather(1, at) - score[:, None].to(sigmoid.dtype)"
WANTED = "torch.zeros_like(x).scatter(1, at, score[:, None].to(dtype))"
BOX = "(1 - ciou(bounded(corners_around(rows.point, distance)), rows.wanted)) * rows.score"
CLAMP = "wanted = wanted.clamp(0, logits.shape[-1] - 1 - DFL_MARGIN)"
FOCAL = "-(near * at_lower + (1 - near) * at_upper)"
DIVISOR = "divisor = assigned.score.sum().clamp(min=1)"
RESULT = "return self.results(values * images, values.detach())"
WEIGHTED = "return (bce if weights is None else bce * weights[:, None]).sum(dtype=dtype)"

TARGETS = (
    _target("size_swapped", "(width, height) * 2", "(height, width) * 2", "L010"),
    _target("corners_not_halved", CORNERS, "torch.stack((x - w, y - h, x + w, y + h), dim=1)"),
    _target("centre_as_corner", CORNERS, "torch.stack((x, y, x + w, y + h), dim=1)"),
    _target("class_zero", "image, cls = (torch.where(present, index, 0).long() for index in (image, cls))",
            "image, cls = torch.where(present, image, 0).long(), torch.zeros_like(image).long()",
            law="assign.inside-box"),
    _target("last_target_lost", "present = present & fractions.isfinite()",
            "present = present & (torch.arange(len(image)) < len(image) - 1) & fractions.isfinite()",
            law="assign.anchors"),
    in_tal("size_of_last_level", "TARGETS", "assign.anchors", "loss", "return rows * self._head.strides[0], columns * self._head.strides[0]",
            "return rows * self._head.strides[-1], columns * self._head.strides[-1]"),
    _target("boxes_in_float16", "boxes = (batch[name].to(device).float() for",
            "boxes = (batch[name].to(device).half().float() for", law="scores.value"),
)  # fmt: skip
ANCHORS = (
    _anchor("no_offset", POINT, POINT.replace(" + 0.5", ""), "L013"),
    _anchor("whole_offset", POINT, POINT.replace("0.5", "1.0"), "L013"),
    _anchor("transposed_grid",
            "torch.stack((x.expand(rows, -1), y[:, None].expand(-1, columns)), dim=-1).flatten(0, 1)",
            "torch.stack((x.expand(rows, -1), y[:, None].expand(-1, columns)), dim=-1).transpose(0, 1).flatten(0, 1)",
            "L014"),
    _anchor("strides_reversed", "zip(grids, strides, strict=True)", "zip(grids, strides[::-1], strict=True)", "L016"),
    _anchor("half_stride_whole_pixels", "return self.point * self.stride[:, None]",
            "return (self.point * self.stride[:, None]).floor()", "L013", law="assign.inside-box"),
)  # fmt: skip
DECODE = (
    _decode("bins_from_one", "torch.arange(bins, dtype", "torch.arange(1, bins + 1, dtype", "L019"),
    _decode("near_and_far_exchanged", "torch.cat((point - near, point + far), dim=-1)",
            "torch.cat((point - far, point + near), dim=-1)", "L020"),
    _decode("softmax_of_one_bin", "if bins == 1:", "if bins == 0:", "L022"),
    _decode("most_probable_bin", "return (logits.softmax(-2) * torch", "return ((8 * logits).softmax(-2) * torch"),
    in_tal("sides_not_side_major", "DECODE", "scores.value", "loss",
             "read.boxes.reshape(images, SIDES, self.reg_max, number)",
             "read.boxes.reshape(images, self.reg_max, SIDES, number).transpose(1, 2)"),
    in_tal("boxes_left_in_cells", "METRIC", "scores.value", "loss",
             "corners_around(anchors.point, distance) * anchors.stride[:, None]",
             "corners_around(anchors.point, distance)", "L038"),
)  # fmt: skip
CANDIDATES = (
    _candidate("inclusive", "INSIDE = 1e-9", "INSIDE = -1e-9", "L023"),
    _candidate("no_enlargement", SMALL, "half = size / 2", "L025"),
    _candidate("enlarged_at_threshold", "size < small_side", "size <= 2 * small_side"),
    _candidate("first_stride_as_threshold", SMALL,
               "half = torch.where(size < small_side / 2, small_side, size) / 2", "L026"),
    _candidate("widths_alone", INSIDE, "(x - left > INSIDE) & (right - x > INSIDE) & (bottom - y > INSIDE)",
               law="assign.inside-box"),
    _candidate("no_inside_test", INSIDE, "(x - left > -1e9) & (y - top > -1e9)", law="assign.inside-box"),
    in_tal("threshold_of_first_level", "CAND", "assign.anchors", "loss", "strides[min(1, len(strides) - 1)]",
             "strides[0]"),
    in_tal("enlarged_kept_for_boxes", "BOX", "boxes.item", "terms",
             "wanted=assigned.targets.box[assigned.owners.row.flatten()[at]] / stride[:, None],",
             "wanted=(lambda b: torch.cat(((b[:, :2] + b[:, 2:] - (b[:, 2:] - b[:, :2]).clamp(min=16.0)) / 2,"
             " (b[:, :2] + b[:, 2:] + (b[:, 2:] - b[:, :2]).clamp(min=16.0)) / 2), dim=1))("
             "assigned.targets.box[assigned.owners.row.flatten()[at]]) / stride[:, None],",
             "L029"),
)  # fmt: skip
METRICS = (
    _metric("score_of_class_0", "self.scores[image, self.targets.cls[some]]",
            "self.scores[image, 0 * self.targets.cls[some]]", "L032"),
    _metric("sum_of_powers", METRIC, METRIC.replace(" * ", " + "), "L034"),
    _metric("raw_logits", "score = rounded_once(torch.sigmoid, logits.to(torch.promote_types(logits.dtype, torch.float32)))",
            "score = logits.float().clamp(min=0)", "L035"),
    _metric("second_sigmoid", "rounded_once(torch.sigmoid, logits.to(", "rounded_once(torch.sigmoid, logits.sigmoid().to("),
    _metric("alpha_one", "alpha: float = 0.5", "alpha: float = 1.0"),
    _metric("beta_five", "beta: float = 6.0", "beta: float = 5.0"),
    _metric("plain_iou", "overlap = positive(overlap, candidate)",
            "overlap = positive(overlap + 0.1 * (overlap > 0), candidate)"),
    in_tal("iou_for_ciou", "METRIC", "scores.value", "boxes", "return iou - (distance + ciou_alpha(v, iou, EPS) * v)",
             "return iou", "L037"),
    in_tal("no_distance", "METRIC", "scores.value", "boxes", "return iou - (distance + ciou_alpha(v, iou, EPS) * v)",
             "return iou - ciou_alpha(v, iou, EPS) * v"),
)  # fmt: skip
TOPK = (
    _topk("one_more", "k = min(k, metric.shape[1])", "k = min(k + 1, metric.shape[1])"),
    _topk("one_less", "k = min(k, metric.shape[1])", "k = max(min(k, metric.shape[1]) - 1, 1)",
          law="assign.anchors"),
    _topk("every_candidate", "return above | (level & (level.cumsum(1) <= room))", "return candidate"),
    _topk("smallest", "limit = metric.topk(k, dim=1).values[:, -1:]",
          "limit = metric.topk(k, dim=1, largest=False).values[:, -1:]"),
    _topk("not_clamped", "k = min(k, metric.shape[1])", "k = k", "L041", law="run.no-exception"),
    _topk("second_top_k_ignored", "topk2 is None or topk2 == self.settings.topk", "True", law="assign.at-most-k"),
    _topk("second_top_k_of_all", "torch.where(own, metric[image], 0), own, topk2",
          "torch.where(own, metric[image], 0), own, topk2 + 1"),
    _topk("contested_dropped", OWNERS, "row = torch.where(contested, nobody, first)", "L044",
          law="assign.anchors"),
)  # fmt: skip
CONFLICT = (
    _conflict("first_row_wins", OWNERS, "row = first", "L049"),
    _conflict("last_row_wins", OWNERS, "row = torch.where(contested, last, first)", "L049"),
    _conflict("smallest_overlap_wins", "key = pairs.overlap.view(torch.int32).long()",
              "key = (1 - pairs.overlap).view(torch.int32).long()", "L049"),
    _conflict("metric_decides", "key = pairs.overlap.view(torch.int32).long()",
              "key = pairs.metric.float().view(torch.int32).long()", "L047"),
    _conflict("takers_alone", "torch.where(pairs.candidate, key, -1)", "torch.where(pairs.chosen, key, -1)"),
)  # fmt: skip
SCORES = (
    _score("largest_of_all_candidates", "        return metric * largest_overlap /",
           "        for some in self.chunks():\n"
           "            pairs = self.pairs(some)\n"
           "            top = pairs.overlap.max(dim=1).values\n"
           "            for n, row in enumerate(range(some.start, some.stop)):\n"
           "                largest_overlap = torch.where(owner == row, top[n], largest_overlap)\n"
           "        return metric * largest_overlap /", "L052"),
    _score("one_for_all", "slots = owner.flatten()", "slots = (owner < self.rows).long().flatten()"),
    _score("larger_eps", "eps: float = 1e-9", "eps: float = 1e-7", "L056"),
    _score("without_overlap", SCORE, "metric / (largest_metric + self.settings.eps)"),
    _score("overlap_alone", SCORE, "overlap", "L058"),
    _score("hard", SCORE, "(metric > 0).to(metric)", "L058"),
    _score("without_metric", SCORE, "largest_overlap * (metric > 0)"),
    _score("eps_missing", SCORE, "metric * largest_overlap / largest_metric", "L055", law="totals.finite"),
    _score("metric_unnormalised", SCORE, "metric"),
)  # fmt: skip
CLASSES = (
    _cls("mean", WEIGHTED, WEIGHTED.replace(".sum(", ".mean("), "L061"),
    _cls("foreground_alone", OWN, f"{OWN}\n        bce = bce * (score[:, None] > 0)", "L062"),
    _cls("half_sum", WEIGHTED, WEIGHTED.replace(".sum(dtype=dtype)", ".to(logits.dtype).sum().to(dtype)"), "L064"),
    _cls("sigmoid_twice", BCE, BCE.replace("softplus(x", "softplus(x.sigmoid()"), "L065"),
    _cls("weights_ignored", WEIGHTED, "return bce.sum(dtype=dtype)"),
    _cls("weights_twice", WEIGHTED, WEIGHTED.replace("weights[:, None]", "weights[:, None] ** 2")),
    _cls("gradient_without_weights", "return (slope if weights is None else slope * weights[:, None])", "return (slope)",
         law="classes.background"),
    _cls("gradient_without_score", SLOPE, "own = sigmoid.gather(1, at)", law="classes.gradient"),
    _cls("cancelling_bce", OWN, f"bce = -(x.sigmoid().log() * {WANTED} + (1 - x.sigmoid()).log() * (1 - {WANTED}))",
         law="totals.finite"),
)  # fmt: skip
BOXES = (
    _box("unweighted", BOX, BOX.replace(" * rows.score", " * (rows.score > 0)"), "L067"),
    _box("weighted_twice", BOX, BOX.replace("rows.score", "rows.score**2")),
    _box("against_pixels", "/ stride[:, None],", ",", "L068"),
    _box("not_one_minus", BOX, BOX.replace("(1 - ciou", "(2 - ciou")),
    _box("logarithm", BOX, BOX.replace("(1 - ciou", "(1 - ciou").replace("* rows.score", ".sqrt() * rows.score")),
    in_tal("alpha_with_gradient", "AUTOGRAD", "gradients.value", "boxes", "ciou_alpha(v, iou, EPS) * v)",
             "v / (1 - iou + v + EPS) * v)", "L071"),
    in_tal("heights_without_eps", "BOX", "totals.finite", "boxes",
             "return arctangent(right - left, bottom - top + EPS)", "return ((right - left) / (bottom - top)).atan()",
             "L073"),
    in_tal("distance_not_squared", "METRIC", "scores.value", "boxes",
             "distance = between / (across.square() + down.square() + EPS)",
             "distance = between / (across.square() + down.square() + EPS).sqrt()"),
)  # fmt: skip
THIRD = (
    _third("no_lower_clamp", CLAMP, "wanted = wanted.clamp(max=logits.shape[-1] - 1 - DFL_MARGIN)", "L076"),
    _third("margin_of_a_tenth", CLAMP, CLAMP.replace("DFL_MARGIN", "0.1")),
    _third("weights_exchanged", FOCAL, "-((1 - near) * at_lower + near * at_upper)", "L077"),
    _third("unweighted_third", "(third * rows.score).sum()", "third.sum()", "L079"),
    _third("sum_of_sides", ".squeeze(-1).mean(-1)", ".squeeze(-1).sum(-1)"),
    _third("lower_bin_alone", FOCAL, "-at_lower"),
    _third("probabilities", "log_share = logits.log_softmax(-1)", "log_share = logits.softmax(-1)"),
    _third("image_sides_exchanged", "(pixels[:, 0::2] / width + pixels[:, 1::2] / height)",
           "(pixels[:, 0::2] / height + pixels[:, 1::2] / width)", "L082"),
    _third("without_stride", "(distance * stride[:, None] - wanted * stride[:, None]).abs()",
           "(distance - wanted).abs()", "L083"),
    _third("squared", "(distance * stride[:, None] - wanted * stride[:, None]).abs()",
           "(distance * stride[:, None] - wanted * stride[:, None]).square()"),
)  # fmt: skip
SCALE = (
    _scale("no_floor", DIVISOR, "divisor = assigned.score.sum()", "L001", law="totals.finite"),
    _scale("floor_only_for_0", DIVISOR, "divisor = assigned.score.sum()\n"
           "            divisor = torch.where(divisor > 0, divisor, 1.0)", "L002"),
    _scale("count_for_sum", DIVISOR, "divisor = (assigned.score > 0).sum().clamp(min=1)"),
    _scale("class_term_alone_undivided", "cls / divisor, third", "cls, third"),
    _scale("no_batch", RESULT, "return self.results(values, values.detach())", "L086", law="totals.sum"),
    _scale("gains_exchanged", "gains = self.hyp.box, self.hyp.cls, self.hyp.dfl",
           "gains = self.hyp.cls, self.hyp.box, self.hyp.dfl", law="boxes.item"),
    _scale("gain_kept", "gains = self.hyp.box, self.hyp.cls, self.hyp.dfl",
           "gains = 7.5, self.hyp.cls, self.hyp.dfl", law="totals.box-gain"),
)  # fmt: skip
RETURNS = (
    _return("scalar_total", "returns: Returns = \"dict\",\n        checks: bool = True,\n    ) -> None:",
            "returns: Returns = \"scalar\",\n        checks: bool = True,\n    ) -> None:", "L088", law="totals.shape"),
    _return("items_times_batch", RESULT, "return self.results(values * images, (values * images).detach())", "L089"),
    _return("items_attached", RESULT, "return self.results(values * images, values)", "L089",
            law="totals.items-detached"),
    in_tal("tuple_not_unwrapped", "RETURN", "form.validation-tuple", "inputs", "return preds[1]", "return preds[0]",
             "L091"),
    _grad("total_detached", "return torch.stack(weighted).float(), read.scores.shape[0]",
          "return torch.stack(weighted).detach().float() + 0 * weighted[1], read.scores.shape[0]"),
    in_tal("scores_attached", "SCORE, AUTOGRAD", "gradients.no-path-through-scores", "loss",
             "with torch.no_grad():\n            assigned", "with torch.enable_grad():\n            assigned", "L059"),
)  # fmt: skip
INPUTS = (
    _input("no_checks", "check_targets(targets, batch=images, classes=classes, device=boxes.device, names=NAMES)", "", "L005"),
    in_tal("sorted_rows_assumed", "INPUT", "form.row-order", "inputs",
             "image, cls = (torch.where(present, index, 0).long() for index in (image, cls))",
             "image, cls = (torch.where(present, index, 0).long() for index in (image, cls))\n"
             "    image = image.cummax(0).values if len(image) else image", "L004"),
    in_tal("other_dtypes_refused", "INPUT", "run.no-exception", "inputs",
             "image, cls, boxes = (batch[name].to(device).float() for",
             "assert batch['bboxes'].dtype == torch.float32\n    image, cls, boxes = (batch[name].to(device).float() for",
             "L007"),
    in_tal("batch_popped", "INPUT", "form.batch-unchanged", "loss",
             "read = read_predictions(preds, self.reg_max)",
             "read = read_predictions(preds, self.reg_max)\n        batch['read'] = True"),
    in_tal("sizes_kept_from_first_call", "STATE", "state.after-other-sizes", "loss",
             "rows, columns = read.grids[0]\n",
             "self.first = rows, columns = getattr(self, \"first\", read.grids[0])\n", "L011"),
    in_tal("owners_numbered_from_0_in_each_part", "CONFLICT", "assign.many-pairs", "assign",
             "torch.arange(some.start, some.stop, device=device)", "torch.arange(some.stop - some.start, device=device)"),
    in_tal("kept_numbered_from_0_in_each_part", "TOPK", "assign.many-pairs", "assign",
             "torch.arange(some.start, some.stop, device=owner.device)",
             "torch.arange(some.stop - some.start, device=owner.device)"),
    in_tal("unusable_anchor_hidden", "INPUT", "input.nan-logits", "loss",
             "        box = box + torch.where(assigned.unusable.any(), torch.nan, 0.0)\n", ""),
    in_tal("class_0_is_a_label_too", "CONFLICT", "assign.one-label", "terms", "    return term\n",
             "    return term - (assigned.score * logits[:, 0]).sum().to(dtype)\n"),
    in_tal("floor_for_each_image", "SCALE", "classes.divisor", "loss", "assigned.score.sum().clamp(min=1)",
             "assigned.score.sum(1).clamp(min=1).sum()"),
    in_tal("batch_of_first_call", "STATE", "state.after-other-sizes", "loss",
             "return torch.stack(weighted).float(), read.scores.shape[0]",
             "self.images = getattr(self, 'images', read.scores.shape[0])\n"
             "        return torch.stack(weighted).float(), self.images"),
    in_tal("points_kept_by_their_number", "STATE", "state.after-other-sizes", "loss",
             "anchors = anchor_points(read.grids, strides, device)",
             "kept = self.__dict__.setdefault('points', {})\n"
             "        key = sum(rows * columns for rows, columns in read.grids), device\n"
             "        kept[key] = anchors = kept.get(key) or anchor_points(read.grids, strides, device)"),
    in_tal("gradient_of_last_level_lost", "AUTOGRAD", "gradients.value", "inputs",
             "torch.cat([level.flatten(2) for level in preds], dim=2)",
             "torch.cat([level.flatten(2) if n == 0 else level.flatten(2).detach() for n, level in enumerate(preds)],"
             " dim=2)"),
)  # fmt: skip
READ = "read = read_predictions(preds, self.reg_max)"
CONDUCT = (
    in_tal("corner_dropped", "TARGETS", "assign.anchors", "inputs",
             "corners = torch.where(present[:, None], bounded(corners), 0)",
             "present = present & (corners.sum(1) > 0)\n"
             "    corners = torch.where(present[:, None], bounded(corners), 0)", "L008"),
    in_tal("score_in_half", "DTYPE", "classes.item", "assign",
             "logits.to(torch.promote_types(logits.dtype, torch.float32))", "logits", "L106"),
    in_tal("decode_in_half", "DTYPE", "classes.item", "loss", "expected_distance, part.to(read.dtype))",
             "expected_distance, part)"),
    in_tal("terms_in_half", "DTYPE", "boxes.gradient", "terms", "boxes[rows.image, :, rows.anchor].to(dtype), 0)",
             "boxes[rows.image, :, rows.anchor].half().to(dtype), 0)"),
    in_tal("draws_random_numbers", "STATE", "state.rng-unchanged", "loss", READ, f"{READ}\n        torch.rand(1)"),
    in_tal("prints_its_batch", "STATE", "run.no-output", "loss", READ, f"{READ}\n        print(len(batch))"),
    in_tal("writes_to_boxes", "STATE", "state.inputs-unchanged", "loss", READ,
             f"{READ}\n        batch[\"bboxes\"].clamp_(0.01, 0.5)"),
    in_tal("writes_to_predictions", "STATE, METRIC", "form.batch-unchanged", "loss", READ,
             f"{READ}\n        read.scores.detach().mul_(2.0)"),
    in_tal("keeps_every_batch", "STATE", "state.keeps-nothing", "loss", READ,
             f"{READ}\n        self.kept = [*getattr(self, \"kept\", []), batch]"),
    in_tal("halved_after_the_first_call", "STATE", "state.repeated-calls", "loss", RESULT,
             "self.calls = getattr(self, \"calls\", 0) + 1\n"
             "        return self.results(values * images / min(self.calls, 2), values.detach() / min(self.calls, 2))"),
    in_tal("first_gain_kept", "STATE", "form.gains-edited", "loss",
             "gains = self.hyp.box, self.hyp.cls, self.hyp.dfl",
             "self.gains = gains = getattr(self, \"gains\", (self.hyp.box, self.hyp.cls, self.hyp.dfl))"),
    in_tal("seeds_the_generator", "STATE", "state.rng-unchanged", "loss", READ,
             f"{READ}\n        torch.manual_seed(0)"),
    in_tal("wraps_refused", "INPUT", "form.wrapped-model", "parts", "inner = unwrap(model)", "inner = model"),
    in_tal("reads_the_images", "INPUT", "form.other-keys", "loss", READ,
             f"{READ}\n        assert \"img\" not in batch or batch[\"img\"].isfinite().all()"),
    in_tal("flat_columns_alone", "INPUT", "form.columns", "inputs",
             "image, cls, fractions = image.reshape(-1), cls.reshape(-1), boxes.reshape(-1, SIDES)",
             "image, cls, fractions = image.reshape(-1), cls[:, 0], boxes.reshape(-1, SIDES)"),
)  # fmt: skip


def _e2e(name: str, law: str, old: str, new: str, field: str = "", heads: str = "YOLO26") -> Fault:
    return in_tal(name, "E2E", law, "ends", old, new, field, heads)


def _v10(name: str, law: str, old: str, new: str) -> Fault:
    return _e2e(name, law, old, new, heads="YOLOv10")


HEADS_WEIGHTED, UPDATE = "many * self.o2m + one * self.o2o, one_items", "self.updates += 1"
HEADS = (
    _e2e("weights_of_heads_exchanged", "totals.value", HEADS_WEIGHTED, "many * self.o2o + one * self.o2m, one_items", "L092"),
    _e2e("first_weights_for_ever", "totals.value", UPDATE, "return", "L092"),
    _e2e("updated_at_every_call", "state.repeated-calls", "total, items = self._joined(",
         "if isinstance(self, E2ELoss):\n            self.update()\n        total, items = self._joined(", "L092"),
    _e2e("updated_twice_an_epoch", "totals.value", UPDATE, "self.updates += 2"),
    _e2e("updated_by_steps", "totals.value",
         "self.o2m = left * (self.o2m_copy - self.final_o2m) + self.final_o2m",
         "step = (self.o2m_copy - self.final_o2m) / max(self.epochs - 1, 1)\n"
         "        self.o2m = max(self.o2m - step, self.final_o2m)"),
    _e2e("epochs_too_long", "totals.value", "max(self.epochs - 1, 1)", "max(self.epochs, 1)"),
    _e2e("last_weight_zero", "totals.value", "self.final_o2m = 0.1", "self.final_o2m = 0.0"),
    _e2e("rest_is_one", "totals.value", "self.o2o = max(self.total - self.o2m, 0)", "self.o2o = 1.0"),
    _e2e("weights_are_equal", "totals.value", "self.o2m = self.o2m_copy = 0.8", "self.o2m = self.o2m_copy = 0.5"),
    _e2e("items_of_both_heads", "totals.two-heads", HEADS_WEIGHTED,
         "many * self.o2m + one * self.o2o, many_items + one_items"),
    _e2e("many_assignment_for_one", "assign.anchors", "TaskAlignedLoss(model, one, self.topk2,",
         "TaskAlignedLoss(model, many, None,", "L095"),
    _e2e("many_predictions_for_one", "totals.value", "self.one2one.values(preds[\"one2one\"]",
         "self.one2one.values(preds[\"one2many\"]", "L095"),
    _e2e("one_head_detached", "run.no-exception", "many * images, one * images", "many * images, one.detach() * images"),
    _e2e("no_second_top_k", "assign.at-most-k", "    topk = (10, 7)\n    topk2 = 1", "    topk = (10, 7)\n    topk2 = None"),
    _e2e("second_top_k_at_once", "assign.anchors", "    topk = (10, 7)\n    topk2 = 1", "    topk = (10, 1)\n    topk2 = None"),
    _e2e("batch_twice_in_one", "totals.sum", "many * images, one * images", "many * images, one * images * images"),
    _v10("v10_items_of_one_head", "totals.two-heads", "many + one, many_items + one_items", "many + one, one_items"),
    _v10("v10_heads_weighted", "totals.value", "many + one, many_items", "many * 0.8 + one * 0.2, many_items"),
    _v10("v10_mean_of_heads", "totals.value", "many + one, many_items", "(many + one) / 2, many_items"),
    _v10("v10_top_k_of_ten", "assign.at-most-k", "topk = (10, 1)", "topk = (10, 10)"),
    _v10("v10_one_head_alone", "totals.value", "many + one, many_items", "many * 0 + one, many_items"),
)  # fmt: skip
MORE = (
    _target("half_a_pixel_off", "for side, pixels in zip(fractions.unbind(1), (width, height) * 2, strict=True))",
            "for side, pixels in zip(fractions.unbind(1), (width, height) * 2, strict=True))\n    x = x + 0.5",
            law="scores.value"),
    _target("clipped_to_the_image", "bounded(corners), 0)", "bounded(corners).clamp(min=0), 0)", law="boxes.item"),
    _target("width_for_height", "(width, height) * 2, strict=True", "(width, width) * 2, strict=True", "L010"),
    in_tal("boxes_of_first_image", "METRIC", "scores.value", "assign", "self.predicted[image], self.target_angle",
             "self.predicted[0 * image], self.target_angle"),
    _metric("logits_of_first_image", "self.scores[image, self.targets.cls[some]]",
            "self.scores[0 * image, self.targets.cls[some]]"),
    _metric("beta_seven", "beta: float = 6.0", "beta: float = 7.0"),
    _candidate("enlarged_to_half", SMALL, "half = torch.where(size < small_side, small_side / 2, size) / 2"),
    _candidate("both_sides_enlarged", SMALL,
               "half = torch.where((size < small_side).any(1, keepdim=True), small_side, size) / 2"),
    _score("eps_above_too", SCORE, "(metric + self.settings.eps) * largest_overlap / (largest_metric + self.settings.eps)"),
    in_tal("next_class", "TARGETS", "assign.inside-box", "terms", "label = assigned.targets.cls[assigned.owners.row]",
         "label = (assigned.targets.cls[assigned.owners.row] + 1) % logits.shape[1]"),
    _cls("right_class_twice", OWN, "bce.scatter_(1, at, 2 * own)"),
    _cls("focal", WEIGHTED, f"bce = bce * (1 - (-bce).exp())\n        {WEIGHTED}"),
    _cls("smoothed", "score[:, None].to(dtype) * x.gather(1, at)", "0.9 * score[:, None].to(dtype) * x.gather(1, at)"),
    _cls("gradient_cut_off", ".mul_(grads[0])", ".mul_(grads[0]).clamp_(-0.1, 0.1)", law="classes.gradient"),
    _cls("logits_cut_off", "LIMIT = 1e30", "LIMIT = 4.0"),
    in_tal("union_too_large", "METRIC", "scores.value", "boxes", "union = areas - common + EPS",
             "union = areas - common / 2 + EPS"),
    in_tal("angle_by_pi", "METRIC", "scores.value", "boxes", "(4 / math.pi**2)", "(4 / math.pi)"),
    in_tal("centres_twice_apart", "METRIC", "scores.value", "boxes", "((left2 + right2 - left1 - right1) / 2)",
             "(left2 + right2 - left1 - right1)"),
    _third("lower_bin_twice", "for i in (0, 1))", "for i in (0, 0))"),
    _third("whole_distances", "wanted = distances_to(rows.point, rows.wanted)",
           "wanted = distances_to(rows.point, rows.wanted).round()"),
    _third("two_sides_alone", ".squeeze(-1).mean(-1)", ".squeeze(-1)[..., :2].mean(-1)"),
    _third("sides_not_averaged", ".sum(1) / SIDES", ".sum(1)"),
    _scale("floor_of_two", DIVISOR, "divisor = assigned.score.sum().clamp(min=2)"),
    _scale("divided_by_targets", DIVISOR, "divisor = assigned.targets.present.sum().clamp(min=1)"),
    _scale("batch_twice", RESULT, "return self.results(values * images * images, values.detach())", law="totals.sum"),
    _scale("items_in_another_order", RESULT, "return self.results(values * images, values.detach().flip(0))",
            law="boxes.item"),
    in_tal("gain_grows", "STATE", "state.repeated-calls", "loss", RESULT,
             f"self.hyp.box *= 1.5\n        {RESULT}"),
    in_tal("top_k_shrinks", "STATE", "state.repeated-calls", "loss", RESULT,
             f"self.assigner.topk = max(self.assigner.topk - 3, 1)\n        {RESULT}"),
)  # fmt: skip
CALL = "values, images = self.values(preds, batch)"


def _before(name: str, law: str, statement: str, step: str = "STATE") -> Fault:
    """A statement before the work of a call."""
    return in_tal(name, step, law, "loss", CALL, f"{statement}\n        {CALL}")


def _after(name: str, law: str, statement: str, step: str = "STATE") -> Fault:
    """A statement after the work of a call."""
    return in_tal(name, step, law, "loss", CALL, f"{CALL}\n        {statement}")


def _accepts(name: str, law: str, old: str, new: str, module: str = "checks") -> Fault:
    return in_tal(name, "INPUT", law, module, old, new)


def _on_mirror(name: str, law: str, module: str, old: str, new: str, steps: str = "DEVICE") -> Fault:
    return replace(in_tal(name, steps, law, module, old, new), device="mirror")


ACCEPTS = (
    _accepts("integers_not_checked", "input.integer-batch", "if self.checks:\n            check_batch",
             'if self.checks and batch["bboxes"].is_floating_point():\n            check_batch', "loss"),
    _before("class_0_if_missing", "input.missing-key", 'batch = {"cls": 0 * batch["batch_idx"], **batch}', "INPUT"),
    _before("absent_classes_are_0", "input.other-lengths",
            'cls = batch["cls"].reshape(-1)\n'
            '        absent = cls.new_zeros(max(len(batch["bboxes"]) - len(cls), 0))\n'
            '        batch = {**batch, "cls": torch.cat((cls, absent))}', "INPUT"),
    _before("last_level_twice", "input.missing-level",
            "if isinstance(preds, list) and len(preds) < len(self.stride):\n"
            "            preds = [*preds, *preds[-1:] * (len(self.stride) - len(preds))]", "INPUT"),
    _accepts("more_channels_accepted", "input.extra-channel", "(batch, channels + classes, *rest)",
             "(batch, max(channels + classes, level.shape[1]), *rest)"),
    _accepts("sizes_not_compared", "input.feats-of-another-shape", "max(stride, strides[0]) and i:",
             "1e9 and i:"),
    _accepts("gradients_left_off_by_an_error", "input.settings-restored",
             "check_batch(batch, images=read.scores.shape[0], classes=self.nc)",
             "torch.set_grad_enabled(False)\n            check_batch(batch, images=read.scores.shape[0], classes=self.nc)\n"
             "            torch.set_grad_enabled(True)", "loss"),
    _accepts("integer_columns_refused", "form.integer-columns",
             "if not isinstance(value, Tensor):\n            raise TypeError(f\"batch",
             "if not isinstance(value, Tensor) or not value.is_floating_point():\n            raise TypeError(f\"batch"),
    in_tal("targets_in_half", "TARGETS, DTYPE", "form.target-dtype", "inputs", "batch[name].to(device).float() for name",
             "(batch[name].half() if batch[name].dtype == torch.float64 else batch[name]).to(device).float() for name"),
)  # fmt: skip
BEHAVES = (
    _before("waits_for_ever", "run.time-limit", 'while len(batch["cls"]) > 3:\n            pass', "INPUT"),
    _before("ends_without_targets", "run.no-exit", 'if not len(batch["cls"]):\n            raise SystemExit(1)', "INPUT"),
    _after("line_in_a_file", "run.no-effect-outside",
           "open(__import__('tempfile').gettempdir() + '/yololoss-loss.txt', 'a').write(f'{images}\\n')", "INPUT"),
    _after("prints_past_python", "run.no-output-by-descriptor", "__import__('os').write(2, b'loss\\n')", "INPUT"),
    _after("warns_each_time", "run.no-warning", "__import__('warnings').warn('loss is computed', stacklevel=2)", "INPUT"),
    _before("anomalies_detected", "state.global-settings-unchanged", "torch.autograd.set_detect_anomaly(True)"),
    _before("gradients_switched_on", "state.keeps-caller-settings", "torch.set_grad_enabled(True)"),
    _after("graph_kept", "state.deep-copy", "self.last = values"),
    _after("function_kept", "state.pickle", "self.last = lambda: 0"),
    _after("half_by_default_dtype", "state.default-dtype",
           "values = values if torch.get_default_dtype() == torch.float32 else values.bfloat16().float()"),
    _after("noise_on_top", "state.rng-independent", "values = values * (1 + 0.01 * torch.rand(()))", "STATE, SCALE"),
    in_tal("every_second_object", "STATE, TOPK", "state.second-object", "loss", "        self.checks = checks\n",
             "        self.checks = checks\n        type(self).made = getattr(type(self), 'made', 0) + 1\n"
             "        self.assigner = assigner if type(self).made % 2 else Assigner(topk=3)\n"),
    in_tal("large_logits_cut_off", "DECODE", "boxes.shifted-bins", "loss", "expected_distance, part.to(read.dtype))",
             "expected_distance, part.to(read.dtype).clamp(max=0))"),
    _cls("first_image_twice", WEIGHTED, f"bce[0] *= 2\n        {WEIGHTED}", law="symmetry.image-order"),
)  # fmt: skip
DEVICES = (
    _on_mirror("items_on_cpu", "devices.result-device", "loss", RESULT,
               RESULT.replace("values.detach()", "values.detach().cpu()")),
    _on_mirror("coarse_targets_on_devices", "devices.values", "inputs", "for side, pixels in zip(fractions.unbind(1)",
               "for side, pixels in zip((fractions if device.type == 'cpu' else fractions.half().float()).unbind(1)",
               "DEVICE, TARGETS"),
    _on_mirror("divisor_in_half_on_devices", "devices.values", "loss", DIVISOR,
               f"{DIVISOR}\n            divisor = divisor if divisor.device.type == 'cpu' else divisor.bfloat16().float()",
               "DEVICE, SCALE"),
    _on_mirror("sum_by_atomics", "devices.repeatable", "loss", DIVISOR,
               "score = assigned.score.flatten()\n            divisor = torch.zeros_like(score).index_add(0, "
               "torch.zeros_like(score, dtype=torch.long), score)[0].clamp(min=1)"),
    _on_mirror("counted_by_histogram", "devices.deterministic-algorithms", "loss", DIVISOR,
               f"{DIVISOR} + 0 * assigned.score.histc(1)[0]"),
    _on_mirror("factor_on_cpu", "devices.no-cpu-tensors", "loss", DIVISOR,
               f"{DIVISOR} * torch.ones(1, device='cpu')[0]"),
)  # fmt: skip
TAL_FAULTS: tuple[Fault, ...] = (
    *TARGETS,
    *ANCHORS,
    *DECODE,
    *CANDIDATES,
    *METRICS,
    *TOPK,
    *CONFLICT,
    *SCORES,
    *CLASSES,
    *BOXES,
    *THIRD,
    *SCALE,
    *RETURNS,
    *INPUTS,
    *CONDUCT,
    *HEADS,
    *MORE,
    *ACCEPTS,
    *BEHAVES,
    *DEVICES,
)
BY_NAME = {fault.name: fault for fault in TAL_FAULTS}
# What is a fault of the bundled loss is right in a dialect with this choice: there no law may accuse it.
CHOICES = {
    "no_enlargement": ("small_sides", "none"),
    "alpha_one": ("alpha", "1"),
    "takers_alone": ("contested", "takers"),
    "corner_dropped": ("corner", "dropped"),
    "no_batch": ("batch", "plain"),
    "scalar_total": ("total", "one"),
}

_other = faults_of("CAND", "assign", "")
# No faults: other right ways to do the same. No law may accuse them.
CONFORMING = (
    _other("last_of_equals", "level.cumsum(1) <= room", "level.flip(1).cumsum(1).flip(1) <= room"),
    _other("candidates_first_of_zeros", "outside = torch.where(limit > 0, 0, (~candidate).sum(1, keepdim=True))",
           "outside = 0"),
    _other("torchs_own_top_k",
           "limit = metric.topk(k, dim=1).values[:, -1:]",
           "return torch.zeros_like(candidate).scatter_(1, metric.topk(k, dim=1).indices, True) & candidate\n"
           "    limit = metric.topk(k, dim=1).values[:, -1:]"),
    _other("last_row_of_equals",
           """+ (nobody - row)
            largest.scatter_reduce_(0, at, torch.where(pairs.candidate, key, -1), "amax")
            if seen is not None:
                seen.append(pairs)
        contested = first < last
        row = torch.where(contested, nobody - largest % ROWS, first)""",
           """+ row
            largest.scatter_reduce_(0, at, torch.where(pairs.candidate, key, -1), "amax")
            if seen is not None:
                seen.append(pairs)
        contested = first < last
        row = torch.where(contested, largest % ROWS, first)"""),
    in_tal("rounded_in_float32", "DECODE", "", "boxes", "return function(*(value.to(wide) for value in values))",
             "return function(*values)"),
    in_tal("arctangent_of_a_quotient", "BOX", "", "boxes", "return arctangent(right - left, bottom - top + EPS)",
             "return ((right - left) / (bottom - top + EPS)).atan()"),
    in_tal("plain_bce", "CLS", "", "terms",
             OWN, f"bce = torch.nn.functional.binary_cross_entropy_with_logits(x, {WANTED}, reduction='none')"),
    in_tal("two_cross_entropies", "THIRD", "", "terms", "log_share = logits.log_softmax(-1)",
             "log_share = logits - logits.logsumexp(-1, keepdim=True)"),
    in_tal("corners_scaled_last", "TARGETS", "", "inputs", "torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), dim=1)",
             "torch.stack(((fractions[:, 0] - fractions[:, 2] / 2) * width, (fractions[:, 1] - fractions[:, 3] / 2) * height,"
             " (fractions[:, 0] + fractions[:, 2] / 2) * width, (fractions[:, 1] + fractions[:, 3] / 2) * height), dim=1)"),
)  # fmt: skip
