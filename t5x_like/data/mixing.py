"""How many examples each task gives. Rates come from the SeqIO mixture; only their ratios matter."""

import numpy as np


def normalise(rates: dict[str, float]) -> dict[str, float]:
    """Rates that sum to 1."""
    bad = {name: rate for name, rate in rates.items() if not rate > 0}
    if bad:
        raise ValueError(f"mixing rates must be positive, got {bad}: leave the task out to switch it off")
    total = sum(rates.values())
    return {name: rate / total for name, rate in rates.items()}


def temperature(rates: dict[str, float], temperature: float) -> dict[str, float]:
    """rate^(1/T), normalised: T = 1 keeps the rates, a large T evens them out (mT5, arXiv:2010.11934, section 3.1)."""
    if not temperature > 0:
        raise ValueError(f"temperature {temperature} must be positive")
    return normalise({name: rate ** (1 / temperature) for name, rate in rates.items()})


def draws_between(rates: np.ndarray, phases: np.ndarray, start: int, stop: int) -> np.ndarray:
    """How often each task is drawn in the draws start ... stop - 1, int64 [tasks].

    After n draws a task has been drawn rate * n times, rounded down or up: no luck in it, and no state but n. `phases`
    in [0, 1) decide who comes first.
    """
    return (np.floor(rates * stop + phases) - np.floor(rates * start + phases)).astype(np.int64)
