"""The bundled loss, edited so that it has another dialect: what the catalogue's faults are planted into."""

from typing import NamedTuple

from tests.faults import HOME


class Base(NamedTuple):
    """A dialect, and the edits that give it to the bundled loss: module, old text, new text."""

    dialect: str
    edits: tuple[tuple[str, str, str], ...]

    @property
    def texts(self) -> dict[str, str]:
        """The texts of the modules that differ."""
        found: dict[str, str] = {}
        for module, old, new in self.edits:
            text = found.get(module) or (HOME / f"{module}.py").read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise ValueError(f"{self.dialect}: its text occurs {text.count(old)} times in {module}.py: {old}")
            found[module] = text.replace(old, new)
        return found


def _function(module: str, name: str) -> tuple[str, str, str]:
    """The edit that takes a function away: what is not called can have no fault."""
    text = (HOME / f"{module}.py").read_text(encoding="utf-8")
    return module, text[text.index(f"def {name}(") :].partition("\n\n\n")[0], ""


OTHERS, TERMS = "OTHER_LAYERS = (4.0, 1.0, 0.25, 0.06, 0.02)", "box, obj, cls = self.terms(p, targets)"
TALLER = (  # sides with an epsilon, in the area and in the angle
    _function("boxes", "aspect_angle"),
    ("loss", ", angle1=boxes.aspect_angle(logits, anchors)", ""),
    (
        "boxes",
        "    inter = (torch",
        "    wh1, wh2 = (side + side.new_tensor((0.0, eps)) for side in (wh1, wh2))\n    inter = (torch",
    ),
)
NO_SMOOTHING = (
    _function("criteria", "smooth_bce"),
    ("loss", ", bce_loss, smooth_bce", ", bce_loss"),
    ("loss", 'smooth_bce(hyp.get("label_smoothing", 0.0))', "1.0, 0.0"),
)
OLD = (*TALLER, ("boxes", "EPS = 1e-7", "EPS = 1e-9"), *NO_SMOOTHING)
OWN_HALF = (
    ("assign", "    from_end = extent - centre\n", ""),
    (
        "assign",
        "near_end = (from_end - from_end.floor() < 0.5) & (from_end > 1)",
        "near_end = (centre - centre.floor() > 0.5) & (centre < extent - 1)",
    ),
)
IN_FLOAT32 = "target_dtype = float32"  # as the bundled loss assigns


def _scaled(*lines: str) -> tuple[str, str, str]:
    return "loss", TERMS, "\n        ".join((TERMS, "every = 3 / len(p)", *lines))


BASES = {
    "upstream": Base(f"upstream, {IN_FLOAT32}", ()),
    "6.1": Base(f"yolov5-6.1, {IN_FLOAT32}", TALLER),
    "4.0": Base(
        f"yolov5-4.0, {IN_FLOAT32}",
        (
            *OLD,
            ("loss", "THREE_LAYERS = (4.0, 1.0, 0.4)", "THREE_LAYERS = (4.0, 1.0, 0.3)"),
            ("loss", OTHERS, "OTHER_LAYERS = (4.0, 1.0, 0.3, 0.1, 0.03)"),
            _scaled("box, cls = box * every, cls * every"),
        ),
    ),
    "3.1": Base(
        f"yolov5-3.1, {IN_FLOAT32}",
        (
            *OLD,
            ("loss", OTHERS, "OTHER_LAYERS = (4.0, 1.0, 0.4, 0.1)"),
            _scaled("box, obj, cls = box * every, obj * every * (1.4 if len(p) == 4 else 1), cls * every"),
        ),
    ),
    "yolor": Base(
        f"yolor, {IN_FLOAT32}",
        (
            *OLD,
            *OWN_HALF,
            ("loss", OTHERS, "OTHER_LAYERS = (4.0, 1.0, 0.5, 0.4, 0.1)\nFOUR_LAYERS = (4.0, 1.0, 0.4, 0.1)"),
            (
                "loss",
                "        self.balance = list(THREE_LAYERS",
                "        self.balance = list(FOUR_LAYERS if self.nl in (1, 2, 4) else THREE_LAYERS",
            ),
            _scaled("box, obj, cls = box * every, obj * every * (1.4 if len(p) > 3 else 1), cls * every"),
        ),
    ),
    "own overlap": Base(
        f"upstream, {IN_FLOAT32}, overlap = own",
        (
            _function("boxes", "aspect_angle"),
            _function("boxes", "ciou_alpha"),
            ("loss", ", angle1=boxes.aspect_angle(logits, anchors)", ""),
            (
                "boxes",
                "    if angle1 is None:\n"
                "        angle1 = torch.atan2(o.wh1[..., 0], o.wh1[..., 1])\n"
                "    angle2 = torch.atan2(o.wh2[..., 0], o.wh2[..., 1])\n"
                "    v = (4 / math.pi**2) * (angle2 - angle1).square()\n"
                "    return o.iou - (distance + ciou_alpha(v, o.iou, eps) * v)",
                "    unlike = (o.wh2 - o.wh1).square() / (o.enclosing_wh.square() + eps)\n"
                "    return o.iou - (distance + unlike.sum(-1))",
            ),
        ),
    ),
}
