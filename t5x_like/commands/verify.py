"""`t5x_like verify`: is every byte of every checkpoint what was written?"""

import pathlib

from t5x_like.commands import inspect
from t5x_like.commands import options as shared


def main(arguments: list[str]) -> int:
    parser = shared.parser_for("verify", "Check the digests of every checkpoint; exit 1 if one is wrong.")
    parser.add_argument("model_dir", metavar="MODEL_DIR")
    options = shared.parse(parser, arguments)
    return int(inspect.show(pathlib.Path(options.model_dir)) > 0)
