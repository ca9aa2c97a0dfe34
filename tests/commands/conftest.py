"""One small corpus, prepared once; one encoder-decoder and one decoder trained on it for a few steps, once."""

import json
import pathlib
import random
import shutil

import pytest

from tests.commands.command_line import succeed

TINY = """
include 'optimizers/adamw.gin'
train.steps = 4
train.save_every = 2
train.eval_every = 4
train.data = @Pipeline()
Pipeline.directory = '{data}'
Pipeline.mixture = '{mixture}'
Pipeline.lengths = {lengths}
Pipeline.batch_size = 8
Pipeline.rows_per_block = 8
Pipeline.num_streams = 8
warmup_cosine.warmup_steps = 2
warmup_cosine.total_steps = 4
"""
T5 = """
include 'models/t5_1_1.gin'
EncoderDecoder.vocab_size = 384
EncoderDecoder.d_model = 16
EncoderDecoder.num_heads = 2
EncoderDecoder.head_dim = 8
EncoderDecoder.num_encoder_layers = 1
EncoderDecoder.num_decoder_layers = 1
EncoderDecoder.d_ff = 32
"""
DECODER = """
include 'models/gpt2.gin'
Decoder.vocab_size = 384
Decoder.d_model = 16
Decoder.num_heads = 2
Decoder.num_layers = 1
Decoder.d_ff = 32
LearnedPositions.max_length = 64
Pipeline.render = @decoder_only
"""
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "the", "dog", "ran", "to", "a", "big", "red", "house"]


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="session")
def corpus(place) -> pathlib.Path:
    """Eight text files."""
    rng, folder = random.Random(0), place / "corpus"
    folder.mkdir()
    for k in range(8):
        lines = [" ".join(rng.choices(WORDS, k=12)) for _ in range(10)]
        (folder / f"{k}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def data(place, corpus) -> pathlib.Path:
    """The corpus prepared as `small_denoising` and `small_causal_lm`, bytes as vocabulary."""
    for name in ("small_denoising", "small_causal_lm"):
        succeed("prepare", name, "--corpus", corpus, "--output_dir", place / "data", "--held_out=0.2")
    return place / "data"


@pytest.fixture(scope="session")
def t5_gin(place, data) -> pathlib.Path:
    """A run of an encoder-decoder; the model folder is left to the command line."""
    return write_gin(place / "t5.gin", T5, data, "small_denoising", {"inputs": 64, "targets": 64})


@pytest.fixture(scope="session")
def decoder_gin(place, data) -> pathlib.Path:
    return write_gin(place / "decoder.gin", DECODER, data, "small_causal_lm", {"targets": 64})


@pytest.fixture(scope="session")
def trained(place, t5_gin) -> pathlib.Path:
    """A finished run of four steps. For reading: take `run` to change something."""
    succeed("train", f"--gin_file={t5_gin}", f"model_dir={place / 't5'}")
    return place / "t5"


@pytest.fixture(scope="session")
def trained_decoder(place, decoder_gin) -> pathlib.Path:
    succeed("train", f"--gin_file={decoder_gin}", f"model_dir={place / 'decoder'}")
    return place / "decoder"


@pytest.fixture
def run(trained, tmp_path) -> pathlib.Path:
    """A copy of the finished run."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def pairs(tmp_path) -> pathlib.Path:
    """Three pairs of different lengths as JSON lines."""
    rows = [("the cat", "sat on"), ("a", "big red house and a dog"), ("the dog ran to", "")]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"inputs": i, "targets": t}) + "\n" for i, t in rows))
    return path


def write_gin(path: pathlib.Path, model: str, data: pathlib.Path, mixture: str, lengths: dict) -> pathlib.Path:
    path.write_text(model + TINY.format(data=data, mixture=mixture, lengths=lengths))
    return path
