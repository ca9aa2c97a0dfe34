"""How steps make one number of 64 bits of several: value * NEXT + the next one, and `finish` at the end."""

import numpy as np

NEXT = np.uint64(0xD6E8FEB86659FD93)  # odd, so that multiplying by it loses nothing


def finish(value: np.ndarray) -> np.ndarray:
    """The 64-bit finaliser of MurmurHash3: every bit of the input reaches every bit of the output."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))
