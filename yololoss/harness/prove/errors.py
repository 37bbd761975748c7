"""Why a proof cannot be made."""


class Unprovable(Exception):
    """Nothing can be proven of the loss, or of this part of it; the message says why."""
