"""Every planted fault, by name."""

from tests.faults import Fault
from tests.faults.assignment import ASSIGNMENT
from tests.faults.boxes import BOXES
from tests.faults.conduct import CONDUCT
from tests.faults.device import DEVICE
from tests.faults.hidden import HIDDEN
from tests.faults.rare import RARE
from tests.faults.targets import TARGETS
from tests.faults.trainers import TRAINERS
from tests.faults.whole import WHOLE

FAULTS: tuple[Fault, ...] = (*ASSIGNMENT, *BOXES, *TARGETS, *WHOLE, *HIDDEN, *RARE, *TRAINERS, *CONDUCT, *DEVICE)
BY_NAME = {fault.name: fault for fault in FAULTS}
# The first faults of the catalogue; tests check the whole finding of each.
FOUR = tuple(BY_NAME[n] for n in ("neighbour_sign", "height_width_swapped", "clamp_dropped", "balance_reversed"))
