"""`t5x_like report`: runs as one HTML file."""

import pathlib

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("report", "One self-contained HTML file with plots; several runs are compared.")
    parser.add_argument("model_dirs", nargs="+", metavar="MODEL_DIR")
    parser.add_argument("--output", metavar="FILE", help="default: report.html in the first folder")
    options = shared.parse(parser, arguments)

    from t5x_like.reporting import report, run_folder

    output = options.output or str(pathlib.Path(options.model_dirs[0]) / "report.html")
    print(report.write_report(options.model_dirs, output))
    for folder in options.model_dirs:
        print(report.headline(run_folder.read_run(pathlib.Path(folder))))
