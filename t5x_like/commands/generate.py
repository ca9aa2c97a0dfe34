"""`t5x_like generate`: a text for each line of a JSONL file."""

from t5x_like.commands import options as shared
from t5x_like.commands import text_jobs


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("generate", 'Reads {"inputs": text} lines, writes them with "prediction" added.')
    text_jobs.add_options(parser)
    parser.add_argument("--max_new_tokens", type=int, default=64, metavar="N")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0: always the likeliest token")
    parser.add_argument("--top_k", type=int, metavar="K")
    parser.add_argument("--top_p", type=float, default=1.0, metavar="P")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = shared.parse(parser, arguments)

    from t5x_like.decoding.sampling import Sample

    sample = Sample(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    rows = list(text_jobs.read_rows(options.input, ("inputs",)))
    with text_jobs.rows_writer(options.output) as write:
        texts = text_jobs.open_model(options).generate(
            (row["inputs"] for row in rows), max_new_tokens=options.max_new_tokens, sample=sample, seed=options.seed
        )
        for row, text in zip(rows, texts, strict=True):
            write(row | {"prediction": text})
