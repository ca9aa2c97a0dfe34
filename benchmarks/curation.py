"""Raw to trained in one chain of commands, and what curation is worth: the same model on raw and on curated text.

    python -m benchmarks.curation --work DIR --html '/usr/share/doc/**/*.html' --json c4_demo.jsonl --books book.txt \\
        --lines poems.txt --code FOLDER --clean wikipedia.txt

Pages become a WARC. "raw" is all text that the sources hold, "curated" what a recipe leaves of it, "remixed" the same
with each source's share of the raw text; one tokenizer, one model, one budget of tokens, three seeds; the loss is
measured on `--clean`, of which nothing is trained on.
"""

import argparse
import glob
import gzip
import json
import pathlib
import statistics
import subprocess
import sys

from benchmarks.record import provenance, publish, table

NAMES = ("raw", "curated", "remixed")
RAW = """
curate.sources = [@web/Source(), @json/Source(), @books/Source(), @lines/Source(), @code/Source()]
web/Source.name = 'web'
web/Source.reader = @Warc()
Warc.paths = ['{work}/pages.warc.gz']
Warc.main_content = {main_content}
json/Source.name = 'json'
json/Source.reader = @JsonLines()
JsonLines.paths = ['{json}']
books/Source.name = 'books'
books/Source.reader = @Books()
Books.paths = ['{books}']
lines/Source.name = 'lines'
lines/Source.reader = @lines/TextFiles()
lines/TextFiles.paths = ['{lines}']
lines/TextFiles.per = 'line'
code/Source.name = 'code'
code/Source.reader = @SourceTree()
SourceTree.folder = '{code}'
SourceTree.suffixes = ['.py']
curate.shards = 4
curate.steps = [{steps}]
"""
STEPS = """
    @RepairText(), @Whitespace(), @Language(), @GopherRepetition(), @RepeatedLines(), @ExactDuplicates(), @MinHash(),
    @PersonalData()"""
SETTINGS = """
Language.at_least = 0.5
RepeatedLines.most = 5
RepeatedLines.characters = 10
"""
RUN = """
include 'models/llama.gin'
include 'optimizers/adamw.gin'
train.steps = {steps}
train.eval_every = {steps}
train.save_every = {steps}
train.log_every = 50
train.eval_batches = 5
train.data = @Pipeline()
Pipeline.directory = '{data}'
Pipeline.mixture = '{mixture}'
Pipeline.render = @decoder_only
Pipeline.lengths = {{'targets': 128}}
Pipeline.batch_size = 16
Decoder.vocab_size = 8192
Decoder.d_model = 128
Decoder.num_heads = 4
Decoder.num_kv_heads = 4
Decoder.num_layers = 2
Decoder.d_ff = 352
Decoder.head = @UntiedHead
warmup_cosine.peak = 3e-3
warmup_cosine.warmup_steps = 50
warmup_cosine.total_steps = {steps}
"""


def command(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "t5x_like", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"t5x_like {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


def write_warc(pages: list[str], path: pathlib.Path) -> None:
    """One response a page, as a crawler writes them."""
    with path.open("wb") as out:
        for page in pages:
            body = pathlib.Path(page).read_bytes()
            body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
            head = (
                f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{abs(hash(page))}>\r\n"
                f"WARC-Target-URI: https://localhost{page}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
                f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            out.write(gzip.compress(head.encode() + body + b"\r\n\r\n", 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    for name in ("html", "json", "books", "lines", "code", "clean"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--pages", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True)
    pages = sorted(glob.glob(options.html, recursive=True))
    write_warc(pages[:: max(len(pages) // options.pages, 1)][: options.pages], work / "pages.warc.gz")
    given = {name: getattr(options, name) for name in ("json", "books", "lines", "code")}
    sizes = {name: corpus(name, work, given) for name in NAMES}
    tokenizer = str(work / "tokenizer.model")
    command("tokenizer", "train", "--corpus", str(work / "raw"), "--output", tokenizer, "--kind", "bpe",
            "--vocab_size", "8000", "--max_characters", "4000000")  # fmt: skip
    (work / "clean").mkdir()
    (work / "clean" / "held_out.txt").write_text(pathlib.Path(options.clean).read_text(encoding="utf-8"))
    corpora = {name: str(work / name) for name in (*NAMES, "clean")}
    for name, path in corpora.items():
        share = "0.99" if name == "clean" else "0.02"
        command("prepare", f"{name}_causal_lm", "--corpus", path, "--tokenizer", tokenizer, "--output_dir",
                str(work / "data" / name), "--held_out", share)  # fmt: skip
    losses = {name: [run(name, seed, options.steps, work) for seed in options.seeds] for name in NAMES}
    rows = [
        [name, f"{sizes[name][0]:,}", f"{sizes[name][1] / 1e6:.2f}", *[f"{loss:.4f}" for loss in found],
         f"{statistics.mean(found):.4f}"]
        for name, found in losses.items()
    ]  # fmt: skip
    header = ["trained on", "documents", "million characters", *[f"seed {seed}" for seed in options.seeds], "mean"]
    publish(f"{table(header, rows)}\n\n{provenance(['jax', 'flax', 'pyarrow'])}", options.output)


def corpus(name: str, work: pathlib.Path, given: dict[str, str]) -> tuple[int, int]:
    """(documents, characters) that are left."""
    is_raw = name == "raw"
    text = RAW.format(work=work, main_content=not is_raw, steps="" if is_raw else STEPS, **given)
    text += "" if is_raw else SETTINGS
    if name == "remixed":
        whole = json.loads((work / "raw" / "manifest.json").read_text())["sources"]
        weights = {source: one["characters"] for source, one in whole.items()}
        text += f"curate.weights = {weights}\ncurate.characters = {sum(weights.values()) // 2}\n"
    (work / f"{name}.gin").write_text(text)
    command("curate", f"--gin_file={work}/{name}.gin", f"output_dir={work}/{name}")
    told = json.loads((work / name / "manifest.json").read_text())["sources"]
    print(name, json.dumps(told))
    return sum(one["documents"] for one in told.values()), sum(one["characters"] for one in told.values())


def run(name: str, seed: int, steps: int, work: pathlib.Path) -> float:
    """Held-out loss on clean text, nats a token."""
    folder, config = work / f"run-{name}-{seed}", work / f"{name}-run.gin"
    config.write_text(RUN.format(steps=steps, data=work / "data" / name, mixture=f"{name}_causal_lm"))
    command("train", f"--gin_file={config}", f"model_dir={folder}", f"seed={seed}")
    clean = (f"Pipeline.directory={work}/data/clean", "Pipeline.mixture=clean_causal_lm")
    command("evaluate", str(folder), "--samples=0", "--max_batches=60", *clean)
    found = json.loads((folder / "evaluation" / f"{steps:08d}.json").read_text())
    print(name, seed, found)
    return found["tasks"]["clean_causal_lm"]["loss"]


if __name__ == "__main__":
    main()
