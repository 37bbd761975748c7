"""Faults of the objectness and class terms, and of their criteria."""

from tests.faults import Fault, faults_of, in_loss

VALUE = "(1 - gr) + gr * overlap.detach().clamp(min=0)"
OBJECTNESS = "self.BCEobj(objectness, wanted)"
AT_CLASS = "torch.where(at_class, self.cp, others)"
SELECTED = "self.BCEcls(selected[:, 5:], truth)"
P_T = "p_t = targets * probability + (1 - targets) * (1 - probability)"
ITEM, TARGET, CLASSES, FOCAL = "objectness.item", "objectness.target", "classes.item", "classes.focal"


_obj = faults_of("OBJ", "loss", TARGET)
_cls = faults_of("CLS", "loss", CLASSES)
_criterion = faults_of("BCE/FOCAL", "criteria", FOCAL)

OBJ = (
    _obj("negative_targets", "known field bug", ".clamp(min=0)", "", "F42", "objectness.target-range"),
    _obj("target_is_one", "legacy behaviour", VALUE, "torch.ones_like(overlap)", "F45"),
    _obj("target_is_plain", "missing step", VALUE, "gr * overlap.detach().clamp(min=0)", law="objectness.gr"),
    _obj("ratio_ignored", "missing step", VALUE, "overlap.detach().clamp(min=0)", law="objectness.gr"),
    _obj("ratio_reversed", "wrong primitive", VALUE, "gr + (1 - gr) * overlap.detach().clamp(min=0)"),
    _obj("target_capped", "modified parameter", VALUE, f"{VALUE}.clamp(0, 0.9)"),
    _obj("target_in_half", "wrong primitive", VALUE, f"({VALUE}).half().to(overlap.dtype)"),
    _obj(
        "target_of_box_shifted", "wrong primitive", VALUE, "(1 - gr) + gr * (overlap.detach() / 2 + 0.5).clamp(min=0)"
    ),
    Fault(
        "objectness_of_a_class",
        "OBJ",
        "wrong primitive",
        "objectness.gradient",
        "gather",
        "OBJECTNESS = 4",
        "OBJECTNESS = 5",
    ),
    _obj(
        "background_not_zero",
        "modified parameter",
        "grid = objectness.new_zeros(cells + 1)",
        "grid = objectness.new_full((cells + 1,), 0.1)",
        law="objectness.background",
    ),
    _obj(
        "first_row_wins",
        "wrong primitive",
        'cell, number, "amax")',
        'cell, number, "amin", include_self=False)',
        "F40",
        "objectness.last-row-wins",
    ),
    _obj(
        "shared_cells_averaged",
        "wrong primitive",
        "grid.scatter_(0, cell, values[last[cell]])",
        'grid.scatter_reduce_(0, cell, values, "mean", include_self=False)',
        "F40",
        "objectness.last-row-wins",
    ),
    _obj(
        "shared_cells_summed",
        "wrong primitive",
        "grid.scatter_(0, cell, values[last[cell]])",
        "grid.scatter_add_(0, cell, values)",
        law="objectness.target-range",
    ),
    _obj("always_sorted", "modified parameter", "if self.sort_obj_iou", "if True", law="objectness.last-row-wins"),
    _obj("never_sorted", "missing step", "if self.sort_obj_iou", "if False", law="objectness.largest-ciou-wins"),
    _obj("smallest_wins", "wrong primitive", 'values, "amax"', 'values, "amin"', law="objectness.largest-ciou-wins"),
    _obj(
        "sorting_needs_two_rows",
        "known field bug",
        'cell, values, "amax"',
        'torch.stack([cell[i] for i in values.squeeze().argsort()]), values.sort().values, "amax"',
        "F41",
        "run.no-exception",
    ),
    _obj(
        "padding_erases_first_cell",
        "known field bug",
        "return flat[:cells]",
        "return flat.index_fill(0, cell.new_zeros(1), 0)[:cells]",
        "F44",
    ),
    _obj(
        "empty_layers_skipped",
        "known field bug",
        "return zero, self.BCEobj(objectness, torch.zeros_like(objectness)), zero",
        "return zero, zero, zero",
        "F46",
        "objectness.background-gradient",
    ),
    in_loss(
        "mean_of_nothing",
        "IOU, CLS",
        "known field bug",
        "totals.finite",
        "if not len(rows.cls):",
        "if not objectness.numel():",
        "F67",
    ),
    _obj(
        "empty_is_one",
        "wrong primitive",
        "zero = objectness.new_zeros(())",
        "zero = objectness.new_ones(())",
        law="assign.no-targets",
    ),
    _obj(
        "rows_only", "missing step", OBJECTNESS, "self.BCEobj(objectness[rows.indices], wanted[rows.indices])", law=ITEM
    ),
    _obj(
        "images_with_targets_only",
        "edge case",
        OBJECTNESS,
        "self.BCEobj(objectness[rows.image.unique()], wanted[rows.image.unique()])",
        law=ITEM,
    ),
    _obj(
        "nearly_right_ignored",
        "legacy behaviour",
        OBJECTNESS,
        "self.BCEobj(torch.where((wanted > 0) & (wanted < 0.2), -40.0, objectness), wanted)",
        law=ITEM,
    ),
    _obj(
        "confident_background_skipped",
        "edge case",
        "objectness = objectness.to(dtype)",
        "objectness = objectness.to(dtype).clamp(min=-9.0)",
        law="objectness.gradient",
    ),
    _obj(
        "early_return_without_targets",
        "edge case",
        "        with _full_precision(self.device):\n            objectness, selected",
        "        if not len(targets):\n            return tuple(p[0].float().sum() * 0 for _ in range(3))\n        with _full_precision(self.device):\n            objectness, selected",
        law="objectness.background-gradient",
    ),
)

CLS = (
    _cls(
        "right_class_pushed_away",
        "wrong primitive",
        AT_CLASS,
        "torch.where(at_class, others, self.cp)",
        law="classes.gradient-sign",
    ),
    _cls(
        "classes_up_to_own",
        "wrong primitive",
        "cls[:, None] == torch",
        "cls[:, None] >= torch",
        law="classes.gradient-sign",
    ),
    _cls(
        "classes_reversed",
        "wrong primitive",
        "selected[:, 5:], truth",
        "selected[:, 5:].flip(1), truth",
        law="classes.gradient-sign",
    ),
    _cls(
        "next_class",
        "edge case",
        "cls[:, None] == torch",
        "(cls[:, None] + 1) % self.nc == torch",
        law="classes.gradient-sign",
    ),
    _cls(
        "last_class_is_first",
        "edge case",
        "cls[:, None] == torch",
        "cls[:, None] % max(self.nc - 1, 1) == torch",
        law="classes.gradient-sign",
    ),
    Fault(
        "classes_from_objectness_on",
        "CLS, OBJ",
        "wrong primitive",
        CLASSES,
        "loss",
        "selected[:, 5:], truth",
        "selected[:, 4:-1], truth",
        "F31",
    ),
    _cls(
        "class_target_is_overlap",
        "known field bug",
        SELECTED,
        "self.BCEcls(selected[:, 5:], torch.where(truth > 0.5, overlap.detach().clamp(0, 1)[:, None], self.cn))",
        "F43",
    ),
    Fault(
        "class_target_attached",
        "CLS, AUTOGRAD",
        "known field bug",
        "boxes.gradient",
        "loss",
        SELECTED,
        "self.BCEcls(selected[:, 5:], truth * (1 + (overlap - overlap.detach())[:, None]))",
        "F43",
    ),
    _cls(
        "own_class_only",
        "missing step",
        SELECTED,
        "self.BCEcls(selected[:, 5:].gather(1, rows.cls[:, None]), torch.full_like(overlap, self.cp)[:, None])",
    ),
    _cls("divided_by_classes_again", "known field bug", SELECTED, f"{SELECTED} / self.nc", "F49"),
    _cls(
        "cross_entropy", "legacy behaviour", SELECTED, "nn.functional.cross_entropy(selected[:, 5:], rows.cls)", "F49"
    ),
    _cls("classes_summed", "wrong primitive", SELECTED, f"{SELECTED} * self.nc"),
    in_loss(
        "classes_of_first_anchor",
        "CLS, INDEX",
        "known field bug",
        "classes.gradient",
        "selected = selected.to(dtype)",
        "first = gather(logits, (rows.image, 0 * rows.anchor, *rows.indices[2:]))[1]\n"
        "    selected = torch.cat((selected[:, :5], first[:, 5:]), dim=1).to(dtype)",
        "F50",
    ),
    _cls("one_class_learnt", "known field bug", "if self.nc > 1", "if self.nc > 0", "F48", "classes.one-class"),
    _cls("two_classes_not_learnt", "edge case", "if self.nc > 1", "if self.nc > 2"),
    _cls(
        "smoothing_ignored",
        "legacy behaviour",
        'smooth_bce(hyp.get("label_smoothing", 0.0))',
        "smooth_bce()",
        "F47",
        "classes.label-smoothing",
    ),
    Fault(
        "smoothing_doubled",
        "CLS",
        "modified parameter",
        "classes.label-smoothing",
        "criteria",
        "return 1.0 - 0.5 * smoothing, 0.5 * smoothing",
        "return 1.0 - smoothing, smoothing",
    ),
    Fault(
        "smoothing_of_positives_only",
        "CLS",
        "missing step",
        "classes.label-smoothing",
        "criteria",
        "return 1.0 - 0.5 * smoothing, 0.5 * smoothing",
        "return 1.0 - 0.5 * smoothing, 0.0",
    ),
    _cls(
        "smoothing_over_classes",
        "legacy behaviour",
        AT_CLASS,
        "torch.where(at_class, self.cp, 2 * others / self.nc)",
        law="classes.label-smoothing",
    ),
)

CRITERIA = (
    Fault(
        "weights_swapped", "BCE/FOCAL", "wrong primitive", ITEM, "loss", '("cls_pw", "obj_pw")', '("obj_pw", "cls_pw")'
    ),
    Fault(
        "one_weight_for_both",
        "BCE/FOCAL",
        "wrong primitive",
        "classes.positive-weight",
        "loss",
        '("cls_pw", "obj_pw")',
        '("obj_pw", "obj_pw")',
    ),
    Fault("focal_never", "BCE/FOCAL", "missing step", FOCAL, "loss", "if gamma > 0 else", "if gamma > 99 else"),
    Fault("focal_above_one_only", "BCE/FOCAL", "edge case", FOCAL, "loss", "if gamma > 0 else", "if gamma > 1 else"),
    Fault("focal_always", "BCE/FOCAL", "edge case", ITEM, "loss", "if gamma > 0 else", "if gamma >= 0 else"),
    Fault("gamma_fixed", "BCE/FOCAL", "modified parameter", FOCAL, "loss", "FocalLoss(bce, gamma)", "FocalLoss(bce)"),
    Fault(
        "focal_for_objectness_only",
        "BCE/FOCAL",
        "missing step",
        FOCAL,
        "loss",
        'for name in ("cls_pw", "obj_pw"))',
        'for name in ("cls_pw", "obj_pw"))\n        self.BCEcls = bce_loss(self.hyp["cls_pw"], self.device)',
    ),
    _criterion(
        "weight_ignored",
        "missing step",
        "nn.BCEWithLogitsLoss(pos_weight=weight)",
        "nn.BCEWithLogitsLoss()",
        law="classes.positive-weight",
    ),
    _criterion(
        "weight_is_of_all",
        "wrong primitive",
        "nn.BCEWithLogitsLoss(pos_weight=",
        "nn.BCEWithLogitsLoss(weight=",
        law="classes.positive-weight",
    ),
    _criterion(
        "focal_without_weight", "missing step", "            pos_weight=self.loss_fcn.pos_weight,\n", "", law=ITEM
    ),
    _criterion("focal_the_wrong_way", "wrong primitive", "_power(1 - p_t", "_power(p_t"),
    _criterion(
        "focal_without_alpha",
        "missing step",
        "return share * _power(1 - p_t, self.gamma)",
        "return _power(1 - p_t, self.gamma)",
    ),
    _criterion(
        "alpha_reversed",
        "wrong primitive",
        f"targets * self.alpha + (1 - targets) * (1 - self.alpha)\n        {P_T}",
        f"(1 - targets) * self.alpha + targets * (1 - self.alpha)\n        {P_T}",
    ),
    _criterion(
        "alpha_is_half",
        "modified parameter",
        "gamma: float = 1.5, alpha: float = 0.25)",
        "gamma: float = 1.5, alpha: float = 0.5)",
    ),
    _criterion(
        "focal_of_hard_labels",
        "known field bug",
        P_T,
        "p_t = torch.where(targets > 0.5, probability, 1 - probability)",
        "F52",
        ITEM,
    ),
    _criterion(
        "quality_focal_instead",
        "wrong primitive",
        "_power(1 - p_t, self.gamma)",
        "_power((targets - probability).abs(), self.gamma)",
    ),
    _criterion("focal_of_the_mean", "known field bug", 'reduction="none",', 'reduction="mean",', "F53"),
    _criterion(
        "focal_summed",
        "wrong primitive",
        'weighted.mean() if self.loss_fcn.reduction == "mean" else',
        'weighted.sum() if self.loss_fcn.reduction == "mean" else',
    ),
    Fault(
        "focal_factor_detached",
        "BCE/FOCAL, AUTOGRAD",
        "wrong primitive",
        FOCAL,
        "criteria",
        "self.weight(logits.sigmoid(), targets)",
        "self.weight(logits.sigmoid().detach(), targets)",
    ),
    Fault(
        "power_of_zero",
        "BCE/FOCAL, AUTOGRAD",
        "known field bug",
        "gradients.finite",
        "criteria",
        "    positive = base > torch",
        "    return base**gamma\n    positive = base > torch",
    ),
    _criterion("focal_logits_capped", "edge case", "limit = min(1e30, torch", "limit = min(5, torch"),
    _criterion(
        "bce_by_logarithms",
        "known field bug",
        "return nn.BCEWithLogitsLoss(pos_weight=weight)",
        "found = nn.BCEWithLogitsLoss(pos_weight=weight)\n"
        "    found.register_forward_pre_hook(_as_logits_of_clamped)\n"
        "    return found\n\n\n"
        "def _as_logits_of_clamped(module: nn.Module, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:\n"
        "    probability = given[0].sigmoid().clamp(1e-4, 1 - 1e-4)\n"
        "    return (probability / (1 - probability)).log(), given[1]",
        "F56",
        "objectness.gradient",
    ),
)

TARGETS = (*OBJ, *CLS, *CRITERIA)
