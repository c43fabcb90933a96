"""How math threads wait for each other; to be set before torch is imported."""

from __future__ import annotations

import os

# A thread that waits by spinning starves the one it waits for, wherever cores are shared; one that sleeps at once
# costs a fifth of the speed where they are not. 20 000 turns are a millisecond at most: as fast, and still polite.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "20000"}


def wait_politely() -> None:
    """Set the above for this process and its children, where the user has not."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
