"""`t5x_like score`: how likely a run's model finds given targets."""

from t5x_like.commands import options as shared
from t5x_like.commands import text_jobs


def main(arguments: list[str]) -> None:
    parser = shared.parser_for(
        "score", 'Reads {"inputs": text, "targets": text} lines, writes them with "log_likelihood" (nats) and "tokens".'
    )
    text_jobs.add_options(parser)
    options = shared.parse(parser, arguments)
    rows = list(text_jobs.read_rows(options.input, ("inputs", "targets")))
    with text_jobs.rows_writer(options.output) as write:
        scores = text_jobs.open_model(options).score((row["inputs"], row["targets"]) for row in rows)
        for row, (log_likelihood, tokens) in zip(rows, scores, strict=True):
            write(row | {"log_likelihood": log_likelihood, "tokens": tokens})
