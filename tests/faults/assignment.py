"""Faults of the assignment: matching, neighbours, indices, boxes of rows."""

from tests.faults import Fault, faults_of

MATCHED = "matched = ratio < anchor_t"
RATIO = "torch.maximum(side_ratio, 1 / side_ratio).amax(-1)"
START = "near_start = (centre - centre.floor() < 0.5) & (centre > 1)"
END = "near_end = (from_end - from_end.floor() < 0.5) & (from_end > 1)"
EXTENT = "_choose_cells(scaled[..., :2], extent[:, None])"
PRESENT = "present = made.flatten() if every_row else None"
CLAMPED = "shifted.long().clamp(min=0).minimum(last)"
BOX = "torch.cat((centre - cell, size), dim=1)"
PAIRS, NEIGHBOURS, CELLS = "assign.matched-pairs", "assign.neighbours", "assign.clamped-indices"


_match = faults_of("MATCH", "assign", PAIRS)
_neighbour = faults_of("NEIGH", "assign", NEIGHBOURS)
_index = faults_of("INDEX", "assign", CELLS)
_box = faults_of("TBOX", "assign", "assign.box-plus-cell")

MATCH = (
    _match("ratio_one_way", "missing step", RATIO, "side_ratio.amax(-1)", "F12"),
    _match("ratio_other_way", "missing step", RATIO, "(1 / side_ratio).amax(-1)"),
    _match("width_ratio_only", "missing step", RATIO, "torch.maximum(side_ratio, 1 / side_ratio)[..., 0]", "F13"),
    _match("height_ratio_only", "missing step", RATIO, "torch.maximum(side_ratio, 1 / side_ratio)[..., 1]", "F13"),
    _match("mean_of_ratios", "wrong primitive", RATIO, "torch.maximum(side_ratio, 1 / side_ratio).mean(-1)", "F13"),
    _match("smaller_ratio", "wrong primitive", RATIO, "torch.maximum(side_ratio, 1 / side_ratio).amin(-1)", "F13"),
    _match("ratio_of_areas", "wrong primitive", RATIO, "torch.maximum(side_ratio, 1 / side_ratio).prod(-1).sqrt()"),
    _match("ratio_in_half", "wrong primitive", RATIO, f"{RATIO}.half().float()"),
    _match("limit_included", "edge case", MATCHED, "matched = ratio <= anchor_t"),
    _match("limit_too_small", "modified parameter", MATCHED, "matched = ratio < anchor_t - 0.1"),
    _match("limit_fixed", "modified parameter", MATCHED, "matched = ratio < 4.0"),
    _match("limit_squared", "modified parameter", MATCHED, "matched = ratio < anchor_t * anchor_t"),
    _match(
        "iou_threshold",
        "legacy behaviour",
        MATCHED,
        "sides, wanted = scaled[:, None, :, 2:], anchors[:, :, None]\n"
        "    inter = torch.minimum(sides, wanted).prod(-1)\n"
        "    matched = inter / (sides.prod(-1) + wanted.prod(-1) - inter) > 0.2",
        "F14",
    ),
    _match(
        "best_anchor_forced",
        "legacy behaviour",
        MATCHED,
        f"{MATCHED}\n    matched |= ratio == ratio.amin(1, keepdim=True)",
        "F15",
    ),
    _match(
        "best_anchor_only",
        "legacy behaviour",
        MATCHED,
        f"{MATCHED}\n    matched &= ratio == ratio.amin(1, keepdim=True)",
    ),
    _match(
        "far_edge_dropped",
        "legacy behaviour",
        MATCHED,
        "matched = (ratio < anchor_t) & (scaled[..., :2] < extent[:, None]).all(-1)[:, None]",
        "F24",
    ),
    _match(
        "far_ratios_only",
        "modified parameter",
        MATCHED,
        "matched = (ratio < anchor_t) & (ratio > anchor_t / 4)",
        law="assign.larger-anchor-t",
    ),
    _match(
        "first_target_only",
        "missing step",
        MATCHED,
        "matched = (ratio < anchor_t) & (ratio <= ratio[..., :1])",
        law="assign.targets-independent",
    ),
    _match("last_anchor_forgotten", "edge case", MATCHED, f"{MATCHED}\n    matched[:, -1] &= ratio.shape[1] < 2"),
    _match(
        "anchors_of_match_swapped",
        "wrong primitive",
        "2:] / anchors[:, :, None]",
        "2:] / anchors.flip(-1)[:, :, None]",
        "F18",
    ),
    _match("match_in_fractions", "missing step", "scaled[:, None, :, 2:] /", "targets[:, 4:] /"),
    Fault(
        "anchors_in_pixels",
        "MATCH",
        "missing step",
        PAIRS,
        "loss",
        "self.anchors = anchors\n",
        "self.anchors = anchors * strides[:, None, None].to(anchors.device)\n",
        "F17",
    ),
    Fault(
        "anchors_of_first_stride",
        "MATCH",
        "modified parameter",
        "symmetry.stride",
        "loss",
        "self.anchors = anchors\n",
        "self.anchors = anchors * (strides[0] / 8)\n",
    ),
    Fault(
        "first_layers_anchors",
        "MATCH",
        "wrong primitive",
        PAIRS,
        "loss",
        "self.anchors, grids",
        "self.anchors[:1].expand_as(self.anchors), grids",
    ),
    Fault(
        "rows_follow_logits",
        "MATCH",
        "wrong primitive",
        "assign.ignores-logits",
        "loss",
        'self.hyp["anchor_t"], every_row',
        'self.hyp["anchor_t"] * (1 + bool(p[0].mean() > 0)), every_row',
    ),
)

NEIGH = (
    _neighbour(
        "near_is_farther",
        "modified parameter",
        "centre.floor() < 0.5",
        "centre.floor() < 0.8",
        law="assign.rows-per-pair",
    ),
    _neighbour("near_is_nearer", "modified parameter", "from_end.floor() < 0.5", "from_end.floor() < 0.4"),
    _neighbour("half_included", "edge case", "centre.floor() < 0.5", "centre.floor() <= 0.5"),
    _neighbour("half_included_at_end", "edge case", "from_end.floor() < 0.5", "from_end.floor() <= 0.5"),
    _neighbour(
        "shift_too_far",
        "modified parameter",
        "half[:1], half, -half",
        "half[:1], 3 * half, -half",
        "F28",
        "assign.offset-range",
    ),
    _neighbour("shift_right_a_whole_cell", "modified parameter", "half, -half", "half, -half - half[:1] * half * 2"),
    _neighbour("neighbour_sign", "wrong primitive", "shifted = centre - offset", "shifted = centre + offset", "F22"),
    _neighbour(
        "no_own_cell", "missing step", "own = torch.ones_like", "own = torch.zeros_like", law="assign.centre-cell"
    ),
    _neighbour(
        "no_neighbours", "missing step", "(own, near_start, near_end)", "(own, near_start & False, near_end & False)"
    ),
    _neighbour(
        "no_right_and_below", "missing step", "(own, near_start, near_end)", "(own, near_start, near_end & False)"
    ),
    _neighbour(
        "no_above",
        "missing step",
        "(own, near_start, near_end)",
        "(own, near_start[..., :1], near_start[..., 1:] & False, near_end)",
    ),
    _neighbour("guard_at_start_missing", "missing step", " & (centre > 1)", "", "F23"),
    _neighbour("guard_at_end_missing", "missing step", " & (from_end > 1)", "", "F23"),
    _neighbour("guard_at_start_too_low", "modified parameter", "(centre > 1)", "(centre > 0.25)", "F23"),
    _neighbour("guard_at_start_too_high", "modified parameter", "(centre > 1)", "(centre > 2)"),
    _neighbour("guard_at_end_included", "edge case", "(from_end > 1)", "(from_end >= 1)"),
    _neighbour(
        "right_by_own_fraction", "legacy behaviour", END, "near_end = (centre % 1 > 0.5) & (centre < extent - 1)", "F21"
    ),
    _neighbour(
        "always_one_neighbour", "legacy behaviour", END, "near_end = (centre % 1 >= 0.5) & (from_end > 1)", "F24"
    ),
    _neighbour(
        "nearer_axis_only",
        "legacy behaviour",
        START,
        f"{START}\n    near_start &= centre % 1 <= (centre % 1).amin(-1, keepdim=True)",
    ),
    _neighbour(
        "left_and_above_swapped",
        "wrong primitive",
        "(own, near_start, near_end)",
        "(own, near_start.flip(-1), near_end)",
    ),
    _neighbour(
        "start_and_end_swapped", "wrong primitive", "(own, near_start, near_end)", "(own, near_end, near_start)"
    ),
    _neighbour("extent_swapped", "wrong primitive", EXTENT, EXTENT.replace("extent", "extent.flip(1)")),
    _neighbour(
        "extent_of_columns",
        "wrong primitive",
        EXTENT,
        EXTENT.replace("extent[:, None]", "extent[:, None, :1]"),
    ),
    _neighbour(
        "offsets_in_other_order",
        "wrong primitive",
        "half, -half))[row_choice]",
        "half, -half))[row_choice[((layer * len(targets) + target) * 5 + row_choice).argsort()]]",
        "F25",
    ),
    _neighbour(
        "rows_by_pair",
        "wrong primitive",
        PRESENT,
        f"{PRESENT}\n    row_choice, anchor, target = (i[((layer * ratio.shape[1] + anchor) * len(targets) + target).argsort(stable=True)] for i in (row_choice, anchor, target))",
        law="assign.row-order",
    ),
    _neighbour(
        "by_target_first",
        "wrong primitive",
        PRESENT,
        f"{PRESENT}\n    anchor, target = (i[((layer * 5 + row_choice) * len(targets) + target).argsort(stable=True)] for i in (anchor, target))",
        law="assign.row-order",
    ),
)

INDEX = (
    _index("clamp_dropped", "known field bug", CLAMPED, "shifted.long()", "F01"),
    _index(
        "clamp_by_float_bound",
        "known field bug",
        CLAMPED,
        "shifted.long().clamp_(max=(extent - 1)[layer])",
        "F02",
        "run.no-exception",
    ),
    _index(
        "clamp_bounds_swapped",
        "wrong primitive",
        CLAMPED,
        "shifted.long().clamp(min=0).minimum(last.flip(1))",
        law=NEIGHBOURS,
    ),
    _index(
        "clamp_one_short",
        "edge case",
        ".minimum(last)",
        ".minimum((last - last.new_tensor((0, 1))).clamp(min=0))",
        law=NEIGHBOURS,
    ),
    _index("clamp_one_far", "edge case", ".minimum(last)", ".minimum(last + last.new_tensor((1, 0)))"),
    _index("clamp_columns_only", "missing step", ".minimum(last)", ".minimum(last + last.new_tensor((0, 1 << 30)))"),
    _index(
        "wraps_at_the_edge",
        "wrong primitive",
        CLAMPED,
        "shifted.long() % (last + 1)",
        law=NEIGHBOURS,
    ),
    _index("cell_rounded", "wrong primitive", "shifted.long()", "shifted.round().long()", law=NEIGHBOURS),
    _index(
        "grid_indices_swapped",
        "wrong primitive",
        "self.cell[:, 1], self.cell[:, 0]",
        "self.cell[:, 0], self.cell[:, 1]",
        "F04",
        NEIGHBOURS,
    ),
    _index(
        "height_width_swapped",
        "wrong primitive",
        "torch.cat((extent, extent), dim=1)",
        "torch.cat((extent, extent), dim=1).flip(1)",
        "F05",
        "assign.box-plus-cell",
    ),
    _index(
        "sizes_by_height_only",
        "wrong primitive",
        "torch.cat((extent, extent), dim=1)",
        "torch.cat((extent, extent), dim=1)[:, [0, 1, 1, 1]]",
        "F05",
        "assign.box-plus-cell",
    ),
    _index(
        "image_class_swapped",
        "wrong primitive",
        "image_class.unbind(1)",
        "image_class.flip(1).unbind(1)",
        law="assign.image-and-class",
    ),
    _index(
        "anchor_sides_swapped",
        "wrong primitive",
        "anchors[layer, anchor]",
        "anchors[layer, anchor].flip(1)",
        "F18",
        "assign.anchor-sides",
    ),
    _index(
        "first_anchor_always",
        "wrong primitive",
        "anchors[layer, anchor]",
        "anchors[layer, anchor * 0]",
        law="assign.anchor-sides",
    ),
    _index(
        "sides_of_next_anchor",
        "edge case",
        "anchors[layer, anchor]",
        "anchors[layer, (anchor + 1) % anchors.shape[1]]",
        law="assign.anchor-sides",
    ),
    _index(
        "image_of_first_row",
        "edge case",
        "image, cls = image_class.unbind(1)",
        "image, cls = image_class.unbind(1)\n    image = image[:1].expand_as(image)",
        law="assign.image-and-class",
    ),
    Fault(
        "row_column_swapped",
        "INDEX",
        "wrong primitive",
        "gather.own-cell",
        "loss",
        "gather(logits, rows.indices)",
        "gather(logits, (rows.image, rows.anchor, rows.cell[:, 0] % logits.shape[2], rows.cell[:, 1] % logits.shape[3]))",
        "F04",
    ),
    Fault(
        "anchor_never_asked",
        "INDEX",
        "wrong primitive",
        "gather.own-cell",
        "loss",
        "gather(logits, rows.indices)",
        "gather(logits, (rows.image, 0 * rows.anchor, rows.cell[:, 1], rows.cell[:, 0]))",
    ),
    Fault(
        "targets_in_first_image",
        "INDEX, OBJ",
        "missing step",
        "objectness.target",
        "loss",
        "(image * anchors + anchor)",
        "(0 * image + anchor)",
    ),
    Fault(
        "flat_index_by_width",
        "INDEX, OBJ",
        "wrong primitive",
        "objectness.target",
        "loss",
        "* height + row) * width",
        "* width + row) * width % (height * width)",
    ),
)

TBOX = (
    _box("box_from_unclamped_cell", "known field bug", BOX, "torch.cat((centre - shifted.long(), size), dim=1)", "F03"),
    _box("box_from_own_cell", "wrong primitive", BOX, "torch.cat((centre - centre.floor(), size), dim=1)", "F26"),
    _box("box_of_shifted_centre", "wrong primitive", BOX, "torch.cat((shifted - cell, size), dim=1)"),
    _box("box_in_the_grid", "missing step", BOX, "torch.cat((centre, size), dim=1)"),
    _box("size_in_fractions", "missing step", BOX, "torch.cat((centre - cell, targets[target, 4:]), dim=1)", "F27"),
    _box("size_in_anchors", "missing step", BOX, "torch.cat((centre - cell, size / anchors[layer, anchor]), dim=1)"),
    _box("size_swapped", "wrong primitive", BOX, "torch.cat((centre - cell, size.flip(1)), dim=1)"),
    _box("corner_for_centre", "legacy behaviour", BOX, "torch.cat((centre - cell - size / 2, size), dim=1)"),
)

ASSIGNMENT = (*MATCH, *NEIGH, *INDEX, *TBOX)
