"""Faults that show only in what a trainer does around the loss: settings, memory, wrappers, rotated images."""

from tests.faults import in_loss
from tests.faults.hidden import ASSIGNED, CALL, GRIDS, TOTAL

RESULT = "return total.reshape(1).float(), torch.stack((box, obj, cls)).detach().float()"
WEIGHTED = "weighted = starmap(mul, zip(obj, self.balance, strict=False))"
TABLE = "self.balance = list(THREE_LAYERS if self.nl == len(THREE_LAYERS) else OTHER_LAYERS)"
LIMIT = 'grids, self.hyp["anchor_t"]'
OBJECTNESS = "return missed.mean() * share, self.BCEobj(objectness, wanted), cls * share"
WANTED = "wanted = self._place(_objectness_values(overlap, self.gr), rows, objectness)"

TRAINERS = (
    in_loss(
        "total_is_part_of_a_split",
        "RETURN, AUTOGRAD",
        "wrong primitive",
        "gradients.loss-scaling",
        RESULT,
        "total, items = torch.stack((total, box, obj, cls)).float().split((1, 3))\n        return total, items.detach()",
    ),
    in_loss(
        "table_made_in_validation",
        "STATE, AUTOGRAD",
        "edge case",
        "state.after-validation",
        WEIGHTED,
        "if not hasattr(self, 'made'):\n"
        "            self.made = torch.tensor(self.balance, device=self.device)\n"
        "        weighted = torch.stack(obj) * self.made[: len(obj)]",
    ),
    in_loss(
        "mean_of_means_of_chunks",
        "OBJ, SCALE",
        "edge case",
        "totals.very-large-sizes",
        OBJECTNESS,
        "pairs = zip(objectness.flatten().split(2**17), wanted.flatten().split(2**17), strict=True)\n"
        "        mean = torch.stack([self.BCEobj(*pair) for pair in pairs]).mean()\n"
        "        return missed.mean() * share, mean, cls * share",
    ),
    in_loss(
        "every_total_kept",
        "STATE, AUTOGRAD",
        "missing step",
        "state.frees-memory",
        TOTAL,
        f"{TOTAL}\n        self.__dict__.setdefault('history', []).append(total)",
    ),
    in_loss(
        "gradients_switched_on_again",
        "STATE",
        "wrong primitive",
        "state.keeps-caller-settings",
        CALL,
        "        torch.set_grad_enabled(False)\n"
        f"        self._assign(p, targets, every_row=True)\n        torch.set_grad_enabled(True)\n{CALL}",
    ),
    in_loss(
        "determinism_switched_off",
        "STATE",
        "wrong primitive",
        "state.keeps-caller-settings",
        TOTAL,
        f"torch.use_deterministic_algorithms(False)\n        {TOTAL}",
    ),
    in_loss(
        "small_numbers_flushed",
        "STATE",
        "wrong primitive",
        "state.global-settings-unchanged",
        CALL,
        f"        torch.set_flush_denormal(True)\n{CALL}",
    ),
    in_loss(
        "numpy_told_to_raise",
        "STATE",
        "wrong primitive",
        "state.global-settings-unchanged",
        CALL,
        f'        import numpy\n        numpy.seterr(all="raise")\n{CALL}',
    ),
    in_loss(
        "extent_kept_by_number_of_cells",
        "INDEX, STATE",
        "edge case",
        "state.after-other-sizes",
        GRIDS,
        "known = self.__dict__.setdefault('extents', {})\n"
        "            grids = [\n"
        "                known.setdefault((n, layer[0, 0, ..., 0].numel()), tuple(layer.shape[2:4]))\n"
        "                for n, layer in enumerate(p)\n"
        "            ]",
    ),
    in_loss(
        "balance_by_rank_of_stride",
        "SCALE",
        "wrong primitive",
        "totals.layers-reversed",
        TABLE,
        f"{TABLE}\n        for rank, i in enumerate(strides.argsort().tolist()):\n"
        "            self.balance[i] = (THREE_LAYERS if self.nl == len(THREE_LAYERS) else OTHER_LAYERS)[rank]",
    ),
    in_loss(
        "first_stride_of_16_or_more",
        "SCALE",
        "wrong primitive",
        "totals.layers-reversed",
        "return strides.index(AUTOBALANCE_STRIDE)",
        "return next(i for i, stride in enumerate(strides) if stride >= AUTOBALANCE_STRIDE)",
    ),
    in_loss(
        "hyp_of_the_model_inside",
        "INPUT",
        "wrong primitive",
        "form.wrapped-model",
        'hyp = getattr(model, "hyp", None) or inner.hyp',
        "hyp = inner.hyp",
    ),
    in_loss(
        "switch_of_the_class_hidden",
        "INPUT, OBJ",
        "edge case",
        "form.interface",
        "self.gr = 1.0\n",
        "self.gr = 1.0\n        self.sort_obj_iou = False\n",
    ),
    in_loss(
        "no_overlap_without_box_gain",
        "OBJ, SCALE",
        "edge case",
        "totals.box-gain",
        WANTED,
        WANTED.replace("overlap,", 'overlap if self.hyp["box"] else torch.ones_like(overlap),'),
    ),
    in_loss(
        "limit_of_first_call",
        "MATCH, STATE",
        "wrong primitive",
        "form.set-hyperparameters",
        LIMIT,
        LIMIT.replace('self.hyp["anchor_t"]', 'self.__dict__.setdefault("limit", self.hyp["anchor_t"])'),
    ),
    in_loss(
        "rows_kept_by_place_in_memory",
        "MATCH, STATE",
        "edge case",
        "state.reused-target-memory",
        ASSIGNED,
        f"{ASSIGNED}\n        place = targets.data_ptr(), targets._version, targets.shape\n"
        "        if getattr(self, 'place', None) == place:\n            assigned = self.kept\n"
        "        self.place, self.kept = place, assigned",
    ),
)
