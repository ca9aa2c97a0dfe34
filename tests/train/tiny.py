"""A run small enough for a test: a T5 of two layers on random bytes, through the real pipeline and loop."""

import functools
import pathlib

import optax

from t5x_like import losses
from t5x_like.data import rendering
from t5x_like.data.pipeline import Pipeline
from t5x_like.models.encoder import Encoder
from t5x_like.models.encoder_decoder import EncoderDecoder
from t5x_like.train.loop import train
from tests.data.prepared_folder import counting_documents, write_mixture, write_task

SIZES = {"num_encoder_layers": 1, "num_decoder_layers": 1, "d_model": 16, "num_heads": 2, "head_dim": 8, "d_ff": 32}
MODEL = functools.partial(EncoderDecoder, vocab_size=384, **SIZES)


def write_data(directory: pathlib.Path) -> None:
    """A mixture of span corruption and prefix LM with a held-out split of the second."""
    write_task(directory, "spans", counting_documents(60))
    write_task(directory, "prefixes", counting_documents(60, low=5, high=60, seed=1), objective="PrefixLM")
    write_task(directory, "prefixes", counting_documents(5, seed=2), objective="PrefixLM", split="validation")
    write_mixture(directory, "mixture", {"spans": 2.0, "prefixes": 1.0})


def masked(directory: pathlib.Path) -> tuple[Pipeline, functools.partial]:
    """Masked tokens for an encoder, and one."""
    for split, seed in (("train", 0), ("validation", 1)):
        write_task(directory, "masked", counting_documents(40, seed=seed), objective="MaskedLM", split=split)
    settings = {"lengths": {"targets": 32}, "batch_size": 8, "rows_per_block": 8, "render": rendering.in_place}
    model = functools.partial(Encoder, vocab_size=384, num_layers=1, d_model=16, num_heads=2, d_ff=32)
    return Pipeline(directory=str(directory), mixture="masked", **settings), model


def pipeline(directory: pathlib.Path, **changes) -> Pipeline:
    settings = {"mixture": "mixture", "lengths": {"inputs": 32, "targets": 16}, "batch_size": 8, "rows_per_block": 8}
    return Pipeline(directory=str(directory), **settings | changes)


def run(model_dir: pathlib.Path, data: Pipeline, steps: int, **changes):
    settings = {"model": MODEL, "optimizer": optax.adamw(1e-2), "loss": losses.CrossEntropy(z_loss=1e-4)}
    settings |= {"save_every": 3, "eval_every": 4}
    return train(model_dir=str(model_dir), data=data, steps=steps, **settings | changes)
