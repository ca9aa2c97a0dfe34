"""Which learning rate is best at each width, by muP and by the standard way: `python -m benchmarks.width_transfer`.

A decoder of two layers on a Markov chain (tests/optimizers/width_runs.py), Adam without decay or schedule.
"""

import argparse

import numpy as np

from tests.optimizers.width_runs import run

POWERS = range(-12, -2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--widths", default="64,128,256")
    parser.add_argument("--seed", type=int, default=0, help="of the initial values")
    options = parser.parse_args()
    rates, how = tuple(2.0**power for power in POWERS), {"num_layers": 2, "seed": options.seed}
    names = " ".join(f"2^{power}".rjust(7) for power in POWERS)
    print(f"{'way':9} {'width':5}  {names}   best   logits moved by 4 steps at 2^-8")
    for mup in (True, False):
        for width in map(int, options.widths.split(",")):
            losses = run(width, rates, mup=mup, steps=options.steps, **how).losses
            moved = run(width, (2.0**-8,), mup=mup, steps=4, **how).logits[0]
            shown = " ".join(f"{loss:7.3f}" for loss in losses)
            best = POWERS[int(np.nanargmin(losses))]
            print(f"{'muP' if mup else 'standard':9} {width:5}  {shown}   2^{best}   {moved:.3f}", flush=True)


if __name__ == "__main__":
    main()
