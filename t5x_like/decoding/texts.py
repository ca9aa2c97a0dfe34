"""Texts in, texts or log-likelihoods out, in batches of a fixed size."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5x_like import losses
from t5x_like.data.bucketing import batches_by_length
from t5x_like.decoding import prompts, stop_strings
from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import SampleFn
from t5x_like.features import Features
from t5x_like.models.parameters import merge
from t5x_like.vocabularies.load import Vocabulary

BATCHES_SORTED = 32  # how many batches' texts are sorted by length at a time


@dataclasses.dataclass(frozen=True)
class TextModel:
    """A model with its parameters and vocabulary; `arrangement` is how it reads what it is given."""

    graphdef: nnx.GraphDef
    params: dict[str, jax.Array]
    vocabulary: Vocabulary
    arrangement: prompts.Arrangement
    batch_size: int = 8

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")

    def generate(
        self, inputs: Iterable[str], *, max_new_tokens: int, sample: SampleFn, seed: int, stop_at: Sequence[str] = ()
    ) -> Iterator[str]:
        """One text for each input, in order. A text's draws depend on `seed` and its number, not on its batch.

        A text ends before the first of the strings in `stop_at`.
        """
        special, key = self.vocabulary.special, jax.random.key(seed)
        stop = stop_strings.suffixes_of(stop_at, self.vocabulary)

        @jax.jit
        def run(params, prompt, row_ids):
            model = merge(self.graphdef, params)
            ends = {"eos_id": special.eos, "pad_id": special.pad, "stop": stop}
            return generate(
                model, prompt, max_new_tokens=max_new_tokens, sample=sample, key=key, row_ids=row_ids, **ends
            )

        for number, batch in enumerate(batches(inputs, self.batch_size)):
            prompt = self.arrangement.prompt(self.encode(fill(batch, self.batch_size, "")))
            self.check_reach(prompt, max_new_tokens - 1)
            row_ids = jnp.arange(self.batch_size) + number * self.batch_size
            rows = np.asarray(run(self.params, prompt, row_ids))
            texts = (self.vocabulary.decode(row.tolist()) for row in rows[: len(batch)])
            yield from (stop_strings.cut(text, stop_at) for text in texts)

    def score(self, pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[float, int]]:
        """(log p of the targets given the inputs, in nats; how many tokens), EOS included, for each pair in order."""
        for window in batches(pairs, self.batch_size * BATCHES_SORTED):
            given, targets = (self.encode(side) for side in zip(*window, strict=True))
            ended = [[*ids, self.vocabulary.special.eos] for ids in targets]
            lengths = np.array([len(a) + len(b) for a, b in zip(given, ended, strict=True)])
            found: list[tuple[float, int]] = [(0.0, 0)] * len(window)
            for texts, _ in batches_by_length(lengths, prompts.LENGTHS, self.batch_size):
                chosen = [(given[i], ended[i]) for i in texts]
                rows = self.arrangement.scored(*zip(*fill(chosen, self.batch_size, ([], [0])), strict=True))
                self.check_reach(rows, 0)
                for i, score, count in zip(texts, *map(np.asarray, self._scores_of(self.params, rows)), strict=False):
                    found[i] = float(score), int(count)
            yield from found

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        return [self.vocabulary.encode(text) for text in texts]

    def check_reach(self, rows: Features, num_more: int) -> None:
        """Raises when a row, or its encoder's, is longer than the positions that the model has learned."""
        sides = [(rows, num_more)] + ([(rows.encoder, 0)] if rows.encoder else [])
        longest = max(int(side.positions.max()) + 1 + more for side, more in sides)
        last = prompts.side([[self.vocabulary.special.pad]], [[0]])._replace(positions=np.full((1, 1, 1), longest - 1))
        if not np.isfinite(self._hidden_at(last._replace(encoder=rows.encoder and last))).all():
            raise ValueError(
                f"the model has no position for token {longest} of a row: shorten the texts, or ask for fewer tokens"
            )

    @functools.cached_property
    def _scores_of(self):
        """Log-likelihoods and tokens of rows; one function for all calls, so that none compiles again."""

        @jax.jit
        def run(params, rows):
            model = merge(self.graphdef, params)
            loss_BL = losses.by_chunks(
                lambda model, x_BLD, targets_BL: losses.token_cross_entropy(model.logits(x_BLD), targets_BL),
                model,
                model.hidden(rows).x_BLD,
                rows.targets,
                chunk_size=128,
            )
            return -(loss_BL * rows.loss_weights).sum(axis=1), rows.loss_weights.sum(axis=1)

        return run

    @functools.cached_property
    def _hidden_at(self):
        return functools.partial(
            jax.jit(lambda params, row: merge(self.graphdef, params).hidden(row).x_BLD), self.params
        )


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
