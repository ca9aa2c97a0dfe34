"""`t5x_like tokenizer`: train a vocabulary, or look at one."""

import sys

from t5x_like.commands import options as shared


def main(arguments: list[str]) -> None:
    parser = shared.parser_for("tokenizer", "Train a vocabulary on text, or show what one makes of a text.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|inspect")
    train = actions.add_parser("train", help="write FILE.model (SentencePiece) or FILE.json (byte-level BPE)")
    train.add_argument("--corpus", required=True, metavar="PATH")
    train.add_argument("--output", required=True, metavar="FILE")
    train.add_argument(
        "--vocab_size", type=int, required=True, metavar="N", help="without sentinels; for char an upper bound"
    )
    train.add_argument("--kind", default="unigram", choices=["unigram", "bpe", "char", "word"], help="of a .model file")
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
    options = shared.parse(parser, arguments)
    (train_vocabulary if options.action == "train" else inspect_vocabulary)(options)


def train_vocabulary(options) -> None:
    from collections import Counter

    from t5x_like.tasks import readers
    from t5x_like.vocabularies import train

    reader = readers.reader_for(options.corpus, field=options.field)
    texts = readers.read_texts(reader, options.field, Counter())
    settings = {"output": options.output, "vocab_size": options.vocab_size, "control_pieces": options.control}
    settings["max_characters"] = options.max_characters
    if options.output.endswith(".json"):
        train.train_byte_bpe(texts, **settings)
    else:
        train.train_sentencepiece(texts, kind=options.kind, **settings)


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
