"""For each law, a fault that breaks it: ``python -m tests.law_table > docs/measured/laws.md``; ``--check`` compares.

The fault is one of `tests.faults`, planted in a copy of the bundled loss, or a loss of `tests.subjects.faulty`. Each
law runs on its fault, and must break.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from properties.v5.case import Case
from properties.v5.recorded import Expected
from tests.all_laws import LAWS, ROOT, V5
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.judging import apart, on_its_device, search
from yololoss.harness.config import BUNDLED
from yololoss.harness.findings.baseline import baseline_cases, record_cases
from yololoss.harness.subjects.family import LossUnderTest

BREAKS = {
    "assign.anchor-sides": "anchor_sides_swapped",
    "assign.box-plus-cell": "height_width_swapped",
    "assign.centre-cell": "no_own_cell",
    "assign.clamped-indices": "clamp_dropped",
    "assign.ignores-logits": "rows_follow_logits",
    "assign.image-and-class": "image_class_swapped",
    "assign.larger-anchor-t": "far_ratios_only",
    "assign.matched-pairs": "ratio_one_way",
    "assign.neighbours": "neighbour_sign",
    "assign.no-targets": "empty_is_one",
    "assign.offset-range": "shift_too_far",
    "assign.row-order": "by_target_first",
    "assign.rows": "anchor_sides_swapped",
    "assign.rows-per-pair": "near_is_farther",
    "assign.targets-independent": "first_target_only",
    "baseline.gradients": "alpha_attached",
    "baseline.rows": "neighbour_sign",
    "baseline.values": "balance_reversed",
    "boxes.gradient": "alpha_attached",
    "boxes.item": "one_pi",
    "boxes.item-range": "box_is_minus_overlap",
    "boxes.near-fit": "eps_of_old",
    "totals.only-box-gain": "gain_never_zero",
    "boxes.perfect-fit": "decode_off_centre",
    "classes.focal": "focal_the_wrong_way",
    "classes.gradient": "classes_reversed",
    "classes.gradient-sign": "right_class_pushed_away",
    "classes.item": "right_class_pushed_away",
    "classes.label-smoothing": "smoothing_ignored",
    "classes.one-class": "one_class_learnt",
    "classes.positive-weight": "weights_swapped",
    "compile.changed-target-count": "scaled_when_compiled",
    "compile.values": "scaled_when_compiled",
    "devices.autocast": "half_under_autocast",
    "devices.deterministic-algorithms": "by_histogram",
    "devices.no-cpu-tensors": "offsets_looked_up_on_cpu",
    "devices.repeatable": "mean_by_atomics",
    "devices.result-device": "items_on_cpu",
    "devices.rows": "rows_rounded_on_device",
    "devices.shared-cells": "winner_by_chance",
    "devices.targets-on-cpu": "work_where_targets_are",
    "devices.values": "target_not_initialised",
    "form.hyperparameter-names": "box_gain_by_its_old_name",
    "form.interface": "autobalance_renamed",
    "form.missing-label-smoothing": "smoothing_needed",
    "form.model-unchanged": "smoothing_taken_away",
    "form.set-balance": "balance_for_show",
    "form.set-hyperparameters": "gains_of_construction",
    "form.set-options": "ratio_of_first_call",
    "form.wrapped-model": "not_unwrapped",
    "gather.own-cell": "row_column_swapped",
    "gradients.assignment": "row_column_swapped",
    "gradients.double-precision": "angle_in_float32",
    "gradients.finite": "angle_by_division",
    "gradients.finite-difference": "double_gradient",
    "gradients.loss-scaling": "output_gradient_ignored",
    "gradients.value": "double_gradient",
    "gradients.zero-unassigned-cells": "leak",
    "input.centre-outside": "only_far_outside_refused",
    "input.class-negative": "negative_index_accepted",
    "input.class-not-integer": "fraction_truncated",
    "input.class-too-large": "index_beyond_accepted",
    "input.extra-channel": "channels_not_counted",
    "input.flattened-predictions": "axes_of_predictions_not_counted",
    "input.image-index-negative": "negative_index_accepted",
    "input.image-index-not-integer": "image_fraction_accepted",
    "input.image-index-too-large": "index_beyond_accepted",
    "input.infinite-size": "infinite_size_accepted",
    "input.integer-targets": "integers_accepted",
    "input.missing-layer": "layers_not_counted",
    "input.negative-size": "negative_size_accepted",
    "input.no-stride-16": "first_layer_kept_without_stride_16",
    "input.not-a-number": "nan_accepted",
    "input.six-layers": "six_layers_accepted",
    "input.targets-3d": "axes_of_targets_not_counted",
    "input.targets-five-columns": "columns_by_assertion",
    "input.zero-size": "no_size_accepted",
    "objectness.background": "background_not_zero",
    "objectness.background-gradient": "empty_layers_skipped",
    "objectness.gr": "target_is_plain",
    "objectness.gradient": "objectness_of_a_class",
    "objectness.item": "negative_targets",
    "objectness.largest-ciou-wins": "never_sorted",
    "objectness.last-row-wins": "first_row_wins",
    "objectness.target": "target_is_one",
    "objectness.target-detached": "target_attached",
    "objectness.target-range": "negative_targets",
    "run.no-exception": "Raises",
    "run.no-exit": "ExitsHard",
    "run.no-output": "Prints",
    "run.time-limit": "Hangs",
    "state.after-other-case": "counts_in_the_class",
    "state.after-other-sizes": "grids_of_first_call",
    "state.after-validation": "no_targets_in_validation",
    "state.call-before-backward": "targets_grid_shared_by_calls",
    "state.deep-copy": "copies_forget",
    "state.frees-memory": "every_total_kept",
    "state.global-settings-unchanged": "Sets",
    "state.inputs-unchanged": "Writes",
    "state.keeps-caller-settings": "gradients_switched_on_again",
    "state.non-contiguous": "reads_as_contiguous",
    "state.nothing-left-in-inputs": "KeepsGradients",
    "state.pickle": "copies_forget",
    "state.repeated-calls": "grows_with_calls",
    "state.reused-target-memory": "rows_kept_by_shape",
    "state.rng-independent": "random",
    "state.rng-unchanged": "Seeds",
    "state.second-object": "counts_in_the_class",
    "state.target-dtype": "dtype_of_targets",
    "state.thread-count": "as_many_as_threads",
    "symmetry.anchor-order": "first_anchor_always",
    "symmetry.class-order": "classes_up_to_own",
    "symmetry.concatenated-batches": "batch_counts_objectness_twice",
    "symmetry.duplicated-batch": "no_batch",
    "symmetry.image-order": "targets_in_first_image",
    "symmetry.layer-order": "first_layers_anchors",
    "symmetry.left-right": "decode_off_centre",
    "symmetry.stride": "anchors_of_first_stride",
    "symmetry.target-order": "first_row_only",
    "symmetry.transposition": "width_ratio_only",
    "symmetry.up-down": "decode_off_centre",
    "totals.autobalance": "autobalance_faster",
    "totals.autobalance-first-call": "autobalance_too_soon",
    "totals.balance": "balance_reversed",
    "totals.box-gain": "box_gain_fixed",
    "totals.cls-gain": "cls_gain_fixed",
    "totals.finite": "angle_by_division",
    "totals.items-detached": "items_attached",
    "totals.large-sizes": "cells_in_a_byte",
    "totals.layers-independent": "product_of_layers",
    "totals.layers-reversed": "first_stride_of_16_or_more",
    "totals.not-negative": "box_is_minus_overlap",
    "totals.obj-gain": "obj_gain_fixed",
    "totals.shape-and-dtype": "double_total",
    "totals.sum": "no_batch",
    "totals.total-has-gradient": "total_detached",
    "totals.value": "no_batch",
    "totals.very-large-sizes": "cell_in_16_bits",
    "form.tuple-of-predictions": "lists_alone",
    "gradients.second-derivative": "second_derivative_is_zero",
    "input.nan-logits": "nan_logits_are_zero",
    "input.spoils-nothing": "bad_input_is_remembered",
    "input.settings-restored": "gradients_left_off_by_an_error",
    "run.cost-of-targets": "targets_compared_with_all",
    "run.no-effect-outside": "line_in_a_file",
    "run.no-output-by-descriptor": "prints_past_python",
    "run.no-warning": "warns_each_time",
    "state.default-dtype": "dtype_by_default",
    "state.keeps-nothing": "log_of_totals",
    "state.many-calls": "more_from_the_fiftieth_call",
}


def planted(fault: str, folder: Path) -> LossUnderTest:
    """The loss with this fault."""
    spec = plant(BY_NAME[fault], folder / fault) if fault in BY_NAME else f"tests.subjects.faulty:{fault}"
    return on_its_device(spec, BY_NAME[fault].device if fault in BY_NAME else "cpu")


def recorded() -> dict[Case, Expected]:
    """The results of the bundled loss on the cases of a baseline."""
    vectors = record_cases(on_its_device(BUNDLED, "cpu"), baseline_cases(V5), lambda: None)
    return {vector.case: vector.expected for vector in vectors if vector.expected is not None}


SUBJECTS: dict[str, LossUnderTest] = {}  # by fault, in the processes that `main` makes


def breaks(law: str) -> bool:
    """Whether the law breaks on its fault, in a process of its own."""
    return search(LAWS[law], SUBJECTS[BREAKS[law]]) is not None


def of_detection(law: str) -> bool:
    """Whether ``tests.detection --check`` runs the law on its fault as well."""
    return BREAKS[law] in BY_NAME and BY_NAME[BREAKS[law]].law == law


def page() -> Iterator[str]:
    """The Markdown page."""
    yield "# The laws\n"
    yield "Each law, its statement, the source of the statement, and a planted fault that breaks the law"
    yield "(`tests/faults/`, `tests/subjects/faulty.py`). `python -m tests.law_table > docs/measured/laws.md` makes"
    yield "this page and runs each law on its fault; so does `.ci/run`. The laws about bad input (`input.`) judge only"
    yield "losses of the dialect yololoss; for other losses they note what happens.\n"
    yield "SPEC: the facts and formulas from which the loss and the reference were written; the modules of"
    yield "`properties/` state the same. 1: assignment (1.1 scaling to the grid, 1.2 match of target and anchor, 1.3"
    yield "own cell and neighbours, 1.4 cells and their clamp, 1.5 boxes); 2: box loss; 3: objectness; 4: classes; 5:"
    yield "BCE and focal loss; 6: the result; 7: what the bundled loss guarantees beyond upstream. DESIGN: what a"
    yield "training loop requires of a function (it changes only its own state). FAMILIES: the call forms of"
    yield "published losses, and relations between the results of two calls.\n"
    yield "| law | statement | source | broken by |\n|---|---|---|---|"
    for law in sorted(LAWS):
        yield f"| `{law}` | {LAWS[law].statement} | {LAWS[law].source} | `{BREAKS[law]}` |"


def main() -> int:
    """Run every law on its fault, and print the page.

    With --check compare the page with docs/measured/laws.md, and leave out what ``tests.detection --check`` runs.
    """
    checking = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not checking:
        print(__doc__, file=sys.stderr)
        return 2
    unnamed = sorted(LAWS.keys() ^ BREAKS.keys())
    if unnamed:
        print(f"laws and BREAKS differ: {', '.join(unnamed)}; name a fault for each law", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        record = recorded()  # the baseline laws compare with it
        faults = sorted(set(BREAKS.values()))
        SUBJECTS.update({fault: replace(planted(fault, Path(folder)), recorded=record) for fault in faults})
        # torch's compiler cannot be used in a process that was forked
        there = {law: LAWS[law].on == ("compile",) for law in BREAKS}
        held = [law for law, here in there.items() if here and not breaks(law)]
        others = [law for law, here in there.items() if not here and not (checking and of_detection(law))]
        held += [law for law, broke in zip(others, apart(breaks, others, "laws"), strict=True) if not broke]
    if held:
        print("; ".join(f"{law} holds on {BREAKS[law]}" for law in held), file=sys.stderr)
        return 1
    text = "\n".join(page()) + "\n"
    if not checking:
        print(text, end="")
        return 0
    same = text == (ROOT / "docs" / "measured" / "laws.md").read_text(encoding="utf-8")
    says = "is up to date" if same else "differs"
    told = f"{len(others) + sum(there.values())} laws break on their faults"
    print(f"{told}; docs/measured/laws.md {says}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
