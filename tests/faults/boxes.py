"""Faults of the box term: decoding and overlap."""

from tests.faults import Fault, faults_of

XY, WH = "doubled[:, :2] - 0.5", "doubled[:, 2:].square() * anchors"
CIOU = "return o.iou - (distance + ciou_alpha(v, o.iou, eps) * v)"
MEAN = "missed.mean()"
ENCLOSING = "torch.maximum(high1, high2) - torch.minimum(low1, low2)"
ALPHA = "(v / (v - iou + (1 + eps)).clamp(min=eps))"
ANGLE = "angle1=boxes.aspect_angle(logits, anchors)"
ITEM = "boxes.item"


_decode = faults_of("DECODE", "boxes", ITEM)
_iou = faults_of("IOU", "boxes", ITEM)

_near = faults_of("IOU", "boxes", "boxes.near-fit")
DISTANCE = "distance = o.centre_distance2 / (o.enclosing_wh.square().sum(-1) + eps)"

DECODE = (
    _decode("decode_off_centre", "modified parameter", XY, "doubled[:, :2] - 0.45", law="boxes.perfect-fit"),
    _decode("decode_without_offset", "missing step", XY, "doubled[:, :2]"),
    _decode("decode_times_three", "legacy behaviour", XY, "doubled[:, :2] * 1.5 - 1", "F29"),
    _decode("decode_plain_sigmoid", "legacy behaviour", XY, "doubled[:, :2] / 2", "F29"),
    _decode("sizes_by_exp", "legacy behaviour", WH, "logits[:, 2:].exp().clamp(max=1e3) * anchors", "F29"),
    _decode("size_not_squared", "missing step", WH, "doubled[:, 2:] * anchors"),
    _decode("size_squared_too_soon", "wrong primitive", WH, "2 * (doubled[:, 2:] / 2).square() * anchors"),
    _decode("size_without_anchor", "missing step", WH, "doubled[:, 2:].square()"),
    _decode("size_capped", "modified parameter", WH, "doubled[:, 2:].square().clamp(max=3.5) * anchors"),
    _decode("logits_capped", "edge case", "logits.sigmoid().mul(2)", "logits.clamp(-6, 6).sigmoid().mul(2)"),
    _decode(
        "angle_of_other_anchor",
        "wrong primitive",
        "log_anchor[:, 0] - log_anchor[:, 1] +",
        "log_anchor[:, 1] - log_anchor[:, 0] +",
    ),
    _decode("angle_of_root", "missing step", "+ 2 * (log_wh", "+ (log_wh"),
    _decode("angle_cut_short", "modified parameter", "u.clamp(-30, 30)", "u.clamp(-2, 2)"),
    _decode("angle_sides_swapped", "wrong primitive", "(log_wh[:, 0] - log_wh[:, 1])", "(log_wh[:, 1] - log_wh[:, 0])"),
)

IOU = (
    _near("eps_of_old", "legacy behaviour", "EPS = 1e-7", "EPS = 1e-9"),
    _near("diagonal_without_eps", "missing step", DISTANCE + "\n    if", DISTANCE.replace(" + eps", "") + "\n    if"),
    _iou("plain_iou", "legacy behaviour", CIOU, "return o.iou"),
    _iou("giou", "legacy behaviour", CIOU, "return giou(box1, box2)", "F35"),
    _iou("diou", "legacy behaviour", CIOU, "return o.iou - distance"),
    _iou("one_pi", "modified parameter", "4 / math.pi**2", "4 / math.pi", "F36"),
    _iou(
        "distance_doubled", "wrong primitive", "between = centre2 - centre1", "between = 2 * (centre2 - centre1)", "F36"
    ),
    _iou("distance_in_steps", "wrong primitive", "between.square().sum(-1)", "between.abs().sum(-1).square()"),
    _iou(
        "enclosing_by_min",
        "wrong primitive",
        ENCLOSING,
        "torch.minimum(high1, high2) - torch.maximum(low1, low2)",
        "F36",
    ),
    _iou(
        "diagonal_not_squared",
        "wrong primitive",
        "distance = o.centre_distance2 / (o.enclosing_wh.square().sum(-1) + eps)\n    if",
        "distance = o.centre_distance2 / (o.enclosing_wh.square().sum(-1).sqrt() + eps)\n    if",
    ),
    _iou(
        "distance_not_squared",
        "wrong primitive",
        "between.square().sum(-1)",
        "(between.square().sum(-1) + 1e-12).sqrt()",
    ),
    _iou("union_counts_twice", "missing step", "_area(wh2) - inter + eps", "_area(wh2) + eps"),
    _iou("overlap_may_be_negative", "missing step", ".clamp(min=0))", ")"),
    _iou("overlap_of_the_product", "wrong primitive", ".clamp(min=0))", ").clamp(min=0)"),
    _iou("eps_too_large", "modified parameter", "EPS = 1e-7", "EPS = 1e-3"),
    _iou(
        "aspect_of_target_swapped",
        "wrong primitive",
        "torch.atan2(o.wh2[..., 0], o.wh2[..., 1])",
        "torch.atan2(o.wh2[..., 1], o.wh2[..., 0])",
    ),
    _iou("aspect_not_squared", "wrong primitive", "(angle2 - angle1).square()", "(angle2 - angle1).abs()"),
    _iou("alpha_without_overlap", "missing step", ALPHA, "(v / (v + (1 + eps)))"),
    _iou("alpha_is_one", "missing step", ALPHA, "torch.ones_like(v)"),
    _iou("alpha_clamped", "modified parameter", ALPHA, f"{ALPHA}.clamp(max=0.1)"),
    _iou(
        "alpha_only_beyond_half",
        "legacy behaviour",
        CIOU,
        "return o.iou - (distance + (o.iou > 0.5) * ciou_alpha(v, o.iou, eps) * v)",
    ),
    _iou(
        "ciou_clamped",
        "known field bug",
        CIOU,
        "return (o.iou - (distance + ciou_alpha(v, o.iou, eps) * v)).clamp(-1, 1)",
        "F38",
    ),
    _iou(
        "corners_for_centres",
        "wrong primitive",
        "low1, high1 = centre1 - wh1 / 2, centre1 + wh1 / 2",
        "low1, high1 = centre1, centre1 + wh1",
    ),
    _iou("areas_in_half", "wrong primitive", "_area(wh1) +", "_area(wh1.half()).to(wh1.dtype) +", "F34"),
    _iou(
        "iou_not_squeezed",
        "known field bug",
        CIOU,
        "return (o.iou - (distance + ciou_alpha(v, o.iou, eps) * v))[..., None]",
        "F37",
        "run.no-exception",
    ),
    Fault(
        "angle_by_division",  # upstream since 7.0: 0 / 0 for a box of size 0
        "IOU",
        "known field bug",
        "gradients.finite",
        "loss",
        ANGLE,
        "angle1=(lambda b: torch.atan(b[:, 2] / b[:, 3]))(boxes.decode(logits, anchors))",
        "F32",
    ),
    Fault(
        "angle_with_vanishing_eps",
        "IOU",
        "known field bug",
        ITEM,
        "loss",
        ANGLE,
        "angle1=(lambda b: torch.atan(b[:, 2] / (b[:, 3] + 1e-16)))(boxes.decode(logits, anchors))",
        "F33",
    ),
    Fault("box_is_minus_overlap", "IOU", "missing step", "boxes.item-range", "loss", MEAN, "(-overlap).mean()"),
    Fault("box_summed", "IOU, SCALE", "wrong primitive", ITEM, "loss", MEAN, "(1 - overlap).sum()"),
    Fault("box_squared", "IOU", "wrong primitive", ITEM, "loss", MEAN, "(1 - overlap).square().mean()"),
    Fault(
        "box_by_logarithm",
        "IOU",
        "legacy behaviour",
        ITEM,
        "loss",
        MEAN,
        "-overlap.clamp(min=1e-6).log().mean()",
    ),
    Fault("box_not_above_one", "IOU", "edge case", ITEM, "loss", MEAN, "(1 - overlap.clamp(min=0)).mean()"),
    Fault("first_row_only", "IOU", "missing step", ITEM, "loss", MEAN, "(1 - overlap)[0]"),
    Fault(
        "box_of_own_cells",
        "IOU, NEIGH",
        "legacy behaviour",
        ITEM,
        "loss",
        MEAN,
        "(1 - overlap)[rows.row_choice == 0].mean()",
    ),
)

BOXES = (*DECODE, *IOU)
