"""The same jobs by datatrove, for `benchmarks.corpus`: run by the interpreter of an environment that has it.

python corpus_datatrove.py filters|minhash|whole|whole-plain INPUT.jsonl OUTPUT

"whole" is filters, then minhash over what they kept; "-plain" splits words at spaces instead of by spaCy.
"""

import gzip
import json
import pathlib
import re
import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils import word_tokenizers


def run(steps, logs):
    LocalPipelineExecutor(steps, tasks=1, logging_dir=str(logs)).run()


def filters(source, out):
    steps = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False)]
    run([JsonlReader(source), *steps, FineWebQualityFilter(), JsonlWriter(str(out / "kept"))], out / "logs")


def minhash(source, out):
    config = MinhashConfig(num_buckets=14, hashes_per_bucket=8, n_grams=5)
    reader = JsonlReader(source)
    run([reader, MinhashDedupSignature(str(out / "s"), config=config)], out / "logs1")
    LocalPipelineExecutor(
        [MinhashDedupBuckets(str(out / "s"), str(out / "b"), config=config)], tasks=14, logging_dir=str(out / "logs2")
    ).run()
    run([MinhashDedupCluster(str(out / "b"), str(out / "r"), config=config)], out / "logs3")
    run([reader, MinhashDedupFilter(str(out / "r")), JsonlWriter(str(out / "kept"))], out / "logs4")


def whole(source, out):
    filters(source, out / "filtered")
    minhash(str(out / "filtered" / "kept"), out)


def whole_plain(source, out):
    word_tokenizers.load_tokenizer_assignments = lambda: {"eng": SpacesOnly}
    whole(source, out)


class SpacesOnly(word_tokenizers.WordTokenizer):
    def word_tokenize(self, text):
        return text.split()

    def sent_tokenize(self, text):
        return re.split(r"(?<=[.!?])\s+", text)

    def span_tokenize(self, text):
        return [match.span() for match in re.finditer(r"\S+", text)]


def main() -> None:
    job, path, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    only = out / "in"
    only.mkdir(parents=True)
    (only / path.name).symlink_to(path)
    {"filters": filters, "minhash": minhash, "whole": whole, "whole-plain": whole_plain}[job](str(only), out)
    kept = sum(gzip.decompress(file.read_bytes()).count(b"\n") for file in (out / "kept").glob("*.gz"))
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    print(json.dumps({"kept": kept, "peak": peak}))


if __name__ == "__main__":
    main()
