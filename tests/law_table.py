"""For each law, a fault that breaks it: ``python -m tests.law_table > docs/measured/laws.md``.

The fault is one of `tests.faults`, planted in a copy of the bundled loss, or a loss of `tests.subjects.faulty`. Each
law runs on its fault, and must break.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tests.all_laws import ROOT
from tests.faults import Fault, plant, tal
from tests.faults import catalogue as v5
from tests.judging import apart, on_its_device, search
from yololoss.harness.cases.case import Case
from yololoss.harness.findings.baseline import baseline_cases, record_cases
from yololoss.harness.laws.law import find_laws
from yololoss.harness.subjects.family import LossUnderTest, find_family

OF_V5 = {
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

# Only laws that no fault names; each other one breaks on the first fault that names it.
OF_TAL = {
    "assign.contested": "metric_decides",
    "assign.ties": "takers_alone",
    "baseline.gradients": "alpha_with_gradient",
    "baseline.values": "no_batch",
    "boxes.background": "no_inside_test",
    "boxes.perfect-fit": "not_one_minus",
    "classes.weights-of-one": "eps_missing",
    "form.both-predictions": "gradient_of_last_level_lost",
    "gradients.finite": "eps_missing",
    "gradients.ties": "alpha_with_gradient",
    "input.centre-outside": "no_checks",
    "input.class-not-integer": "no_checks",
    "input.class-too-large": "no_checks",
    "input.few-anchors": "no_floor",
    "input.image-index": "no_checks",
    "input.not-a-number": "no_checks",
    "input.pixels": "no_checks",
    "input.size": "no_checks",
    "input.spoils-nothing": "gain_grows",
    "scores.range": "without_overlap",
    "scores.ties": "largest_of_all_candidates",
    "state.after-other-targets": "gain_grows",
    "state.many-calls": "gain_grows",
    "state.nothing-left-in-inputs": "writes_to_boxes",
    "symmetry.class-order": "right_class_twice",
    "symmetry.duplicated-batch": "mean",
    "symmetry.images-apart": "no_batch",
    "symmetry.left-right": "two_sides_alone",
    "symmetry.stride": "squared",
    "symmetry.target-order": "last_target_lost",
    "symmetry.transposition": "widths_alone",
    "symmetry.up-down": "two_sides_alone",
    "third.gradient": "weights_exchanged",
    "third.zero-sum": "terms_in_half",
    "totals.cls-gain": "gains_exchanged",
    "totals.dfl-gain": "items_in_another_order",
    "totals.empty-image": "foreground_alone",
    "totals.no-targets": "half_sum",
}
ROWS = ("baseline.rows", "devices.rows")  # which no task-aligned loss shows
NAMED = {fault.law: fault.name for fault in reversed(tal.TAL_FAULTS)}
BREAKS: dict[str, dict[str, str]] = {"v5": OF_V5, "tal": NAMED | OF_TAL}
FAULTS: dict[str, dict[str, Fault]] = {"v5": v5.BY_NAME, "tal": tal.BY_NAME}
PAGES = {family: ROOT / "docs" / "measured" / f"laws{of}.md" for family, of in (("v5", ""), ("tal", "-tal"))}
SUBJECTS: dict[tuple[str, str], LossUnderTest] = {}  # by family and fault, in the processes that `main` makes


ABOUT = (
    "# The laws\n",
    "Each law, its statement, the source of the statement, and a planted fault that breaks the law",
    "(`tests/faults/`, `tests/subjects/faulty.py`). `python -m tests.law_table > docs/measured/laws.md` makes",
    "this page and runs each law on its fault; so does `.ci/run`. The laws about bad input (`input.`) judge only",
    "losses of the dialect yololoss; for other losses they note what happens.\n",
    "SPEC: the facts and formulas from which the loss and the reference were written; the modules of",
    "`properties/` state the same. 1: assignment (1.1 scaling to the grid, 1.2 match of target and anchor, 1.3",
    "own cell and neighbours, 1.4 cells and their clamp, 1.5 boxes); 2: box loss; 3: objectness; 4: classes; 5:",
    "BCE and focal loss; 6: the result; 7: what the bundled loss guarantees beyond upstream. DESIGN: what a",
    "training loop requires of a function (it changes only its own state). FAMILIES: the call forms of",
    "published losses, and relations between the results of two calls.\n",
)


def planted(family: str, name: str, folder: Path) -> LossUnderTest:
    """The loss with this fault."""
    fault = FAULTS[family].get(name)
    if fault is None:
        return on_its_device(f"tests.subjects.faulty:{name}", "cpu")
    return on_its_device(plant(fault, folder / family / name), fault.device, fault.dialect)


def recorded(family: str) -> dict[Case, object]:
    """The results of the bundled loss on the cases of a baseline."""
    of = find_family(family)
    vectors = record_cases(on_its_device(of.bundled, "cpu"), baseline_cases(of), lambda: None)
    return {vector.case: vector.expected for vector in vectors if vector.expected is not None}


def breaks(of: tuple[str, str]) -> bool:
    """Whether the law of a family breaks on its fault, in a process of its own."""
    family, law = of
    return search(find_laws(find_family(family))[law], SUBJECTS[family, BREAKS[family][law]]) is not None


def of_detection(family: str, law: str) -> bool:
    """Whether ``tests.detection --check`` runs the law on its fault as well."""
    fault = FAULTS[family].get(BREAKS[family][law])
    return fault is not None and fault.law == law


def unnamed(family: str) -> list[str]:
    """The laws without a fault, and the faults without a law."""
    without = ROWS if family == "tal" else ()
    return sorted((find_laws(find_family(family)).keys() - without) ^ BREAKS[family].keys())


def page(family: str) -> Iterator[str]:
    """The Markdown page."""
    laws = find_laws(find_family(family))
    if family == "tal":
        yield "# The laws of task-aligned losses\n"
        yield "As [the laws of v5 losses](laws.md), made by `python -m tests.law_table --family tal >"
        yield "docs/measured/laws-tal.md`. SPEC is [that of these losses](../understand/specification-tal.md)."
        yield f"{' and '.join(f'`{law}`' for law in ROWS)} compare rows, which these losses do not show.\n"
    else:
        yield from ABOUT
    yield "| law | statement | source | broken by |\n|---|---|---|---|"
    for law in sorted(laws.keys() & BREAKS[family].keys()):
        yield f"| `{law}` | {laws[law].statement} | {laws[law].source} | `{BREAKS[family][law]}` |"


def run_laws(families: Sequence[str], checking: bool) -> tuple[int, list[str]]:
    """Run the laws of these families on their faults: how many, and which hold."""
    with tempfile.TemporaryDirectory() as folder:
        for family in families:
            record = recorded(family)  # the baseline laws compare with it
            for fault in sorted(set(BREAKS[family].values())):
                SUBJECTS[family, fault] = replace(planted(family, fault, Path(folder)), recorded=record)
        every = [(family, law) for family in families for law in BREAKS[family]]
        # torch's compiler cannot be used in a process that was forked
        here = [(f, law) for f, law in every if find_laws(find_family(f))[law].on == ("compile",)]
        others = [each for each in every if each not in here and not (checking and of_detection(*each))]
        broke = {
            **{each: breaks(each) for each in here},
            **dict(zip(others, apart(breaks, others, "laws"), strict=True)),
        }
    return len(broke), [f"{law} holds on {BREAKS[family][law]}" for (family, law), it in broke.items() if not it]


def main() -> int:
    """Run every law on its fault, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=BREAKS, default="v5", help="of the laws (default: v5)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="of both families, but leave out what tests.detection --check runs; compare the pages",
    )
    given = parser.parse_args()
    families = [*BREAKS] if given.check else [given.family]
    wrong = [law for family in families for law in unnamed(family)]
    if wrong:
        print(f"laws and BREAKS differ: {', '.join(wrong)}; name a fault for each law", file=sys.stderr)
        return 2
    count, held = run_laws(families, given.check)
    if held:
        print("; ".join(held), file=sys.stderr)
        return 1
    texts = {family: "\n".join(page(family)) + "\n" for family in families}
    if not given.check:
        print(texts[given.family], end="")
        return 0
    other = [path.name for family, path in PAGES.items() if path.read_text(encoding="utf-8") != texts[family]]
    print(f"{count} laws break on their faults; {', '.join(other) or 'no page'} differs")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
