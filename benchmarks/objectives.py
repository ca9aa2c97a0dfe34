"""Every objective on the same small corpus and budget: loss at start and end, own metric, and speed of the host half.

  python -m benchmarks.objectives [--corpus FOLDER | --planted] [--steps 200] [--only NAME ...]
                                  [--output FILE] [--plot FILE.png]

FOLDER holds train.txt and valid.txt in WikiText's form (an article begins with ` = Title = `); without it the files of
the Python standard library are the corpus, every twentieth held out. `--planted` makes documents up in which it is easy
to tell how two texts are related, for the objectives that ask it. Models are as small as tests': what is shown is that
each objective trains, not how well. Losses of different objectives are not comparable.
"""

import argparse
import functools
import json
import pathlib
import re
import sysconfig
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
import optax

from benchmarks import record
from benchmarks.objective_features import FEATURES, NUM_ENTITIES
from t5x_like import losses
from t5x_like.data import prepared, ragged, rendering
from t5x_like.data.pipeline import Pipeline
from t5x_like.data.ragged import Documents
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder import Encoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.models.entity_entry import EntityEntry
from t5x_like.models.entry import Entry
from t5x_like.models.generator_discriminator import GeneratorDiscriminator
from t5x_like.models.positions import BlockPositions
from t5x_like.models.task_heads import (
    BilinearHead,
    EntityHead,
    MultiTokenHeads,
    PairHead,
    RelationHead,
    SpanBoundaryHead,
)
from t5x_like.objectives import (
    document_coherence,
    entity_discrimination,
    entity_prediction,
    fill_in_the_middle,
    matching_the_blanks,
    multi_token,
    relation_contrast,
    replaced_token,
    span_boundary,
    terms,
)
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.optimizers import clipping, schedules
from t5x_like.train.loop import train
from t5x_like.vocabularies import load
from t5x_like.vocabularies.train import train_byte_bpe

VOCAB_SIZE, EXTRA_IDS, BATCH_SIZE, LENGTH = 2048, 60, 8, 128
OTHER_MARKERS = ("entity", "sop", "eop", "gmask", "smask", *fill_in_the_middle.MARKERS)
MARKERS = tuple(f"<mark:{name}>" for name in (*matching_the_blanks.MARKERS, *OTHER_MARKERS))
PIECES = ("<cls>", "<sep>", "<mask>", "<mode:R>", "<mode:S>", "<mode:X>", *MARKERS)
SIZES = {"d_model": 64, "num_heads": 4, "d_ff": 256}
MODEL = {"vocab_size": VOCAB_SIZE + EXTRA_IDS, **SIZES}
encoder = functools.partial(Encoder, **MODEL, num_layers=2)
decoder = functools.partial(Decoder, **MODEL, num_layers=2)
encoder_decoder = functools.partial(EncoderDecoder, **MODEL, num_encoder_layers=2, num_decoder_layers=2, head_dim=16)
electra = functools.partial(
    GeneratorDiscriminator,
    vocab_size=VOCAB_SIZE + EXTRA_IDS,
    width=64,
    generator=functools.partial(Encoder, d_model=32, num_heads=2, d_ff=128, num_layers=2),
    discriminator=functools.partial(Encoder, **SIZES, num_layers=2),
)


class Method(NamedTuple):
    """One row: `metrics` are names of held-out metrics, with the value that chance gives."""

    objective: Any
    model: Any
    render: Any
    lengths: dict[str, int]
    loss: Any
    metrics: dict[str, float | None]


def text_to_text(objective, inputs=LENGTH, targets=LENGTH):
    lengths = {"inputs": inputs, "targets": targets}
    return Method(
        objective, encoder_decoder, rendering.encoder_decoder, lengths, losses.CrossEntropy(), {"accuracy": None}
    )


def left_to_right(objective, model=decoder, loss=None, **metrics):
    loss = loss or losses.CrossEntropy()
    return Method(objective, model, rendering.decoder_only, {"targets": LENGTH}, loss, {"accuracy": None, **metrics})


def in_place(objective, model=encoder, loss=None, **metrics):
    loss = loss or losses.CrossEntropy()
    return Method(objective, model, rendering.in_place, {"targets": LENGTH}, loss, {"accuracy": None, **metrics})


def with_head(objective, name, head, part, types=0, **metrics):
    """Masked tokens and one more part of the loss, with its head."""
    loss = terms.SumOfTerms({"loss": terms.predict_tokens, name: part})
    model = functools.partial(encoder, task_heads={name: head}, entry=functools.partial(Entry, num_types=types))
    return in_place(objective, model, loss, **metrics)


def methods(stops: list[int]) -> dict[str, Method]:
    """By name. `stops` are the ids that end a sentence."""
    O = OBJECTIVES
    two, three = functools.partial(PairHead, num_classes=2), functools.partial(PairHead, num_classes=3)
    span = functools.partial(SpanBoundaryHead, vocab_size=VOCAB_SIZE + EXTRA_IDS)
    pairs = {"sentence_ends": stops}
    three_ahead = functools.partial(MultiTokenHeads, num_extra=3, layer=Block)
    block_positions = functools.partial(BlockPositions, max_length=LENGTH, max_block_length=LENGTH)
    return {
        "causal LM": left_to_right(O["CausalLM"]()),
        "4 tokens at once": left_to_right(
            O["CausalLM"](),
            functools.partial(decoder, task_heads={"ahead": three_ahead}),
            terms.SumOfTerms({"loss": terms.predict_tokens, "ahead": multi_token.predict_ahead}),
            ahead_accuracy=None,
        ),
        "fill in the middle": left_to_right(O["FillInTheMiddle"]()),
        "GLM": in_place(
            O["BlankInfilling"](shares=(0.5, 0.3, 0.2), **pairs),
            functools.partial(decoder, layers=Block, entry=functools.partial(Entry, positions=block_positions)),
        ),
        "UniLM": with_head(O["UniLM"](**pairs), "pair", two, terms.classify_pairs, types=6, pair_accuracy=0.5),
        "prefix LM, decoder": left_to_right(O["PrefixLM"]()),
        "prefix LM": text_to_text(O["PrefixLM"]()),
        "span corruption": text_to_text(O["SpanCorruption"](), targets=30),
        "span corruption, rolled": text_to_text(O["SpanCorruption"](random_roll=True), targets=40),
        "iid denoising": text_to_text(O["IidDenoising"](), targets=100),
        "MASS": text_to_text(O["IidDenoising"](style="mass")),
        "deshuffling": text_to_text(O["Deshuffling"]()),
        "random replacement": text_to_text(O["RandomReplacement"]()),
        "BART": text_to_text(O["Bart"](sentence_ends=stops)),
        "UL2": text_to_text(O["UL2"]()),
        "BERT, static": in_place(O["MaskedLM"](masks="static")),
        "BERT": in_place(O["MaskedLM"]()),
        "RoBERTa": in_place(O["MaskedLM"](budget="roberta", random_ids="text", documents="concatenated")),
        "whole words": in_place(O["MaskedLM"](units="words")),
        "n-grams": in_place(O["MaskedLM"](units="words", ngrams=(6 / 11, 3 / 11, 2 / 11))),
        "SpanBERT": with_head(
            O["SpanBoundary"](), "span", span, span_boundary.predict_from_boundary, span_accuracy=None
        ),
        "ERNIE 1.0": in_place(O["EntityMasking"]()),
        "MacBERT": in_place(O["SimilarWords"]()),
        "ELECTRA": in_place(
            O["ReplacedToken"](),
            electra,
            replaced_token.ReplacedTokenLoss(),
            replaced_accuracy=None,
            replaced_recall=None,
        ),
        "BERT + next sentence": with_head(
            O["NextSentence"](**pairs), "pair", two, terms.classify_pairs, pair_accuracy=0.5
        ),
        "ALBERT + order": with_head(O["SentenceOrder"](**pairs), "pair", two, terms.classify_pairs, pair_accuracy=0.5),
        "StructBERT": with_head(O["Structural"](**pairs), "pair", three, terms.classify_pairs, pair_accuracy=1 / 3),
        "CONPONO": with_head(
            O["DocumentCoherence"](**pairs, texts_per_example=4),
            "distance",
            functools.partial(BilinearHead, num_relations=4),
            document_coherence.find_neighbours,
            distance_recall=1 / (4 * BATCH_SIZE - 1),
        ),
        "unshuffling": with_head(
            O["SentenceUnshuffling"](**pairs),
            "pair",
            functools.partial(PairHead, num_classes=8),
            terms.classify_pairs,
            pair_accuracy=None,
        ),
        "LUKE": in_place(
            O["EntityPrediction"](num_entities=NUM_ENTITIES, max_entities=16),
            functools.partial(
                encoder,
                entry=functools.partial(EntityEntry, num_entities=NUM_ENTITIES, width=32),
                task_heads={"entity": functools.partial(EntityHead, num_entities=NUM_ENTITIES, width=32)},
            ),
            terms.SumOfTerms({"loss": terms.predict_tokens, "entity": entity_prediction.predict_entities}),
            entity_loss=None,
            entity_accuracy=1 / NUM_ENTITIES,
        ),
        "ERICA, relations": in_place(
            O["RelationContrast"](),
            encoder,
            terms.SumOfTerms({"loss": terms.predict_tokens, "relation": relation_contrast.contrast_relations}),
            relation_loss=None,
            relation_recall=None,
        ),
        "ERICA, entities": in_place(
            # Relations are numbered by the tokens that name them.
            O["EntityDiscrimination"](relation_names=tuple(map(str, range(VOCAB_SIZE + EXTRA_IDS)))),
            encoder,
            terms.SumOfTerms({"loss": terms.predict_tokens, "entity": entity_discrimination.find_tails}),
            entity_loss=None,
            entity_accuracy=None,
        ),
        "matching the blanks": in_place(
            O["MatchingTheBlanks"](),
            functools.partial(encoder, task_heads={"relation": functools.partial(RelationHead, width=32)}),
            terms.SumOfTerms(
                {
                    "loss": terms.predict_tokens,
                    "match": matching_the_blanks.match_relations,
                    "apart": matching_the_blanks.tell_relations_apart,
                },
                {"match": 0.5, "apart": 0.5},
            ),
            match_accuracy=None,
            apart_accuracy=None,
        ),
    }


def read_corpus(folder: str | None) -> tuple[list[str], list[str]]:
    """(training, held-out) documents."""
    if folder is None:
        paths = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
        return [t for i, t in enumerate(texts) if i % 20], texts[::20]
    article = re.compile(r"^ = [^=].* = $", re.MULTILINE)
    both = []
    for name in ("train.txt", "valid.txt"):
        text = pathlib.Path(folder, name).read_text(encoding="utf-8")
        starts = [match.start() for match in article.finditer(text)]
        both.append([text[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)])
    return both[0], both[1]


def planted_corpus() -> tuple[list[str], list[str]]:
    """Documents of which each has words of its own topic, and says in each sentence which one it is."""
    rng = np.random.default_rng(0)
    names = ["Alda", "Bero", "Cimu", "Dafo", "Egil", "Fanu", "Gero", "Hila", "Imer", "Jolu", "Kavi", "Lomu"]
    places = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]

    def document() -> str:
        words = [f"{rng.choice(names)}{letter}" for letter in "abcdef"]
        return " ".join(" ".join([*rng.permutation(words)[:5], place, "."]) for place in places)

    return [document() for _ in range(2000)], [document() for _ in range(100)]


def write_task(
    folder: pathlib.Path, corpus: tuple[list[str], list[str]], vocab_size: int
) -> tuple[prepared.PreparedTask, Documents]:
    """The corpus as a prepared task with every feature that a method reads; and its training documents."""
    path = train_byte_bpe(
        corpus[0], output=folder / "bpe.json", vocab_size=vocab_size, control_pieces=PIECES, max_characters=4_000_000
    )
    spec = load.describe("huggingface", path, extra_ids=EXTRA_IDS)
    vocabulary = load.open_vocabulary(spec, folder)
    splits, kept, training = {}, None, None
    for split, texts in zip(("train", "validation"), corpus, strict=True):
        features = {"targets": [np.array(ids, np.int32) for ids in vocabulary.encode_batch(texts)]}
        training = training or features["targets"]
        for name, make in FEATURES.items():
            features[name] = make(features["targets"], vocabulary, training)
        kept = kept or Documents({n: ragged.from_list(f) for n, f in features.items()}, np.ones(len(texts), bool))
        dtypes = dict.fromkeys(features, "int32")
        writer = prepared.ShardWriter(folder / f"{split}-00000-of-00001.array_record", dtypes)
        for row in range(len(texts)):
            writer.write({name: feature[row] for name, feature in features.items()})
        shard = writer.close()
        tokens = {"targets": int(sum(map(len, features["targets"])))}
        splits[split] = {"examples": len(texts), "tokens": tokens, "shards": [shard]}
    manifest = {"format": prepared.FORMAT, "name": folder.name, "vocabulary": spec, "splits": splits}
    manifest["features"] = {name: {"dtype": "int32", "add_eos": True} for name in ("targets", *FEATURES)}
    manifest["objective"] = {"name": "CausalLM", "fields": {}}
    (folder / "task.json").write_text(json.dumps(manifest))
    return prepared.open_task(folder), kept


def tokens_per_second(method: Method, documents: Documents, context) -> float:
    """Of the host half alone, on one core: documents in memory to examples; the best of three."""
    some = min(len(documents.ends), 64)
    reads = {name: ragged.take(documents.features[name], np.arange(some)) for name in method.objective.reads}
    block, best = Documents(reads, documents.ends[:some]), np.inf
    for seed in range(3):
        began = time.perf_counter()
        method.objective.examples(np.random.default_rng(seed), block, context)
        best = min(best, time.perf_counter() - began)
    return len(reads["targets"].values) / best


def run(name: str, method: Method, folder: pathlib.Path, documents: Documents, steps: int) -> dict:
    """What a training run logs of its held-out text at step 0 and at the end, and every training loss."""
    data = Pipeline(
        directory=str(folder.parent),
        mixture=folder.name,
        lengths=method.lengths,
        batch_size=BATCH_SIZE,
        render=method.render,
        objective=method.objective,
        num_streams=4,
        rows_per_block=64,
    )
    context = data.context(data.tasks()[0][0])
    speed = tokens_per_second(method, documents, context)
    rate = schedules.warmup_cosine(peak=3e-3, warmup_steps=steps // 10, total_steps=steps, final=3e-4)
    with tempfile.TemporaryDirectory() as model_dir:
        train(
            model_dir=model_dir,
            model=method.model,
            optimizer=clipping.clipped(optax.adamw(rate, weight_decay=0.01), max_norm=1.0),
            data=data,
            loss=method.loss,
            steps=steps,
            eval_every=steps,
            save_every=steps,
            eval_batches=16,
            log_every=max(steps // 50, 1),
        )
        lines = [json.loads(line) for line in pathlib.Path(model_dir, "metrics.jsonl").read_text().splitlines()]
    prefix = f"eval/{folder.name}/"
    held_out = [{k.removeprefix(prefix): v for k, v in line.items() if k.startswith(prefix)} for line in lines]
    held_out = [metrics for metrics in held_out if metrics]
    curve = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    return {"name": name, "first": held_out[0], "last": held_out[-1], "curve": curve, "speed": speed}


def describe(result: dict, method: Method) -> list[str]:
    first, last = result["first"], result["last"]
    own = []
    for metric, chance in method.metrics.items():
        by_chance = "" if chance is None else f" (chance {chance:.3f})"
        own.append(f"{metric.replace('_', ' ')} {first[metric]:.3f} → {last[metric]:.3f}{by_chance}")
    speed = f"{result['speed'] / 1e6:.1f} M"
    return [result["name"], f"{first['loss']:.3f}", f"{last['loss']:.3f}", "; ".join(own), speed]


def plot(results: list[dict], path: str) -> None:
    """Training losses of all methods, each in a small panel with its own axis."""
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(2.6 * columns, 1.8 * rows), layout="constrained")
    for axes, result in zip(figure.subplots(rows, columns, squeeze=False).ravel(), results, strict=False):
        axes.plot(*zip(*result["curve"], strict=True))
        axes.set_title(result["name"], fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in figure.axes[len(results) :]:
        axes.set_visible(False)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("training loss of the main term, nats", fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="folder with train.txt and valid.txt; default: the standard library")
    parser.add_argument("--planted", action="store_true", help="made-up documents in which texts are easy to relate")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="names of methods")
    parser.add_argument("--output", help="file to append the table to")
    parser.add_argument("--plot", help="PNG file of the curves")
    options = parser.parse_args()
    corpus = planted_corpus() if options.planted else read_corpus(options.corpus)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place) / "corpus"
        folder.mkdir()
        task, documents = write_task(folder, corpus, 448 if options.planted else VOCAB_SIZE)
        stop = task.vocabulary.encode(" ." if options.corpus or options.planted else "\n")
        every = methods(stop[-1:])
        chosen = {name: every[name] for name in options.only or every}
        results = []
        for name, method in chosen.items():
            results.append(run(name, method, folder, documents, options.steps))
            print(describe(results[-1], method), flush=True)
    rows = [describe(result, chosen[result["name"]]) for result in results]
    header = ["objective", "held-out loss at start", "at end", "its own metrics, start → end", "host tokens/s/core"]
    text = record.table(header, rows) + "\n\n" + record.provenance(["jax", "flax", "optax", "numpy"])
    record.publish(text, options.output)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
