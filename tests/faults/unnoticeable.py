"""Faults that nobody can notice through the loss's interface, or that this loss cannot have, and why."""

UNNOTICEABLE: tuple[tuple[str, str, str], ...] = (
    (
        "Anchors replaced on the model go on unseen",
        "F19",
        "A loss holds the anchors of its construction, by contract; `refresh` is the one way to renew them. It is no part "
        "of the interface that losses share, so no law asks for it: `tests/test_loss.py` does.",
    ),
    (
        "IoU of boxes given as corners",
        "F39",
        "The loss has its boxes as centre and size and never calls it so: `tests/test_boxes.py` does.",
    ),
    (
        "A focal loss changes the reduction of the BCE it was given",
        "F54",
        "Each criterion of the loss has a BCE of its own, which nobody else sees: `tests/test_criteria.py` looks.",
    ),
    ("Infinite logits give NaN", "F57", "The loss is defined for finite logits only."),
    ("Masks of the wrong image", "F71", "This loss has no segmentation."),
    ("The value changes with another package", "F72", "It imports nothing but torch that computes."),
    ("Means over one process's rows", "F73", "A loss sees one process; the mean over several is the trainer's."),
    (
        "Multiplied by the number of processes that the environment names",
        "",
        "A run here is one process. To pretend that there are others would accuse losses that rightly speak to them.",
    ),
    (
        "A second backward pass through one graph gives another gradient",
        "",
        "Trainers take one. Fused kernels rightly write the gradient over what they kept for it.",
    ),
    (
        "The balance stands still in validation",
        "",
        "Whether validation is to move it nobody has said; with gradients on every call moves it.",
    ),
    (
        "Attributes set after construction are not heeded: criteria, anchors, cp, cn, autobalance",
        "",
        "A loss may make of them what it works with, once. Laws ask it of `hyp` and its gains and `anchor_t`, of gr, "
        "sort_obj_iou and the balance. That the model's own dict, changed in place, is heeded is the bundled loss's "
        "promise: `tests/test_loss.py` looks.",
    ),
    (
        "build_targets gives classes as float, indices as int32, or boxes as float64",
        "",
        "It is the numbers that are compared, whatever their dtype: losses read their own lists, and int32 is legal.",
    ),
    (
        "What one call was given is kept until the next",
        "",
        "That costs memory once, and some losses log it; what is kept beyond the next call a law notices.",
    ),
    (
        "More than 32,767 rows of one layer, numbered in 16 bits",
        "",
        "The gate's largest crowd makes some 9,000 rows; more takes longer than a gate may.",
    ),
    (
        "Print options, environment variables and other settings that no computation reads",
        "",
        "Every package has some; laws look at those that change what torch, or NumPy, computes.",
    ),
    (
        "Another CUDA device than the first; `is_cuda`; a copy to the host that is read before it is there",
        "",
        "The mirror has one device, is none of CUDA's, and copies at once.",
    ),
    (
        "GIoU, DIoU, quality focal loss, blurred BCE, `from_parts`",
        "",
        "The loss as others call it uses none of them: `tests/test_boxes.py`, `test_criteria.py` and `test_loss.py` do.",
    ),
    (
        "A fourth item, the total",
        "F65",
        "Older versions return it, so it is accepted; another order or number of items is not.",
    ),
    (
        "Cells not clamped from below, or rounded down in place of towards zero",
        "",
        "No centre inside the image has a neighbour at a negative coordinate: left needs x > 1. Equal for valid input.",
    ),
    (
        "Spare entries of the balance table dropped",
        "",
        "Only the first entries, one a layer, weigh anything. `tests/test_loss.py` looks at the attribute.",
    ),
    (
        "Columns of targets not counted before the rest is checked",
        "",
        "Five columns are refused all the same: the class is read as an image, x as a class, which is no whole number.",
    ),
    (
        "Half-precision predictions decoded in half precision",
        "",
        "Allowed, as upstream does it; the error budget knows how far off that may be (`properties/budget.py`).",
    ),
)
