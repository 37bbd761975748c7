"""Faults that show only on an accelerator; the laws must find them on the mirror."""

from tests.faults import Fault

GRID = "grid = objectness.new_zeros(cells + 1)"
WINNERS = "flat = grid.scatter_(0, cell, values[last[cell]])"
HALF = "half = torch.eye(2, device=targets.device) / 2"
OFFSET = f"{HALF}\n    offset = torch.cat((0 * half[:1], half, -half))[row_choice]"
NUMBER = "number = torch.arange(len(cell), device=cell.device)"
CALL = "        box, obj, cls = self.terms(p, targets)\n"
ITEMS = "torch.stack((box, obj, cls)).detach().float()"
TOTAL = "total = (box + obj + cls) * p[0].shape[0]"
MEAN = "missed.mean()"


def _on_mirror(
    name: str,
    kind: str,
    module: str,
    old: str,
    new: str,
    law: str = "run.no-exception",
    field: str = "",
    more: str = "",
) -> Fault:
    return Fault(name, f"DEVICE{more}", kind, law, module, old, new, field, device="mirror")


DEVICE: tuple[Fault, ...] = (
    _on_mirror(
        "anchors_left_on_cpu",
        "missing step",
        "loss",
        "return head.anchors.to(next(model.parameters()).device), torch.as_tensor(head.stride)",
        "return head.anchors.cpu(), torch.as_tensor(head.stride)",
    ),
    _on_mirror(
        "constant_without_device",
        "missing step",
        "assign",
        HALF,
        "half = torch.eye(2) / 2",
    ),
    _on_mirror(
        "anchor_index_on_cpu",
        "known field bug",
        "assign",
        "anchors[layer, anchor]",
        "anchors[layer, torch.arange(anchors.shape[1])[anchor]]",
        field="F20",
    ),
    _on_mirror("row_numbers_on_cpu", "missing step", "loss", NUMBER, "number = torch.arange(len(cell))", field="F69"),
    _on_mirror(
        "offsets_looked_up_on_cpu",
        "wrong primitive",
        "assign",
        OFFSET,
        "half = torch.eye(2) / 2\n    offset = torch.cat((0 * half[:1], half, -half))[row_choice.cpu()].to(scaled.device)",
        "devices.no-cpu-tensors",
    ),
    _on_mirror(
        "first_gpu_always",
        "known field bug",
        "loss",
        NUMBER,
        "number = torch.arange(len(cell), device='cpu' if cell.device.type == 'cpu' else 'cuda:0')",
        field="F68",
    ),
    _on_mirror(
        "winner_by_chance",
        "known field bug",
        "loss",
        WINNERS,
        "flat = grid.scatter_(0, cell, values)",
        "devices.shared-cells",
        "F40",
        ", OBJ",
    ),
    _on_mirror(
        "winner_by_chance_in_place",
        "legacy behaviour",
        "loss",
        WINNERS,
        "flat = grid.index_put((cell,), values)",
        "devices.repeatable",
        "F40",
        ", OBJ",
    ),
    *(
        _on_mirror(f"winner_by_chance_of_{name}", "known field bug", "loss", WINNERS, new, law, "F40", ", OBJ")
        for name, new, law in (
            ("put", "flat = grid.put_(cell, values)", "devices.repeatable"),
            ("index_copy", "flat = grid.index_copy_(0, cell, values)", "devices.shared-cells"),
            ("assignment", "flat = grid\n            flat[cell] = values", "devices.shared-cells"),
            (
                "a_slice",
                "flat = grid[None]\n            flat[:, cell] = values\n            flat = flat[0]",
                "devices.shared-cells",
            ),
        )
    ),
    _on_mirror(
        "target_not_initialised",
        "wrong primitive",
        "loss",
        GRID,
        GRID.replace("new_zeros", "new_empty"),
        "devices.values",
        more=", OBJ",
    ),
    _on_mirror(
        "work_where_targets_are",
        "known field bug",
        "loss",
        CALL,
        "        p, self.anchors = [x.to(targets.device) for x in p], self.anchors.to(targets.device)\n"
        "        self.BCEcls.to(targets.device), self.BCEobj.to(targets.device)\n"
        f"        self.device = targets.device\n{CALL}",
        "devices.targets-on-cpu",
        "F70",
    ),
    _on_mirror(
        "rows_rounded_on_device",
        "wrong primitive",
        "assign",
        "torch.cat((centre - cell, size), dim=1)",
        "torch.cat((centre - cell, size), dim=1) * (1 + 1e-6 * (cell.device.type != 'cpu'))",
        "devices.rows",
        more=", TBOX",
    ),
    _on_mirror("items_on_cpu", "wrong primitive", "loss", ITEMS, f"{ITEMS}.cpu()", "devices.result-device"),
    _on_mirror(
        "total_on_cpu",
        "wrong primitive",
        "loss",
        "return total.reshape(1)",
        "return total.cpu().reshape(1)",
        "devices.result-device",
    ),
    _on_mirror(
        "mean_by_atomics",
        "wrong primitive",
        "loss",
        MEAN,
        "torch.zeros_like(missed).index_add(0, torch.zeros_like(rows.cls), missed)[0] / len(missed)",
        "devices.repeatable",
        more=", SCALE",
    ),
    _on_mirror(
        "by_histogram",
        "wrong primitive",
        "loss",
        NUMBER,
        f"{NUMBER} + 0 * cell.float().histc(1).long()",
        "devices.deterministic-algorithms",
    ),
    Fault(
        "scaled_when_compiled",
        "DEVICE",
        "edge case",
        "compile.values",
        "loss",
        TOTAL,
        f"{TOTAL} * (0.5 if torch.compiler.is_compiling() else 1.0)",
        device="compile",
    ),
    _on_mirror(
        "half_under_autocast",
        "wrong primitive",
        "loss",
        TOTAL,
        "total = torch.stack((box, obj, cls))[None] @ torch.ones(3, 1, device=box.device, dtype=box.dtype) * len(p[0])",
        "devices.autocast",
        more=", DTYPE",
    ),
)
