"""`t5x_like ...` inside this process: what it printed, and its exit code."""

import contextlib
import io
from typing import NamedTuple

from t5x_like import launch


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def t5x_like(*arguments) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            launch.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())


def succeed(*arguments) -> Outcome:
    outcome = t5x_like(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome
