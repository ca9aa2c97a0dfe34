"""Masked tokens and pairs of sentences together: the loss of BertForPreTraining and of AlbertForPreTraining.

tests/golden/make/pair_losses.py ran transformers on the stored models, with a pooler and a classifier more.
"""

import functools
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.models.parameters import merge, split
from t5x_like.models.task_heads import PairHead
from t5x_like.objectives.terms import SumOfTerms, classify_pairs, predict_tokens
from tests.golden.hugging_face_models import folder_of, imported, model_of
from tests.golden.hugging_face_weights import weight

GOLDEN = json.loads(pathlib.Path("tests/golden/pair_losses.json").read_text())


def batch() -> Features:
    given = {name: np.array(values) for name, values in GOLDEN["inputs"].items()}
    place = np.broadcast_to(np.arange(9), (3, 9))
    inside = place < given["lengths"][:, None]
    predicted = given["targets"] >= 0
    return Features(
        tokens=jnp.asarray(given["tokens"], jnp.int32),
        targets=jnp.asarray(np.where(predicted, given["targets"], 0), jnp.int32),
        loss_weights=jnp.asarray(predicted, jnp.float32),
        segment_ids=jnp.asarray(inside, jnp.int32),
        positions=jnp.asarray(np.where(inside, place, 0), jnp.int32)[..., None],
        attn_order=jnp.zeros((3, 9), jnp.int32),
        type_ids=jnp.asarray(given["type_ids"], jnp.int32),
        aux={"pair": jnp.asarray((place == 0) * (given["pairs"][:, None] + 1), jnp.int32)},
    )


def head_of(family: str) -> dict[str, np.ndarray]:
    """The pooler and the classifier, as PairHead holds them."""
    dense, dense_bias, out, out_bias = (
        weight(name, shape, scales_around=1.0) for name, shape in GOLDEN[family]["tensors"].items()
    )
    return {"dense": dense.T, "dense_bias": dense_bias, "out": out.T, "out_bias": out_bias}


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_the_sum_of_both_means_is_the_loss_of_transformers(family):
    make = functools.partial(
        model_of(folder_of(family), family), task_heads={"pair": functools.partial(PairHead, num_classes=2)}
    )
    own = {f"task_heads/pair/{name}": jnp.asarray(value) for name, value in head_of(family).items()}
    model = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=0)))
    params = imported(family)[1] | own
    assert params.keys() == split(model).params.keys()
    model = merge(split(model).graphdef, params)
    first = jnp.zeros((3, 1), jnp.int32)
    logits = model.task_heads["pair"](model.hidden(batch()).x_BLD, first)[:, 0]
    np.testing.assert_allclose(logits, GOLDEN[family]["pair_logits"], atol=1e-5)
    terms = SumOfTerms({"loss": predict_tokens, "pair": classify_pairs})(model, batch(), None)
    total = sum(float(term.sum / term.weight) for term in terms.values())
    np.testing.assert_allclose(total, GOLDEN[family]["loss"], atol=1e-5)
