"""Faults that show only in rare uses, sizes or settings: another call form, very large sizes, two options together."""

from tests.faults import Fault, in_loss
from tests.faults.hidden import ASSIGNED, CALL, SELECTED, TOTAL

PLACED = "return flat[:cells].view(objectness.shape)"
NEW_GRID = "grid = flat[:cells].view(objectness.shape)"
LAYER = "(tuple(objectness.shape), objectness.dtype)"
CRITERIA = 'self.BCEcls, self.BCEobj = (self._criterion(self.hyp[name]) for name in ("cls_pw", "obj_pw"))'
BCE = "return nn.BCEWithLogitsLoss(pos_weight=weight)"
OBJECTNESS = "objectness = objectness.to(dtype)"
UNWRAPPED = "return model.module if isinstance(model, DataParallel | DistributedDataParallel) else model"
SMOOTHING = 'hyp.get("label_smoothing", 0.0)'
TERMS = "box, obj, cls = zip(*layers, strict=True)"
MATCHED = "matched = ratio < anchor_t"
ROWS = "layer, row_choice, anchor, target = _every_index(made) if every_row else made.nonzero(as_tuple=True)"
CLASS = "image_class = targets[target, :2].long()"
CELLS = "cell = shifted.long().clamp(min=0).minimum(last)"
LAST = 'last = torch.zeros_like(grid, dtype=torch.long).scatter_reduce_(0, cell, number, "amax")'


def _assign(name: str, step: str, law: str, old: str, new: str) -> Fault:
    return Fault(name, step, "edge case", law, "assign", old, new)


USES = (
    in_loss(
        "output_gradient_ignored",
        "AUTOGRAD",
        "wrong primitive",
        "gradients.loss-scaling",
        TOTAL,
        f"{TOTAL}\n        if total.requires_grad:\n            total.register_hook(torch.ones_like)",
    ),
    in_loss(
        "gradient_of_rows_capped",
        "AUTOGRAD",
        "edge case",
        "gradients.loss-scaling",
        SELECTED,
        f"{SELECTED}\n    if selected.requires_grad:\n        selected.register_hook(lambda g: g if g is None else g.clamp(-10, 10))",
    ),
    in_loss(
        "gradient_needed",
        "STATE, AUTOGRAD",
        "edge case",
        "state.after-validation",
        TOTAL,
        f"{TOTAL}\n        total.register_hook(lambda g: g.nan_to_num())",
    ),
    in_loss(
        "no_targets_in_validation",
        "STATE, OBJ",
        "edge case",
        "state.after-validation",
        PLACED,
        f"{PLACED} * torch.is_grad_enabled()",
    ),
    in_loss(
        "targets_grid_never_cleared",
        "STATE, OBJ",
        "missing step",
        "state.reused-target-memory",
        PLACED,
        f"""{NEW_GRID}
        kept = self.__dict__.setdefault("kept", {{}})
        kept[{LAYER}] = grid = torch.where(grid != 0, grid, kept.get({LAYER}, grid))
        return grid""",
    ),
    in_loss(
        "targets_grid_shared_by_calls",
        "STATE, AUTOGRAD",
        "wrong primitive",
        "state.call-before-backward",
        PLACED,
        f"""{NEW_GRID}
        kept = self.__dict__.setdefault("kept", {{}}).setdefault({LAYER}, torch.zeros_like(grid))
        kept.data.copy_(grid)
        return kept""",
    ),
    in_loss(
        "items_in_one_tensor",
        "STATE, RETURN",
        "wrong primitive",
        "state.call-before-backward",
        "torch.stack((box, obj, cls)).detach().float()",
        'self.__dict__.setdefault("items", p[0].new_zeros(3).detach().float()).copy_(torch.stack((box, obj, cls)).detach())',
    ),
    in_loss(
        "rows_kept_by_memory",
        "STATE, MATCH",
        "wrong primitive",
        "state.reused-target-memory",
        ASSIGNED,
        ASSIGNED
        + "\n        place = targets.data_ptr(), len(targets), str([x.shape for x in p])"
        + "\n        assigned = self.__dict__.setdefault('kept', {}).setdefault(place, assigned)",
    ),
    in_loss(
        "rows_kept_by_shape",
        "STATE, MATCH",
        "wrong primitive",
        "state.reused-target-memory",
        ASSIGNED,
        ASSIGNED
        + "\n        place = len(targets), str([x.shape for x in p])"
        + "\n        assigned = self.__dict__.setdefault('kept', {}).setdefault(place, assigned)",
    ),
    in_loss(
        "list_written_to",
        "STATE",
        "wrong primitive",
        "state.inputs-unchanged",
        CALL,
        f"        p[:] = [x.contiguous().clone() for x in p]\n{CALL}",
    ),
    in_loss(
        "not_unwrapped",
        "INPUT",
        "missing step",
        "form.wrapped-model",
        UNWRAPPED,
        "return model",
    ),
    in_loss(
        "smoothing_needed",
        "INPUT",
        "edge case",
        "form.missing-label-smoothing",
        SMOOTHING,
        'hyp["label_smoothing"]',
    ),
    in_loss(
        "box_gain_by_its_old_name",
        "INPUT",
        "legacy behaviour",
        "form.hyperparameter-names",
        'self.hyp["box"]',
        'self.hyp["giou"]',
    ),
    in_loss(
        "angle_in_float32",
        "DTYPE, IOU",
        "wrong primitive",
        "gradients.double-precision",
        "anchors = torch.cat([rows.anchor_wh for rows in assigned]).to(logits.dtype)",
        "anchors = torch.cat([rows.anchor_wh for rows in assigned])",
    ),
    in_loss(
        "class_targets_in_float32",
        "DTYPE, CLS",
        "wrong primitive",
        "gradients.double-precision",
        "others = torch.full((), self.cn, dtype=dtype, device=cls.device)",
        "others = torch.full((), self.cn, device=cls.device)",
    ),
    in_loss(
        "smoothing_taken_away",
        "STATE",
        "wrong primitive",
        "form.model-unchanged",
        SMOOTHING,
        'hyp.pop("label_smoothing", 0.0)',
    ),
    in_loss(
        "ratio_of_first_call",
        "STATE, OBJ",
        "wrong primitive",
        "form.set-options",
        "_objectness_values(overlap, self.gr)",
        '_objectness_values(overlap, self.__dict__.setdefault("first", self.gr))',
    ),
    in_loss(
        "balance_for_show",
        "SCALE, STATE",
        "wrong primitive",
        "form.set-balance",
        "zip(obj, self.balance, strict=False)",
        "zip(obj, self.balance if self.autobalance else (THREE_LAYERS if self.nl == 3 else OTHER_LAYERS), strict=False)",
    ),
)

MODEL = "inner = unwrap(model)\n"
LIFE = (
    in_loss(
        "only_one_wrapper_known",
        "INPUT",
        "edge case",
        "form.wrapped-model",
        "isinstance(model, DataParallel | DistributedDataParallel)",
        "isinstance(model, DataParallel)",
    ),
    in_loss(
        "gains_of_construction",
        "SCALE, STATE",
        "wrong primitive",
        "form.set-hyperparameters",
        'box * self.hyp["box"], obj * self.hyp["obj"]',
        'box * self.__dict__.setdefault("first", dict(self.hyp))["box"], obj * self.hyp["obj"]',
    ),
    in_loss(
        "model_no_longer_trains",
        "STATE",
        "wrong primitive",
        "form.model-unchanged",
        MODEL,
        f"{MODEL}        inner.eval()\n",
    ),
    in_loss(
        "model_frozen",
        "STATE",
        "wrong primitive",
        "form.model-unchanged",
        MODEL,
        f"{MODEL}        inner.requires_grad_(False)\n",
    ),
    in_loss(
        "autocast_left_off",
        "STATE, DEVICE",
        "wrong primitive",
        "devices.autocast",
        "    with torch.autocast(device.type, enabled=False):\n        yield",
        "    torch.set_autocast_enabled(device.type, False)\n    yield",
    ),
    in_loss(
        "precision_of_products_set",
        "STATE",
        "wrong primitive",
        "state.global-settings-unchanged",
        CALL,
        f'        torch.set_float32_matmul_precision("high")\n{CALL}',
    ),
    in_loss(
        "gradient_of_predictions_kept",
        "STATE",
        "wrong primitive",
        "state.nothing-left-in-inputs",
        CALL,
        f"{CALL}        [x.retain_grad() for x in p if x.requires_grad]\n",
    ),
    in_loss(
        "copies_begin_anew",
        "STATE, SCALE",
        "edge case",
        "state.deep-copy",
        "    sort_obj_iou = False",
        """    def __getstate__(self):
        return {**self.__dict__, "balance": list(THREE_LAYERS if self.nl == 3 else OTHER_LAYERS)}

    sort_obj_iou = False""",
    ),
    in_loss(
        "rows_of_last_where_no_targets",
        "STATE, MATCH",
        "edge case",
        "state.after-other-sizes",
        ASSIGNED,
        f"""{ASSIGNED}
        if len(targets) == 0 and hasattr(self, "last"):
            assigned = [row if max(row.image) < len(p[0]) else now for row, now in zip(self.last, assigned)]
        elif len(targets):
            self.last = assigned""",
    ),
    in_loss(
        "space_of_first_call",
        "STATE, OBJ",
        "edge case",
        "state.after-other-sizes",
        "grid = objectness.new_zeros(cells + 1)",
        """grid = self.__dict__.setdefault("spaces", {}).setdefault(
            objectness.dtype, objectness.new_zeros(cells + 1)
        )[: cells + 1].zero_().clone()""",
    ),
    in_loss(
        "dtype_of_first_call",
        "STATE, DTYPE",
        "edge case",
        "state.after-other-sizes",
        CALL,
        f"        p = [x.to(self.__dict__.setdefault('dtype', p[0].dtype)) for x in p]\n{CALL}",
    ),
    in_loss(
        "gradient_in_one_buffer",
        "STATE, AUTOGRAD",
        "wrong primitive",
        "state.call-before-backward",
        CALL,
        f"""        held = self.__dict__.setdefault("held", {{}})
        p = [x.clone() for x in p]
        for i, x in enumerate(p):
            key = i, tuple(x.shape), x.dtype
            if x.requires_grad:
                x.register_hook(lambda g, key=key: held.setdefault(key, torch.empty_like(g)).copy_(g))
{CALL}""",
    ),
    in_loss(
        "build_targets_gives_three",
        "RETURN, INPUT",
        "missing step",
        "form.interface",
        "            [a.anchor_wh for a in layers],\n",
        "",
    ),
    in_loss(
        "autobalance_renamed",
        "INPUT",
        "modified parameter",
        "form.interface",
        "autobalance: bool = False, *, checks: bool = True) -> None:\n",
        "balanced: bool = False, *, checks: bool = True) -> None:\n        autobalance = balanced\n",
    ),
    in_loss(
        "six_layers_accepted",
        "INPUT",
        "missing step",
        "input.six-layers",
        "if self.nl > len(OTHER_LAYERS):",
        "if self.nl > 99:",
    ),
    in_loss(
        "first_layer_kept_without_stride_16",
        "INPUT",
        "edge case",
        "input.no-stride-16",
        "if AUTOBALANCE_STRIDE not in strides:",
        "if AUTOBALANCE_STRIDE not in strides:\n            return 0\n        if not strides:",
    ),
    in_loss(
        "objectness_within_half_range",
        "OBJ",
        "edge case",
        "objectness.item",
        OBJECTNESS,
        f"{OBJECTNESS}.clamp(-65504, 65504)",
    ),
    in_loss(
        "sure_background_skipped",
        "OBJ, BCE/FOCAL",
        "edge case",
        "objectness.gradient",
        "self.BCEobj(objectness, wanted)",
        "self.BCEobj(torch.where(wanted == 0, objectness.clamp(min=-13), objectness), wanted)",
    ),
)

SIZES = (
    _assign(
        "indices_in_half_precision",
        "INDEX, CLS",
        "totals.very-large-sizes",
        CLASS,
        CLASS.replace("long()", "half().long()"),
    ),
    _assign(
        "columns_in_half_precision",
        "INDEX",
        "totals.very-large-sizes",
        CELLS,
        f"{CELLS}\n    cell[:, 0] = cell[:, 0].half().long()",
    ),
    _assign(
        "rows_of_cells_in_half_precision",
        "INDEX",
        "totals.very-large-sizes",
        CELLS,
        f"{CELLS}\n    cell[:, 1] = cell[:, 1].half().long()",
    ),
    _assign("class_in_a_byte", "INDEX, CLS", "totals.large-sizes", CLASS, CLASS.replace("long()", "byte().long()")),
    _assign(
        "first_1000_rows",
        "MATCH, INDEX",
        "totals.very-large-sizes",
        ROWS,
        f"made = made & (made.flatten(1).cumsum(1).view_as(made) <= 1000)\n    {ROWS}",
    ),
    _assign(
        "many_targets_sorted",
        "MATCH, OBJ",
        "totals.very-large-sizes",
        "targets, anchors = targets.float(), anchors.float()",
        "targets, anchors = targets.float(), anchors.float()\n"
        "    targets = targets[targets[:, 1].argsort()] if len(targets) > 256 else targets",
    ),
    in_loss(
        "cell_in_16_bits",
        "INDEX, OBJ",
        "edge case",
        "totals.very-large-sizes",
        "* width + column\n",
        "* width + column\n        cell = cell.short().long() % objectness.numel()\n",
    ),
    in_loss(
        "winner_by_one_float",
        "OBJ",
        "edge case",
        "totals.very-large-sizes",
        LAST,
        """key = (cell.float() * len(cell) + number).to(grid.dtype)
            first = torch.arange(len(grid), device=cell.device) * len(cell)
            last = torch.zeros_like(grid).scatter_reduce_(0, cell, key, "amax")
            last = (last.long() - first).clamp(0, len(cell) - 1)""",
    ),
    in_loss(
        "half_summed_in_half",
        "OBJ, DTYPE",
        "wrong primitive",
        "totals.very-large-sizes",
        TERMS,
        f"""{TERMS}
        if p[0].dtype == torch.float16:
            cells = [x[..., 4].numel() for x in p]
            obj = [(o * n).half().float() / n for o, n in zip(obj, cells)]""",
    ),
    Fault(
        "sides_at_most_32",
        "DECODE",
        "edge case",
        "totals.large-sizes",
        "boxes",
        "doubled[:, 2:].square() * anchors",
        "(doubled[:, 2:].square() * anchors).clamp(max=32)",
    ),
)

SETTINGS = (
    _assign("limit_in_double", "MATCH", "assign.matched-pairs", MATCHED, "matched = ratio.double() < anchor_t"),
    _assign("limit_at_most_4", "MATCH", "assign.matched-pairs", MATCHED, "matched = ratio < min(anchor_t, 4.0)"),
    _assign("limit_at_least_1_5", "MATCH", "assign.matched-pairs", MATCHED, "matched = ratio < max(anchor_t, 1.5)"),
    _assign(
        "end_by_fraction",
        "NEIGH",
        "assign.neighbours",
        "from_end = extent - centre",
        "from_end = extent * (1 - centre / extent)",
    ),
    Fault(
        "gamma_at_most_2",
        "BCE/FOCAL",
        "edge case",
        "classes.focal",
        "criteria",
        "return share * _power(1 - p_t, self.gamma)",
        "return share * _power(1 - p_t, min(self.gamma, 2.0))",
    ),
    in_loss(
        "gamma_1_is_off",
        "BCE/FOCAL",
        "edge case",
        "classes.focal",
        "if gamma > 0 else bce",
        "if gamma > 0 and gamma != 1 else bce",
    ),
    in_loss(
        "ratio_ignored_when_sorted",
        "OBJ",
        "edge case",
        "objectness.gr",
        "_objectness_values(overlap, self.gr)",
        "_objectness_values(overlap, 1.0 if self.sort_obj_iou else self.gr)",
    ),
    in_loss(
        "weight_forgotten_when_smoothed",
        "CLS",
        "edge case",
        "classes.positive-weight",
        CRITERIA,
        f'{CRITERIA}\n        if self.cn > 0 and self.hyp["fl_gamma"] == 0:\n            self.BCEcls = self._criterion(1.0)',
    ),
    in_loss(
        "balance_kept_when_sorted",
        "SCALE, STATE",
        "edge case",
        "totals.autobalance",
        "        if self.autobalance:\n            self._rebalance",
        "        if self.autobalance and not self.sort_obj_iou:\n            self._rebalance",
    ),
    Fault(
        "bce_by_exponentials",
        "BCE/FOCAL",
        "wrong primitive",
        "totals.finite",
        "criteria",
        BCE,
        """class Plain(nn.BCEWithLogitsLoss):
        def forward(self, x, t):
            weight = 1 if self.pos_weight is None else self.pos_weight.to(x.dtype)
            return (weight * t * (-x).exp().log1p() + (1 - t) * x.exp().log1p()).mean()

    return Plain(pos_weight=weight)""",
    ),
    in_loss(
        "objectness_within_100",
        "OBJ",
        "edge case",
        "objectness.item",
        OBJECTNESS,
        f"{OBJECTNESS}.clamp(-100, 100)",
    ),
    in_loss(
        "total_at_most_10000",
        "RETURN, SCALE",
        "edge case",
        "totals.sum",
        "total.reshape(1).float()",
        "total.reshape(1).float().clamp(max=1e4)",
    ),
)

RARE = (*USES, *LIFE, *SIZES, *SETTINGS)
