"""Faults that show only in another call, another dtype, or the gradient: state, dtype, autograd."""

from tests.faults import Fault, in_loss

CALL = "        box, obj, cls = self.terms(p, targets)\n"
TOTAL = "total = (box + obj + cls) * p[0].shape[0]"
DTYPE = "dtype = torch.promote_types(logits.dtype, torch.float32)"
SELECTED = "selected = selected.to(dtype)"
ASSIGN_LAYER = """            return [
                assign_layer(
                    targets, anchors, (layer.shape[2], layer.shape[3]), self.hyp["anchor_t"], every_row=every_row
                )
                for layer, anchors in zip(p, self.anchors, strict=True)
            ]"""
ASSIGNED = "assigned = self._assign(p, targets, every_row=not self.checks)"
MEAN = "missed.mean()"
SUMS = "terms = _sum(box), _sum(weighted), _sum(cls)"


def _gather(name: str, step: str, kind: str, law: str, old: str, new: str) -> Fault:
    return Fault(name, f"AUTOGRAD, {step}", kind, law, "gather", old, new)


STATE = (
    in_loss(
        "grows_with_calls",
        "STATE",
        "wrong primitive",
        "state.repeated-calls",
        CALL,
        f"{CALL}        self.calls = getattr(self, 'calls', 0) + 1\n        obj = obj * 1.01 ** (self.calls - 1)\n",
    ),
    in_loss(
        "first_call_warms_up",
        "STATE, SCALE",
        "edge case",
        "state.repeated-calls",
        CALL,
        f"{CALL}        box, self.warm = box * getattr(self, 'warm', 0.5), 1.0\n",
    ),
    in_loss(
        "counts_in_the_class",
        "STATE",
        "wrong primitive",
        "state.second-object",
        CALL,
        f"        type(self).seen = getattr(type(self), 'seen', 0) + 1\n        self.gr = 1 - 1e-3 * type(self).seen\n{CALL}",
    ),
    in_loss(
        "adds_up_losses",
        "STATE",
        "wrong primitive",
        "state.repeated-calls",
        CALL,
        f"{CALL}        obj = self.last = obj + getattr(self, 'last', 0.0)\n",
    ),
    in_loss(
        "anchors_kept_by_grid",
        "STATE, MATCH",
        "wrong primitive",
        "assign.matched-pairs",
        ASSIGN_LAYER,
        """            cached = type(self).__dict__.get('cached') or {}
            type(self).cached = cached
"""
        + ASSIGN_LAYER.replace("targets, anchors,", "targets, cached.setdefault((layer.shape[1:4], len(p)), anchors),"),
    ),
    in_loss(
        "random",
        "STATE",
        "wrong primitive",
        "state.repeated-calls",
        TOTAL,
        f"{TOTAL} * (1 + 1e-2 * torch.rand((), device=p[0].device))",
    ),
    in_loss(
        "seeds_the_generator",
        "STATE",
        "wrong primitive",
        "state.rng-unchanged",
        CALL,
        f"        torch.manual_seed(0)\n{CALL}",
    ),
    in_loss(
        "as_many_as_threads",
        "STATE",
        "wrong primitive",
        "state.thread-count",
        TOTAL,
        "total = (box + obj + cls) * p[0].shape[0] * torch.get_num_threads()",
    ),
    in_loss(
        "sets_the_default_dtype",
        "STATE",
        "wrong primitive",
        "state.global-settings-unchanged",
        CALL,
        f"        torch.set_default_dtype(torch.float64)\n{CALL}",
    ),
    in_loss(
        "switches_anomaly_detection_on",
        "STATE",
        "wrong primitive",
        "state.global-settings-unchanged",
        CALL,
        f"        torch.autograd.set_detect_anomaly(True, check_nan=False)\n{CALL}",
    ),
    in_loss("prints", "STATE", "wrong primitive", "run.no-output", CALL, f"{CALL}        print(float(box))\n"),
    in_loss(
        "scales_targets_in_place",
        "STATE, INDEX",
        "wrong primitive",
        "state.inputs-unchanged",
        CALL,
        f"{CALL}        targets[:, 2:] *= p[0].shape[3]\n",
    ),
    in_loss(
        "writes_to_predictions",
        "STATE, AUTOGRAD",
        "known field bug",
        "state.inputs-unchanged",
        CALL,
        f"{CALL}        p[0].detach()[..., 4].sigmoid_()\n",
        "F66",
    ),
    in_loss(
        "copies_forget",
        "STATE",
        "wrong primitive",
        "state.deep-copy",
        "    sort_obj_iou = False",
        "    def __getstate__(self):\n        return {**self.__dict__, 'gr': 0.5}\n\n    sort_obj_iou = False",
    ),
    in_loss(
        "reads_as_contiguous",
        "STATE, INDEX",
        "wrong primitive",
        "state.non-contiguous",
        "objectness = objectness.to(dtype)",
        "objectness = logits.as_strided(logits.shape[:4], torch.empty(logits.shape).stride()[:4], 4).to(dtype)",
    ),
    in_loss(
        "views_as_contiguous",
        "STATE, INDEX",
        "edge case",
        "run.no-exception",
        "objectness = objectness.to(dtype)",
        "objectness = logits.view(-1, logits.shape[-1])[:, 4].view(logits.shape[:4]).to(dtype)",
    ),
)

KEPT = (
    in_loss(
        "batch_of_first_call",
        "STATE, SCALE",
        "edge case",
        "state.after-other-sizes",
        TOTAL,
        "total = (box + obj + cls) * self.__dict__.setdefault('batch', p[0].shape[0])",
    ),
    in_loss(
        "grids_of_first_call",
        "STATE, INDEX",
        "edge case",
        "state.after-other-sizes",
        ASSIGN_LAYER,
        """            self.grids = getattr(self, "grids", [(x.shape[2], x.shape[3]) for x in p])
            return [
                assign_layer(targets, anchors, grid, self.hyp["anchor_t"], every_row=every_row)
                for grid, anchors in zip(self.grids, self.anchors, strict=True)
            ]""",
    ),
    in_loss(
        "no_more_targets_than_first",
        "STATE, MATCH",
        "edge case",
        "state.after-other-sizes",
        ASSIGNED,
        f"targets = targets[: self.__dict__.setdefault('most', max(len(targets), 1))]\n        {ASSIGNED}",
    ),
    in_loss(
        "rows_kept_by_number_of_targets",
        "STATE, MATCH",
        "edge case",
        "state.reused-target-memory",
        ASSIGNED,
        ASSIGNED + "\n        assigned = self.__dict__.setdefault('kept', {}).setdefault(len(targets), assigned)",
    ),
)

DEVICE = (
    in_loss(
        "device_hard_coded",
        "DEVICE",
        "known field bug",
        "run.no-exception",
        "zero = objectness.new_zeros(())",
        'zero = torch.zeros((), device="cuda:0")',
        "F68",
    ),
)

DTYPES = (
    Fault(
        "dtype_of_targets",
        "DTYPE, MATCH",
        "wrong primitive",
        "assign.matched-pairs",
        "assign",
        "targets.float(), anchors.float()",
        "targets, anchors.to(targets.dtype)",
    ),
    Fault(
        "targets_in_double",
        "DTYPE, MATCH",
        "wrong primitive",
        "assign.rows",
        "assign",
        "targets.float(), anchors.float()",
        "targets.double(), anchors.double()",
    ),
    Fault(
        "centres_in_bfloat16",
        "DTYPE, TBOX",
        "wrong primitive",
        "assign.box-plus-cell",
        "assign",
        "torch.cat((centre - cell, size), dim=1)",
        "torch.cat((centre.bfloat16().float() - cell, size), dim=1)",
    ),
    in_loss(
        "half_capped",
        "DTYPE",
        "edge case",
        "objectness.gradient",
        "objectness = objectness.to(dtype)",
        "objectness = objectness.to(dtype).clamp(-8, 8) if logits.dtype == torch.float16 else objectness.to(dtype)",
    ),
    in_loss(
        "half_scaled",
        "DTYPE",
        "edge case",
        "boxes.gradient",
        SELECTED,
        f"{SELECTED} * (0.9 if logits.dtype == torch.bfloat16 else 1)",
    ),
    in_loss(
        "double_refused",
        "DTYPE",
        "edge case",
        "run.no-exception",
        "grid = objectness.new_zeros(cells + 1)",
        "grid = objectness.new_zeros(cells + 1, dtype=torch.float32)",
    ),
    in_loss(
        "bfloat16_refused",
        "DTYPE",
        "edge case",
        "run.no-exception",
        DTYPE,
        f"{DTYPE}\n    _ = logits.detach().cpu().numpy()",
    ),
    in_loss(
        "double_total",
        "DTYPE, RETURN",
        "missing step",
        "totals.shape-and-dtype",
        "total.reshape(1).float()",
        "total.reshape(1).double()",
    ),
    in_loss(
        "total_of_predictions_dtype",
        "DTYPE, RETURN",
        "missing step",
        "totals.shape-and-dtype",
        "total.reshape(1).float()",
        "total.reshape(1).to(p[0].dtype)",
    ),
    in_loss(
        "items_of_predictions_dtype",
        "DTYPE, RETURN",
        "missing step",
        "totals.shape-and-dtype",
        ".detach().float()",
        ".detach().to(p[0].dtype)",
    ),
    in_loss(
        "sizes_in_half",
        "DTYPE, DECODE",
        "wrong primitive",
        "boxes.item",
        "boxes.decode(logits, anchors)",
        "boxes.decode(logits, anchors).half().to(logits.dtype)",
        "F34",
    ),
)

AUTOGRAD = (
    in_loss(
        "target_attached",
        "AUTOGRAD, OBJ",
        "known field bug",
        "objectness.target-detached",
        "overlap.detach().clamp",
        "overlap.clamp",
        "F43",
    ),
    Fault(
        "alpha_attached",
        "AUTOGRAD, IOU",
        "missing step",
        "boxes.gradient",
        "boxes",
        ".clamp(min=eps)).detach()",
        ".clamp(min=eps))",
    ),
    Fault(
        "aspect_detached",
        "AUTOGRAD, IOU",
        "wrong primitive",
        "boxes.gradient",
        "boxes",
        "ciou_alpha(v, o.iou, eps) * v)",
        "ciou_alpha(v, o.iou, eps) * v.detach())",
    ),
    Fault(
        "distance_by_root",
        "AUTOGRAD, IOU",
        "wrong primitive",
        "gradients.finite",
        "boxes",
        "between.square().sum(-1)",
        "between.square().sum(-1).sqrt().square()",
    ),
    Fault(
        "centres_not_learnt",
        "AUTOGRAD, DECODE",
        "wrong primitive",
        "boxes.gradient",
        "boxes",
        "doubled[:, :2] - 0.5",
        "doubled[:, :2].detach() - 0.5",
    ),
    Fault(
        "angle_not_learnt",
        "AUTOGRAD, DECODE",
        "wrong primitive",
        "boxes.gradient",
        "boxes",
        ".exp().atan()",
        ".exp().atan().detach()",
    ),
    Fault(
        "doubled_in_place",
        "AUTOGRAD, DECODE",
        "known field bug",
        "run.no-exception",
        "boxes",
        "logits.sigmoid().mul(2)",
        "logits.sigmoid().mul_(2)",
        "F55",
    ),
    in_loss(
        "leak",
        "AUTOGRAD",
        "wrong primitive",
        "gradients.zero-unassigned-cells",
        SUMS,
        SUMS.replace("_sum(box)", "_sum(box) + 1e-6 * (p[0] - p[0].detach()).float().mean()"),
    ),
    in_loss(
        "double_gradient",
        "AUTOGRAD, OBJ",
        "wrong primitive",
        "objectness.gradient",
        "objectness = objectness.to(dtype)",
        "objectness = (2 * objectness - objectness.detach()).to(dtype)",
    ),
    in_loss(
        "half_the_gradient_of_rows",
        "AUTOGRAD, IOU, CLS",
        "wrong primitive",
        "boxes.gradient",
        SELECTED,
        f"{SELECTED}\n    selected = selected * 0.5 + selected.detach() * 0.5",
    ),
    in_loss(
        "rows_not_learnt",
        "AUTOGRAD, IOU, CLS",
        "wrong primitive",
        "boxes.gradient",
        SELECTED,
        f"{SELECTED}.detach()",
    ),
    in_loss(
        "classes_pull_boxes",
        "AUTOGRAD, CLS",
        "wrong primitive",
        "boxes.gradient",
        MEAN,
        f"{MEAN} + 0.1 * (selected[:, 0] - selected[:, 0].detach()).mean()",
    ),
    in_loss(
        "last_row_has_no_gradient",
        "AUTOGRAD, IOU",
        "edge case",
        "boxes.gradient",
        MEAN,
        "torch.cat((missed[:-1], missed[-1:].detach())).mean()",
    ),
    in_loss(
        "shared_rows_learn_once",
        "AUTOGRAD, INDEX, IOU",
        "edge case",
        "boxes.gradient",
        SELECTED,
        f"{SELECTED}\n    if len(set(zip(*(i.tolist() for i in rows.indices)))) < len(rows.cls):\n        selected = torch.cat((selected[:1].detach(), selected[1:]))",
    ),
    in_loss(
        "total_detached",
        "AUTOGRAD, RETURN",
        "missing step",
        "totals.total-has-gradient",
        "total.reshape(1).float()",
        "total.reshape(1).float().detach()",
    ),
    in_loss(
        "gradient_off_without_targets",
        "AUTOGRAD, OBJ",
        "edge case",
        "totals.total-has-gradient",
        "return zero, self.BCEobj(objectness, torch.zeros_like(objectness)), zero",
        "return zero, self.BCEobj(objectness, torch.zeros_like(objectness)).detach(), zero",
    ),
    in_loss("items_attached", "AUTOGRAD, RETURN", "missing step", "totals.items-detached", "cls)).detach()", "cls))"),
    in_loss(
        "sums_in_place",
        "AUTOGRAD",
        "known field bug",
        "run.no-exception",
        SUMS,
        "sums = torch.zeros(3, 1, device=self.device, requires_grad=True)\n        sums[1] += _sum(weighted)\n        terms = _sum(box), sums[1, 0], _sum(cls)",
        "F64",
    ),
)

GATHER = (
    _gather(
        "shared_gradients_overwritten",
        "INDEX",
        "wrong primitive",
        "boxes.gradient",
        "accumulate=True",
        "accumulate=False",
    ),
    _gather(
        "objectness_gradient_forgotten",
        "OBJ",
        "missing step",
        "objectness.gradient",
        "        logits[..., OBJECTNESS] = objectness\n",
        "",
    ),
    _gather(
        "objectness_gradient_off_by_a_channel",
        "OBJ",
        "modified parameter",
        "objectness.gradient",
        "logits[..., OBJECTNESS] = objectness",
        "logits[..., OBJECTNESS - 1] = objectness",
    ),
    _gather(
        "row_gradients_forgotten",
        "IOU, CLS",
        "missing step",
        "boxes.gradient",
        "logits.index_put_(indices, rows, accumulate=True)",
        "logits",
    ),
    _gather(
        "background_has_a_gradient",
        "DTYPE",
        "wrong primitive",
        "gradients.zero-unassigned-cells",
        "rows.new_zeros(ctx.shape)",
        "rows.new_full(ctx.shape, 1e-6)",
    ),
)

HIDDEN = (*STATE, *KEPT, *DEVICE, *DTYPES, *AUTOGRAD, *GATHER)
