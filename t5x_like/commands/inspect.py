"""`t5x_like inspect`: a run's checkpoints."""

import pathlib

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("inspect", "Steps, sizes, validity and lock owner of a run folder.")
    parser.add_argument("model_dir", metavar="MODEL_DIR")
    options = shared.parse(parser, arguments)
    show(pathlib.Path(options.model_dir))


def show(folder: pathlib.Path) -> int:
    """Prints one line per step; returns how many are not sound."""
    from t5x_like.train import run_folder, run_lock

    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder {folder}: give the model_dir of a run")
    checkpoints = folder / "checkpoints"
    steps = run_folder.inspect_steps(checkpoints)
    for row in steps:
        state = "sound" if not row.problems else "DAMAGED: " + "; ".join(row.problems)
        print(f"step {row.step:>9,}  {row.num_bytes / 1e6:>10,.1f} MB  {row.written:%Y-%m-%d %H:%M:%S}  {state}")
    for name in run_folder.set_aside(checkpoints):
        print(f"set aside: {name}")
    if not steps:
        print("no checkpoints")
    owner = run_lock.lock_owner(folder)
    print(f"in use by {owner}" if owner else "nobody is writing here")
    return sum(bool(row.problems) for row in steps)
