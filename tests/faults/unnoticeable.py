"""Faults that cannot be found through the loss's interface, or that this loss cannot have, and why."""

UNNOTICEABLE: tuple[tuple[str, str, str], ...] = (
    (
        "The loss ignores new anchors of the model",
        "F19",
        "By contract, a loss keeps the anchors of its construction; only `refresh` updates them. `refresh` is not part "
        "of the interface that losses share, so no law uses it: `tests/test_loss.py` tests it.",
    ),
    (
        "IoU of boxes given as corners",
        "F39",
        "The loss keeps boxes as centre and size and never uses corners: `tests/test_boxes.py` does.",
    ),
    (
        "A focal loss changes the reduction of the BCE it was given",
        "F54",
        "Each criterion of the loss has a BCE of its own, which is not shared: `tests/test_criteria.py` tests it.",
    ),
    ("Infinite logits give NaN", "F57", "The loss is defined only for finite logits."),
    ("Masks of the wrong image", "F71", "This loss has no segmentation."),
    ("The value changes with another package", "F72", "The only package that it computes with is torch."),
    ("Means over one process's rows", "F73", "A loss sees one process; the trainer takes the mean over several."),
    (
        "Multiplied by the number of processes that the environment names",
        "",
        "A run here is one process. Simulated processes would break correct losses that communicate with the others.",
    ),
    (
        "A second backward pass through one graph gives another gradient",
        "",
        "Trainers run one. Fused kernels may overwrite the values that they saved for the first.",
    ),
    (
        "The balance does not change in validation",
        "",
        "No specification says whether validation changes it; with gradients on, every call changes it.",
    ),
    (
        "Attributes set after construction have no effect: criteria, anchors, cp, cn, autobalance",
        "",
        "A loss may read them once, at construction. Laws test only `hyp` (its gains and `anchor_t`), gr, sort_obj_iou "
        "and the balance. The bundled loss also guarantees that in-place changes of the model's own dict take effect: "
        "`tests/test_loss.py` tests it.",
    ),
    (
        "build_targets gives classes as float, indices as int32, or boxes as float64",
        "",
        "Laws compare numbers of any dtype: only the loss itself reads these lists, and int32 is legal.",
    ),
    (
        "More than 32,767 rows of one layer, numbered in 16 bits",
        "",
        "The largest case of the gate has about 9,000 rows; larger ones would take too long.",
    ),
    (
        "Print options and other settings that no computation reads",
        "",
        "Every package has some; laws check those of torch, NumPy and Python that a training loop relies on.",
    ),
    (
        "A CUDA device other than the first; `is_cuda`; a copy to the host that is read before it has finished",
        "",
        "The mirror has one device, which is not a CUDA device, and its copies are synchronous.",
    ),
    (
        "GIoU, DIoU, quality focal loss, blurred BCE, `from_parts`",
        "",
        "Calls of the loss use none of them: `tests/test_boxes.py`, `test_criteria.py` and `test_loss.py` test them.",
    ),
    (
        "A fourth item, the total",
        "F65",
        "Older versions return it, so it is accepted; other orders or numbers of items are not.",
    ),
    (
        "Cells not clamped at 0, or rounded down instead of towards zero",
        "",
        "No centre inside the image has a neighbour at a negative coordinate (left needs x > 1): no difference.",
    ),
    (
        "Unused entries of the balance table removed",
        "",
        "Only the first entries, one per layer, are used. `tests/test_loss.py` tests the attribute.",
    ),
    (
        "The number of columns of targets not checked first",
        "",
        "Five columns are refused anyway: the class is read as an image, and x as a class, which is not an integer.",
    ),
    (
        "Half-precision predictions decoded in half precision",
        "",
        "Allowed, since upstream does it; the error budget includes this rounding (`properties/v5/budget.py`).",
    ),
)
