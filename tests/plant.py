"""Faults planted in copies of the bundled loss, to see that a law notices."""

import re
from dataclasses import dataclass
from pathlib import Path

import yololoss

HOME = Path(yololoss.__file__).parent


@dataclass(frozen=True)
class Fault:
    """One careless edit: in a module of the loss, what a pattern matches is replaced."""

    name: str
    module: str
    pattern: str
    replacement: str


FAULTS = (
    Fault("ratio_one_way", "assign", r"torch\.maximum\(side_ratio, 1 / side_ratio\)", "side_ratio"),
    Fault("near_is_farther", "assign", r"centre\.floor\(\) < 0\.5", "centre.floor() < 0.8"),
    Fault("shift_too_far", "assign", r"\(0\.5, 0\.0\), \(0\.0, 0\.5\)", "(1.5, 0.0), (0.0, 1.5)"),
    Fault("clamp_dropped", "assign", r"shifted\.long\(\)\.clamp\((?s:.*?)\n    \)", "shifted.long()"),
    Fault("height_width_swapped", "assign", r"\(columns, rows, columns, rows\)", "(rows, columns, rows, columns)"),
    Fault("no_own_cell", "assign", r"own = torch\.ones_like", "own = torch.zeros_like"),
    Fault("neighbour_sign", "assign", r"shifted = centre - offset", "shifted = centre + offset"),
    Fault("by_target_first", "assign", r"matched\.nonzero\(as_tuple=True\)", "matched.T.nonzero(as_tuple=True)[::-1]"),
    Fault("anchor_sides_swapped", "assign", r"anchor_wh=anchors\[anchor\]", "anchor_wh=anchors[anchor].flip(1)"),
    Fault("image_class_swapped", "assign", r"\.long\(\)\.unbind\(1\)", ".long().flip(1).unbind(1)"),
    Fault(
        "far_ratios_only",
        "assign",
        r"matched = ratio < anchor_t$",
        "matched = (ratio < anchor_t) & (ratio > anchor_t / 4)",
    ),
    Fault(
        "first_target_only",
        "assign",
        r"matched = ratio < anchor_t$",
        "matched = (ratio < anchor_t) & (ratio <= ratio[:, :1])",
    ),
    Fault("width_ratio_only", "assign", r"\.amax\(2\)", "[..., 0]"),
    Fault("first_anchor_always", "assign", r"anchor_wh=anchors\[anchor\]", "anchor_wh=anchors[anchor * 0]"),
    Fault(
        "dtype_of_targets", "assign", r"targets\.float\(\), anchors\.float\(\)", "targets, anchors.to(targets.dtype)"
    ),
    Fault(
        "rows_follow_logits",
        "loss",
        r'self\.hyp\["anchor_t"\]\)',
        'self.hyp["anchor_t"] * (1 + bool(layer.mean() > 0)))',
    ),
    Fault("empty_is_one", "loss", r"zero = objectness\.new_zeros", "zero = objectness.new_ones"),
    Fault("one_pi", "boxes", r"4 / math\.pi\*\*2", "4 / math.pi"),
    Fault("decode_off_centre", "boxes", r"doubled\[:, :2\] - 0\.5", "doubled[:, :2] - 0.45"),
    Fault("alpha_attached", "boxes", r"\)\.detach\(\)", ")"),
    Fault(
        "angle_by_division",  # upstream's, since 7.0: 0 / 0 for a box without size
        "loss",
        r"angle1=boxes.aspect_angle\(selected\[:, :4\], rows.anchor_wh\)",
        "angle1=(lambda b: torch.atan(b[:, 2] / b[:, 3]))(boxes.decode(selected[:, :4], rows.anchor_wh))",
    ),
    Fault("box_is_minus_overlap", "loss", r"return \(1 - overlap\)\.mean", "return (-overlap).mean"),
    Fault("first_row_only", "loss", r"return \(1 - overlap\)\.mean\(\)", "return (1 - overlap)[0]"),
    Fault("leak", "loss", r"return \(1 - overlap\)\.mean\(\)", "return (1 - overlap).mean() + 1e-6 * logits.mean()"),
    Fault("gain_never_zero", "loss", r'obj \* self\.hyp\["obj"\]', 'obj * (self.hyp["obj"] + 0.01)'),
    Fault("negative_targets", "loss", r"overlap\.detach\(\)\.clamp\(min=0\)", "overlap.detach()"),
    Fault("target_attached", "loss", r"overlap\.detach\(\)\.clamp", "overlap.clamp"),
    Fault("target_is_one", "loss", r"\(1 - gr\) \+ gr \* overlap", "1 + 0 * overlap"),
    Fault("no_ratio", "loss", r"\(1 - gr\) \+ gr \* overlap", "gr * overlap"),
    Fault("objectness_of_a_class", "loss", r"logits\[\.\.\., 4\]", "logits[..., 5]"),
    Fault(
        "background_not_zero",
        "loss",
        r"grid = torch\.zeros_like\(objectness,",
        "grid = torch.full_like(objectness, 0.1,",
    ),
    Fault("first_row_wins", "loss", r'number, "amax"', 'number, "amin", include_self=False'),
    Fault("never_sorted", "loss", r"if self\.sort_obj_iou", "if False"),
    Fault("empty_layers_skipped", "loss", r"return zero, self\.BCEobj\(.*\), zero", "return zero, zero, zero"),
    Fault("targets_in_first_image", "loss", r"\(image \* anchors \+ anchor\)", "(0 * image + anchor)"),
    Fault("right_class_pushed_away", "loss", r"at_class, self\.cp, self\.cn", "at_class, self.cn, self.cp"),
    Fault("classes_up_to_own", "loss", r"cls\[:, None\] ==", "cls[:, None] <="),
    Fault("classes_reversed", "loss", r"selected\[:, 5:\], self", "selected[:, 5:].flip(1), self"),
    Fault("no_smoothing", "criteria", r"return 1\.0 - 0\.5 \* smoothing, 0\.5 \* smoothing", "return 1.0, 0.0"),
    Fault("weights_swapped", "loss", r'\("cls_pw", "obj_pw"\)', '("obj_pw", "cls_pw")'),
    Fault("focal_the_wrong_way", "criteria", r"_power\(1 - p_t", "_power(p_t"),
    Fault("one_class_learnt", "loss", r"if self\.nc > 1", "if self.nc > 0"),
    Fault("no_batch", "loss", r" \* p\[0\]\.shape\[0\]\n", "\n"),
    Fault("batch_twice", "loss", r'obj \* self\.hyp\["obj"\]', 'obj * self.hyp["obj"] * len(p[0])'),
    Fault("box_gain_fixed", "loss", r'box \* self\.hyp\["box"\]', "box * 0.05"),
    Fault("obj_gain_fixed", "loss", r'obj \* self\.hyp\["obj"\]', "obj * 0.7"),
    Fault("cls_gain_fixed", "loss", r'cls \* self\.hyp\["cls"\]', "cls * 0.3"),
    Fault("balance_reversed", "loss", r"THREE_LAYERS = \(4\.0, 1\.0, 0\.4\)", "THREE_LAYERS = (0.4, 1.0, 4.0)"),
    Fault("product_of_layers", "loss", r"reduce\(add, terms\)", "reduce(mul, terms)"),
    Fault("faster_autobalance", "loss", r"0\.9999 \+ 0\.0001", "0.99 + 0.01"),
    Fault(
        "autobalance_too_soon",
        "loss",
        r"        weighted = ",
        "        self.balance = [b * (1 + self.autobalance) for b in self.balance]\n        weighted = ",
    ),
    Fault("double_total", "loss", r"total\.reshape\(1\)\.float\(\)", "total.reshape(1).double()"),
    Fault("total_detached", "loss", r"total\.reshape\(1\)\.float\(\)", "total.reshape(1).float().detach()"),
    Fault("items_attached", "loss", r"cls\)\)\.detach\(\)", "cls))"),
    Fault(
        "row_column_swapped",
        "loss",
        r"logits\[rows\.indices\]",
        "logits[rows.image, rows.anchor, rows.cell[:, 0] % logits.shape[2], rows.cell[:, 1] % logits.shape[3]]",
    ),
    Fault(
        "double_gradient",
        "loss",
        r"objectness = logits\[\.\.\., 4\]\.to\(dtype\)",
        "objectness = (2 * logits[..., 4] - logits[..., 4].detach()).to(dtype)",
    ),
    Fault(
        "first_layers_anchors",
        "loss",
        r"zip\(p, self\.anchors, strict=True\)",
        "zip(p, self.anchors[:1].expand_as(self.anchors), strict=True)",
    ),
    Fault("anchors_in_pixels", "loss", r"self\.anchors = anchors$", "self.anchors = anchors * (strides[0] / 8)"),
    Fault(
        "reads_as_contiguous",
        "loss",
        r"objectness = logits\[\.\.\., 4\]",
        "objectness = logits.as_strided(logits.shape[:4], torch.empty(logits.shape).stride()[:4], 4)",
    ),
    Fault(
        "grows_with_calls",
        "loss",
        r"        box, obj, cls = self\.terms",
        '        self.hyp = {**self.hyp, "obj": self.hyp["obj"] * 1.01}\n        box, obj, cls = self.terms',
    ),
    Fault(
        "counts_in_the_class",
        "loss",
        r"        box, obj, cls = self\.terms",
        "        type(self).seen = getattr(type(self), 'seen', 0) + 1\n"
        "        self.gr = 1 - 1e-3 * type(self).seen\n"
        "        box, obj, cls = self.terms",
    ),
    Fault("random", "loss", r"\(box \+ obj \+ cls\)", "(box + obj + cls) * (1 + 1e-2 * torch.rand(()))"),
    Fault("as_many_as_threads", "loss", r"\(box \+ obj \+ cls\)", "(box + obj + cls) * torch.get_num_threads()"),
    Fault(
        "no_copies",
        "loss",
        r"    sort_obj_iou = False",
        "    def __reduce__(self):\n        raise TypeError('cannot be copied')\n\n    sort_obj_iou = False",
    ),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
FOUR = tuple(BY_NAME[n] for n in ("neighbour_sign", "height_width_swapped", "clamp_dropped", "balance_reversed"))


def plant(fault: Fault, folder: Path) -> str:
    """Copy the loss into ``folder`` as a package of its own with the fault in it; return its --loss spec."""
    package = folder / f"planted_{fault.name}"
    package.mkdir(parents=True)
    for source in HOME.glob("*.py"):
        text = source.read_text(encoding="utf-8").replace("yololoss.", f"{package.name}.")
        text = text.replace("from yololoss import", f"from {package.name} import")
        if source.stem == fault.module:
            text, count = re.subn(fault.pattern, lambda _: fault.replacement, text, flags=re.MULTILINE)
            if count != 1:
                raise ValueError(f"{fault.name}: its pattern matches {count} times in {source.name}, not once")
        (package / source.name).write_text(text, encoding="utf-8")
    return f"{package / 'loss.py'}:ComputeLoss"
