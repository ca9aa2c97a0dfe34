"""`t5x_like prepare`: a SeqIO task or mixture to a prepared dataset."""

import pathlib

from t5x_like.commands import options as shared
from t5x_like.tasks.held_stderr import held_stderr


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("prepare", "Run the deterministic half of a task once, and write what training reads.")
    parser.add_argument(
        "name", help="task or mixture; with --corpus: X_denoising, X_span_corruption, X_prefix_lm, X_causal_lm"
    )
    parser.add_argument("--output_dir", required=True, metavar="DIR")
    shared.add_module_option(parser)
    parser.add_argument("--split", action="append", metavar="NAME", help="repeatable; default: all splits")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, each over whole shards")
    parser.add_argument("--num_shards", type=int, metavar="N")
    parser.add_argument(
        "--max_tokens_per_record", type=int, default=65536, metavar="N", help="longer documents are cut"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a task prepared from something else")
    corpus = parser.add_argument_group("a corpus of your own, without a task file")
    corpus.add_argument(
        "--corpus", metavar="PATH", help="folder of text or code, text file, .jsonl(.gz, .zst), .parquet"
    )
    corpus.add_argument("--tokenizer", metavar="FILE", help=".model or .json; without it, bytes")
    corpus.add_argument(
        "--held_out", type=float, default=0.05, metavar="FRACTION", help="for validation, by file if it can"
    )
    corpus.add_argument("--extra_ids", type=int, default=100, metavar="N", help="sentinels; 0 for a causal model")
    corpus.add_argument("--field", default="text", metavar="NAME", help="of .jsonl and .parquet")
    options = shared.parse(parser, arguments)

    with held_stderr():
        from t5x_like.tasks import prepare, registry

    modules = options.module or ["data_tasks"]
    if options.corpus:
        modules = [*options.module, str(corpus_tasks(options))]
    registry.import_modules(modules)
    folders = prepare.prepare(
        options.name,
        output_dir=options.output_dir,
        splits=options.split,
        num_shards=options.num_shards,
        workers=options.workers,
        max_tokens_per_record=options.max_tokens_per_record,
        modules=modules,
        overwrite=options.overwrite,
    )
    for folder in folders:
        print(folder)


def corpus_tasks(options) -> pathlib.Path:
    """Writes the task file of a corpus beside its prepared data, so that workers and readers find it."""
    from data_tasks import text_corpus

    suffixes = ["denoising", *text_corpus.OBJECTIVES]
    suffix = next((suffix for suffix in suffixes if options.name.endswith(f"_{suffix}")), None)
    if suffix is None:
        raise ValueError(f"name {options.name!r}: with --corpus it ends in one of _{', _'.join(suffixes)}")
    return text_corpus.write_task_file(
        options.output_dir,
        name=options.name.removesuffix(f"_{suffix}"),
        path=options.corpus,
        tokenizer=options.tokenizer,
        held_out_fraction=options.held_out,
        field=options.field,
        extra_ids=options.extra_ids,
    )
