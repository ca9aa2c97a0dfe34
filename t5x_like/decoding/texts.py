"""Texts in, texts or log-likelihoods out, in batches of a fixed size, with an encoder or without."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like import losses
from t5x_like.decoding import prompts
from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import SampleFn
from t5x_like.features import Features
from t5x_like.models.parameters import merge
from t5x_like.vocabularies.load import Vocabulary


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A model with its parameters and vocabulary. `has_encoder` says how its inputs are read."""

    graphdef: nnx.GraphDef
    params: dict[str, jax.Array]
    vocabulary: Vocabulary
    has_encoder: bool
    batch_size: int = 8

    def generate(self, inputs: Iterable[str], *, max_new_tokens: int, sample: SampleFn, seed: int) -> Iterator[str]:
        """One text for each input, in order. A text's draws depend on `seed` and its number, not on its batch."""
        special, key = self.vocabulary.special, jax.random.key(seed)

        @jax.jit
        def run(params, prompt, row_ids):
            model = merge(self.graphdef, params)
            ends = {"eos_id": special.eos, "pad_id": special.pad}
            return generate(
                model, prompt, max_new_tokens=max_new_tokens, sample=sample, key=key, row_ids=row_ids, **ends
            )

        for number, batch in enumerate(batches(inputs, self.batch_size)):
            row_ids = jnp.arange(self.batch_size) + number * self.batch_size
            rows = np.asarray(run(self.params, self.prompt(fill(batch, self.batch_size, "")), row_ids))
            yield from (self.vocabulary.decode(row.tolist()) for row in rows[: len(batch)])

    def score(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[float, int]]:
        """(log p of the targets given the inputs, in nats; how many tokens), EOS included, for each pair in order."""

        @functools.partial(jax.jit)
        def run(params, rows):
            model = merge(self.graphdef, params)
            loss_BL = losses.token_cross_entropy(model.logits(model.hidden(rows)), rows.targets)
            return -(loss_BL * rows.loss_weights).sum(axis=1), rows.loss_weights.sum(axis=1)

        for batch in batches(pairs, self.batch_size):
            scores, counts = run(self.params, self.scored_rows(fill(batch, self.batch_size, ("", ""))))
            yield from zip(
                np.asarray(scores)[: len(batch)].tolist(), np.asarray(counts).astype(int).tolist(), strict=False
            )

    def prompt(self, texts: list[str]) -> Features:
        special = self.vocabulary.special
        ids = [self.vocabulary.encode(text) for text in texts]
        if self.has_encoder:
            return prompts.encoder_decoder_prompt([[*row, special.eos] for row in ids], special.pad)
        return prompts.decoder_prompt([[special.pad, *row] for row in ids], [1] * len(ids))

    def scored_rows(self, pairs: list[tuple[str, str]]) -> Features:
        special = self.vocabulary.special
        targets = [[*self.vocabulary.encode(target), special.eos] for _, target in pairs]
        if self.has_encoder:
            return prompts.with_targets(self.prompt([text for text, _ in pairs]), targets, special.pad)
        given = [self.vocabulary.encode(text) for text, _ in pairs]
        whole = [[*before, *after] for before, after in zip(given, targets, strict=True)]
        rows = prompts.decoder_prompt([[special.pad, *ids[:-1]] for ids in whole], [1] * len(whole))
        length = rows.tokens.shape[1]
        weights = [[0.0] * len(before) + [1.0] * len(after) for before, after in zip(given, targets, strict=True)]
        return rows._replace(targets=prompts.pad(whole, length), loss_weights=prompts.pad(weights, length, np.float32))


def batches(items: Iterable, size: int) -> Iterator[list]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def fill(batch: list, size: int, filler) -> list:
    """One shape for every batch, so that one program serves all."""
    return [*batch, *[filler] * (size - len(batch))]
