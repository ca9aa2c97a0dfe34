"""`t5x_like tokenizer`: train a vocabulary, or look at one."""

import dataclasses
import sys
from collections.abc import Iterator

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("tokenizer", "Train a vocabulary on text, or show what one makes of a text.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|inspect|report")
    train = actions.add_parser("train", help="write FILE.model (SentencePiece) or FILE.json (byte-level BPE)")
    train.add_argument("--corpus", required=True, metavar="PATH")
    train.add_argument("--output", required=True, metavar="FILE")
    train.add_argument(
        "--vocab_size", type=int, required=True, metavar="N", help="without sentinels; for char an upper bound"
    )
    kinds = "of a .model file; of a .json file bpe (bytes) or wordpiece"
    train.add_argument("--kind", choices=["unigram", "bpe", "char", "word", "wordpiece"], help=kinds)
    train.add_argument("--split_digits", action="store_true", help="every digit is a token of its own")
    train.add_argument("--chinese_words", action="store_true", help="no piece reaches over the end of a Chinese word")
    train.add_argument("--by", metavar="FIELD", help="language, domain, ...: small groups count for more")
    train.add_argument("--alpha", type=float, default=0.3, metavar="A", help="shares of groups are like size^A")
    train.add_argument("--field", default="text", metavar="NAME")
    train.add_argument(
        "--max_characters", type=int, default=16_000_000, metavar="N", help="sample down to this much text"
    )
    train.add_argument(
        "--control", action="append", default=[], metavar="PIECE", help="<sep>, <mode:R>, <lang:de>; repeatable"
    )
    inspect = actions.add_parser("inspect", help="sizes, special tokens, and the pieces of a text")
    inspect.add_argument("tokenizer", metavar="FILE")
    inspect.add_argument("--text", help="default: standard input")
    inspect.add_argument("--extra_ids", type=int, default=100, metavar="N")
    report = actions.add_parser("report", help="tokens per word and byte, unknowns, exactness, by language or domain")
    report.add_argument("tokenizer", metavar="FILE")
    report.add_argument("--corpus", required=True, metavar="PATH")
    report.add_argument("--field", default="text", metavar="NAME")
    report.add_argument("--by", default="", metavar="FIELD", help="a column of the corpus")
    report.add_argument("--max_texts", type=int, default=1000, metavar="N", help="of each group")
    options = shared.parse(parser, arguments)
    {"train": train_vocabulary, "inspect": inspect_vocabulary, "report": report_vocabulary}[options.action](options)


def train_vocabulary(options) -> None:
    from collections import Counter

    from t5x_like.tasks import readers
    from t5x_like.vocabularies import sampling, train

    settings = {"output": options.output, "vocab_size": options.vocab_size, "control_pieces": options.control}
    settings |= {"max_characters": options.max_characters, "split_digits": options.split_digits}
    if options.by:
        budget = {"max_characters": options.max_characters, "alpha": options.alpha, "seed": 0}
        texts = sampling.balanced(lambda: grouped_texts(options), **budget)
    else:
        texts = readers.read_texts(readers.reader_for(options.corpus, field=options.field), options.field, Counter())
    is_json = options.output.endswith(".json")
    kind = options.kind or ("bpe" if is_json else "unigram")
    if (is_json and kind not in ("bpe", "wordpiece")) or (not is_json and kind == "wordpiece"):
        raise ValueError(f"--kind={kind}: a .json file holds bpe (bytes) or wordpiece, a .model file the others")
    if kind == "wordpiece":
        train.train_wordpiece(texts, **settings)
    elif is_json:
        train.train_byte_bpe(texts, **settings)
    else:
        train.train_sentencepiece(texts, kind=kind, chinese_words=options.chinese_words, **settings)


def grouped_texts(options) -> Iterator[tuple[str, str]]:
    """(what the corpus says in the field `--by`, text) of every document."""
    from collections import Counter

    from t5x_like.tasks import readers

    reader = readers.reader_for(options.corpus, field=options.field)
    if not options.by:
        yield from (("all", text) for text in readers.read_texts(reader, options.field, Counter()))
        return
    if not hasattr(reader, "fields"):
        raise ValueError(f"--by={options.by}: {options.corpus} has no columns; give .jsonl or .parquet files")
    reader, told = dataclasses.replace(reader, fields=(options.field, options.by)), False
    for path in reader.files():
        for item in reader.documents(path, Counter()):
            if not isinstance(item, str):
                told = True
                yield item[options.by], item[options.field]
    if not told:
        raise ValueError(f"--by={options.by}: no document of {options.corpus} has that field and {options.field!r}")


def report_vocabulary(options) -> None:
    import pathlib

    from rich.console import Console
    from rich.table import Table

    from t5x_like.vocabularies import load, report

    path = pathlib.Path(options.tokenizer)
    vocabulary = load.open_vocabulary(load.describe_file(path, extra_ids=0), path.parent)
    found = report.fertility(grouped_texts(options), vocabulary, options.max_texts)
    table = Table(options.by or "corpus", *report.COLUMNS, title=f"{path}: {vocabulary.size:,} ids")
    for group, told in found.items():
        table.add_row(group, *told.row())
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def inspect_vocabulary(options) -> None:
    import pathlib

    from t5x_like.vocabularies import load

    path = pathlib.Path(options.tokenizer)
    spec = load.describe_file(path, extra_ids=options.extra_ids)
    vocabulary = load.open_vocabulary(spec, path.parent)
    roles = ", ".join(
        f"{role} {token}" for role, token in vocabulary.special.roles() if not role.startswith("sentinel")
    )
    print(f"{path}: {spec['kind']}, {vocabulary.size:,} ids with {options.extra_ids} sentinels; {roles}")
    text = sys.stdin.read() if options.text is None else options.text
    ids = vocabulary.encode(text)
    print(" | ".join(vocabulary.pieces(ids)))
    exact = "exact" if vocabulary.decode(ids) == text else "NOT exact"
    print(f"{len(ids):,} tokens, {len(text.encode()) / max(len(ids), 1):.2f} bytes per token, round trip {exact}")
