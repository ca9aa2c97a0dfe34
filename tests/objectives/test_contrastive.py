"""Losses of images and texts: open_clip's numbers, and the same ones however the batch lies on a mesh."""

import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from t5x_like.features import Features
from t5x_like.objectives.captioning import CaptioningLoss
from t5x_like.objectives.contrastive import ContrastiveLoss
from t5x_like.objectives.sigmoid_contrastive import SigmoidContrastiveLoss

GOLDEN = json.loads(pathlib.Path("tests/golden/contrastive_losses.json").read_text())
IMAGE, TEXT, LOGITS = (np.array(GOLDEN[name], np.float32) for name in ("image", "text", "logits"))
LABELS = np.array(GOLDEN["labels"], np.int32)


class Read(NamedTuple):
    """What a ContrastiveCaptioner gives of one pass."""

    image_BW: jax.Array
    text_BW: jax.Array
    x_BLD: jax.Array
    terms: dict


class Model:
    """Vectors and logits as they are given."""

    def __init__(self, image, text, bias=0.0):
        self.image, self.text, self.bias = image, text, bias

    def embed(self, batch, *, dropout_key=None):
        return self.image, self.text, {}

    def read(self, batch, *, dropout_key=None):
        return Read(self.image, self.text, jnp.asarray(LOGITS), {})

    def contrast(self, image, text):
        return GOLDEN["scale"] * image @ text.T + self.bias

    def logits(self, x_BLV):
        return x_BLV


def batch(n, padding=0):
    real = np.repeat([1, 0], [n, padding])[:, None] * np.ones((1, LABELS.shape[1]), np.int32)
    weights = (LABELS > 0).astype(np.float32)
    return Features(LABELS, LABELS, weights, real, None, None)


def mean(term):
    return float(term.sum / term.weight)


def padded(x, rows):
    return np.concatenate([x, np.ones((rows, x.shape[1]), np.float32)])


LOSSES = {"softmax": (ContrastiveLoss(), 0.0), "sigmoid": (SigmoidContrastiveLoss(), GOLDEN["bias"])}


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_of_open_clip(name, padding):
    loss, bias = LOSSES[name]
    model = Model(padded(IMAGE, padding), padded(TEXT, padding), bias)
    x = batch(len(IMAGE), padding)
    assert mean(loss(model, x, None)["loss"]) == pytest.approx(GOLDEN[name], rel=1e-6)
    measured = loss.measure(model, x)
    assert mean(measured["loss"]) == pytest.approx(GOLDEN[name], rel=1e-6)
    best = (IMAGE @ TEXT.T).argmax(axis=1) == np.arange(len(IMAGE))
    assert mean(measured["text_recall"]) == pytest.approx(best.mean())


def test_the_loss_of_a_captioner_is_open_clips():
    found = CaptioningLoss()(Model(IMAGE, TEXT), batch(len(IMAGE)), None)
    assert mean(found["loss"]) == pytest.approx(GOLDEN["coca_caption"], rel=1e-6)
    assert mean(found["contrast"]) == pytest.approx(GOLDEN["coca_contrast"], rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_negatives_are_those_of_the_whole_mesh(name):
    """Eight devices with a row each give the loss and the gradient of one device with all eight."""
    loss, bias = LOSSES[name]
    rng = np.random.default_rng(1)
    image, text = (rng.standard_normal((8, 5)).astype(np.float32) for _ in range(2))
    segments = np.ones((8, 2), np.int32)

    def value(image, text):
        x = Features(None, None, None, segments, None, None)
        return loss(Model(image, text, bias), x, None)["loss"].sum

    step = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))
    place = NamedSharding(Mesh(np.array(jax.devices()[:8]), ("data",)), P("data"))
    alone, spread = step(image, text), step(*jax.device_put((image, text), place))
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_order_of_the_batch_changes_nothing():
    order = np.random.default_rng(0).permutation(len(IMAGE))
    for loss, bias in LOSSES.values():
        one = loss(Model(IMAGE, TEXT, bias), batch(len(IMAGE)), None)["loss"]
        other = loss(Model(IMAGE[order], TEXT[order], bias), batch(len(IMAGE)), None)["loss"]
        assert mean(one) == pytest.approx(mean(other), rel=1e-6)
