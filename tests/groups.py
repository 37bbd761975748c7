"""Checks that need a distributed group."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from yololoss.harness.engine.guard import Guarded
from yololoss.harness.engine.judge import MEMORY


def holds_in_a_group(check: Callable[[Path], None], folder: Path) -> bool:
    """Whether a check passes in a distributed group of one process.

    That process ends without destroying its group: torch may wait for ever there.
    """
    process = Guarded(_in_a_group, (check, folder), MEMORY).process
    process.join(60)
    return process.exitcode == 0


def _in_a_group(check: Callable[[Path], None], folder: Path) -> None:
    store = f"file://{folder / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        check(folder)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
