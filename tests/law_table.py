"""Each law has been seen to fail: ``python -m tests.law_table > docs/measured/laws.md``; with ``--check``, compare.

For each law a fault is named that breaks it: one of `tests.faults`, in a copy of the bundled loss, or a loss of
`tests.subjects.faulty`. The law is run on it, and must break.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.all_laws import LAWS, ROOT
from tests.faults import plant
from tests.faults.catalogue import BY_NAME
from tests.judging import on_its_device, search
from yololoss.harness.baseline import baseline_cases, record_cases
from yololoss.harness.case import Case
from yololoss.harness.load import BUNDLED
from yololoss.harness.subject import LossUnderTest
from yololoss.harness.vectors import Expected

BREAKS = {
    "assign.anchors": "anchor_sides_swapped",
    "assign.box-plus-cell": "height_width_swapped",
    "assign.clamped-indices": "clamp_dropped",
    "assign.classes": "image_class_swapped",
    "assign.count-bounds": "near_is_farther",
    "assign.ignores-logits": "rows_follow_logits",
    "assign.larger-limit": "far_ratios_only",
    "assign.matched-pairs": "ratio_one_way",
    "assign.neighbours": "neighbour_sign",
    "assign.no-targets": "empty_is_one",
    "assign.offset-range": "shift_too_far",
    "assign.one-by-one": "first_target_only",
    "assign.own-cell": "no_own_cell",
    "assign.row-order": "by_target_first",
    "assign.rows": "anchor_sides_swapped",
    "baseline.gradients": "alpha_attached",
    "baseline.rows": "neighbour_sign",
    "baseline.values": "balance_reversed",
    "boxes.alone": "gain_never_zero",
    "boxes.gradient": "alpha_attached",
    "boxes.item": "one_pi",
    "boxes.near-fit": "eps_of_old",
    "boxes.perfect-fit": "decode_off_centre",
    "boxes.range": "box_is_minus_overlap",
    "classes.focal": "focal_the_wrong_way",
    "classes.gradient": "classes_reversed",
    "classes.item": "right_class_pushed_away",
    "classes.one-class": "one_class_learnt",
    "classes.positive-weight": "weights_swapped",
    "classes.pull": "right_class_pushed_away",
    "classes.smoothing": "smoothing_ignored",
    "compile.other-input": "scaled_when_compiled",
    "compile.values": "scaled_when_compiled",
    "devices.autocast": "half_under_autocast",
    "devices.deterministic": "by_histogram",
    "devices.made-there": "offsets_looked_up_on_cpu",
    "devices.repeatable": "mean_by_atomics",
    "devices.results": "items_on_cpu",
    "devices.rows": "rows_rounded_on_device",
    "devices.shared-cells": "winner_by_chance",
    "devices.targets-from-host": "work_where_targets_are",
    "devices.values": "target_not_initialised",
    "gradients.assignment": "row_column_swapped",
    "gradients.finite": "angle_by_division",
    "form.balance-later": "balance_for_show",
    "form.gains-later": "gains_of_construction",
    "form.interface": "autobalance_renamed",
    "form.options-later": "ratio_of_first_call",
    "form.second-loss": "smoothing_taken_away",
    "form.smoothing-missing": "smoothing_needed",
    "form.wrapped-model": "not_unwrapped",
    "gradients.rows-agree": "row_column_swapped",
    "gradients.scaled": "output_gradient_ignored",
    "gradients.slope": "double_gradient",
    "gradients.value": "double_gradient",
    "gradients.zero-elsewhere": "leak",
    "input.centre-outside": "only_far_outside_refused",
    "input.class-fraction": "fraction_truncated",
    "input.class-negative": "negative_index_accepted",
    "input.class-too-large": "index_beyond_accepted",
    "input.extra-channel": "channels_not_counted",
    "input.five-columns": "columns_by_assertion",
    "input.flat-predictions": "axes_of_predictions_not_counted",
    "input.image-fraction": "image_fraction_accepted",
    "input.image-negative": "negative_index_accepted",
    "input.image-too-large": "index_beyond_accepted",
    "input.infinite-size": "infinite_size_accepted",
    "input.integer-targets": "integers_accepted",
    "input.missing-layer": "layers_not_counted",
    "input.negative-size": "negative_size_accepted",
    "input.no-size": "no_size_accepted",
    "input.no-stride-16": "first_layer_kept_without_stride_16",
    "input.not-a-number": "nan_accepted",
    "input.six-layers": "six_layers_accepted",
    "input.third-axis": "axes_of_targets_not_counted",
    "objectness.background": "background_not_zero",
    "objectness.detached": "target_attached",
    "objectness.every-layer": "empty_layers_skipped",
    "objectness.gradient": "objectness_of_a_class",
    "objectness.item": "negative_targets",
    "objectness.largest-wins": "never_sorted",
    "objectness.last-row-wins": "first_row_wins",
    "objectness.ratio": "target_is_plain",
    "objectness.target": "target_is_one",
    "objectness.target-range": "negative_targets",
    "run.completes": "Raises",
    "run.no-exit": "ExitsHard",
    "run.quiet": "Prints",
    "run.returns": "Hangs",
    "state.deep-copy": "copies_forget",
    "state.global-generator": "Seeds",
    "state.inputs-unchanged": "Writes",
    "state.layout": "reads_as_contiguous",
    "state.lets-go": "every_total_kept",
    "state.other-case-between": "counts_in_the_class",
    "state.other-call-between": "targets_grid_shared_by_calls",
    "state.other-input-before": "grids_of_first_call",
    "state.other-targets-before": "rows_kept_by_shape",
    "state.pickle": "copies_forget",
    "state.process-settings": "Sets",
    "state.random-seed": "random",
    "state.settings-of-others": "gradients_switched_on_again",
    "state.target-dtype": "dtype_of_targets",
    "state.threads": "as_many_as_threads",
    "state.two-calls": "grows_with_calls",
    "state.two-objects": "counts_in_the_class",
    "state.validation-before": "no_targets_in_validation",
    "symmetry.anchor-order": "first_anchor_always",
    "symmetry.class-numbers": "classes_up_to_own",
    "symmetry.double-batch": "no_batch",
    "symmetry.image-order": "targets_in_first_image",
    "symmetry.layer-order": "first_layers_anchors",
    "symmetry.left-right": "decode_off_centre",
    "symmetry.stride": "anchors_of_first_stride",
    "symmetry.target-order": "first_row_only",
    "symmetry.transposition": "width_ratio_only",
    "symmetry.two-batches": "batch_counts_objectness_twice",
    "symmetry.up-down": "decode_off_centre",
    "totals.autobalance": "autobalance_faster",
    "totals.autobalance-late": "autobalance_too_soon",
    "totals.balance": "balance_reversed",
    "totals.box-gain": "box_gain_fixed",
    "totals.cls-gain": "cls_gain_fixed",
    "totals.finite": "angle_by_division",
    "totals.form": "double_total",
    "totals.items-detached": "items_attached",
    "totals.large-sizes": "cells_in_a_byte",
    "totals.layers-add": "product_of_layers",
    "totals.layers-reversed": "first_stride_of_16_or_more",
    "totals.not-negative": "box_is_minus_overlap",
    "totals.obj-gain": "obj_gain_fixed",
    "totals.sum": "no_batch",
    "totals.total-has-gradient": "total_detached",
    "totals.value": "no_batch",
    "totals.very-large-sizes": "cell_in_16_bits",
}


def planted(fault: str, folder: Path) -> LossUnderTest:
    """The loss with that fault."""
    spec = plant(BY_NAME[fault], folder / fault) if fault in BY_NAME else f"tests.subjects.faulty:{fault}"
    return on_its_device(spec, BY_NAME[fault].device if fault in BY_NAME else "cpu")


def recorded() -> dict[Case, Expected]:
    """What the bundled loss does with the cases of a baseline."""
    vectors = record_cases(on_its_device(BUNDLED, "cpu"), baseline_cases(), lambda: None)
    return {vector.case: vector.expected for vector in vectors if vector.expected is not None}


def page() -> Iterator[str]:
    """The Markdown page."""
    yield "# The laws\n"
    yield "Each law, what it states, where that is from, and a planted fault that was seen to break it"
    yield "(`tests/faults/`, `tests/subjects/faulty.py`). Made by"
    yield "`python -m tests.law_table > docs/measured/laws.md`, which runs each law on its fault; `.ci/run` does so"
    yield "again. The laws of bad input (`input.`) judge losses of the dialect yololoss, and note what others do.\n"
    yield "SPEC: the specification of facts and formulas from which loss and reference were written; the modules of"
    yield "`properties/` tell the same. 1: assignment (1.1 scaling to the grid, 1.2 match of target and anchor, 1.3 own"
    yield "cell and neighbours, 1.4 cells and their clamp, 1.5 boxes); 2: box loss; 3: objectness; 4: classes; 5: BCE"
    yield "and focal loss; 6: the result; 7: what the bundled loss promises beyond upstream. DESIGN: what a function in"
    yield "a training loop must be (it changes nothing but its own state). FAMILIES: how losses in the wild are"
    yield "called, and what follows for values of two calls that belong together.\n"
    yield "| law | statement | source | broken by |\n|---|---|---|---|"
    for law in sorted(LAWS):
        yield f"| `{law}` | {LAWS[law].statement} | {LAWS[law].source} | `{BREAKS[law]}` |"


def main() -> int:
    """Run every law on its fault; then print the page, or with --check compare it with the one in docs."""
    with tempfile.TemporaryDirectory() as folder:
        record = recorded()  # the laws of a baseline are judged on it
        faults = sorted(set(BREAKS.values()))
        subjects = {fault: replace(planted(fault, Path(folder)), recorded=record) for fault in faults}
        held = [law for law, fault in BREAKS.items() if search(LAWS[law], subjects[fault]) is None]
    if held:
        print("; ".join(f"{law} holds on {BREAKS[law]}" for law in held), file=sys.stderr)
        return 1
    text = "\n".join(page()) + "\n"
    if "--check" not in sys.argv:
        print(text, end="")
        return 0
    same = text == (ROOT / "docs" / "measured" / "laws.md").read_text(encoding="utf-8")
    says = "is as it should be" if same else "differs"
    print(f"{len(BREAKS)} laws break on their faults; docs/measured/laws.md {says}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
