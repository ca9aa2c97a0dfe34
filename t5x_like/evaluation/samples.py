"""Held-out examples with what the model makes of them: input, truth, model."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from t5x_like.data.examples import Side, no_examples
from t5x_like.data.pipeline import Rows
from t5x_like.decoding import prompts
from t5x_like.decoding.generate import generate
from t5x_like.decoding.sampling import greedy
from t5x_like.evaluation.load import Loaded
from t5x_like.features import Features
from t5x_like.models.parameters import merge
from t5x_like.vocabularies.load import Vocabulary


class Question(NamedTuple):
    """The ids of one held-out example: what is given, what follows, and how much of it is a two-way prefix."""

    given: list[int]
    truth: list[int]
    num_prefix: int


def samples(loaded: Loaded, rows: Rows, vocabulary: Vocabulary, count: int) -> list[dict[str, str]]:
    """`count` examples as text: greedily continued, or filled in where the method predicts in place."""
    batch = next(iter(rows))
    if isinstance(no_examples(rows.plan.tasks[0].objective, rows.plan.context), Side):
        return filled_in(loaded, batch, vocabulary, count)
    has_encoder = batch.encoder is not None
    questions = [question(batch, row) for row in range(min(count, int((batch.segment_ids[:, 0] > 0).sum())))]
    start = int(batch.tokens[0, 0])
    if has_encoder:
        prompt = prompts.encoder_decoder_prompt([q.given for q in questions], start)
    else:
        prompt = prompts.decoder_prompt([q.given for q in questions], [q.num_prefix for q in questions])
    max_new = prompts.round_up(max(len(q.truth) for q in questions))
    special = vocabulary.special

    @functools.partial(jax.jit, static_argnames="length")
    def continue_all(params, prompt, length):
        model = merge(loaded.graphdef, params)
        key = jax.random.key(0)  # greedy draws nothing
        return generate(
            model, prompt, max_new_tokens=length, sample=greedy, eos_id=special.eos, pad_id=special.pad, key=key
        )

    answers = np.asarray(continue_all(loaded.params, prompt, max_new))
    return [
        {
            "input": text(vocabulary, q.given),
            "truth": text(vocabulary, q.truth),
            "model": text(vocabulary, answer[: len(q.truth)].tolist()),
        }
        for q, answer in zip(questions, answers, strict=True)
    ]


def filled_in(loaded: Loaded, batch: Features, vocabulary: Vocabulary, count: int) -> list[dict[str, str]]:
    """What is read, and at each place that is predicted the true token and the model's best."""

    @jax.jit
    def best(params, batch):
        model = merge(loaded.graphdef, params)
        return model.logits(model.hidden(batch).x_BLD).argmax(axis=-1)

    found = np.asarray(best(loaded.params, batch))
    made = []
    for row in range(min(count, int((batch.segment_ids[:, 0] > 0).sum()))):
        here = batch.segment_ids[row] == batch.segment_ids[row, 0]
        asked = here & (batch.loss_weights[row] > 0)
        sides = {"input": batch.tokens[row][here], "truth": batch.targets[row][asked], "model": found[row][asked]}
        made.append({name: " ".join(vocabulary.pieces(ids)) for name, ids in sides.items()})
    return made


def question(batch: Features, row: int) -> Question:
    """The first example of a packed row. A text with no inputs is cut in half: the second half is asked for."""
    here = batch.segment_ids[row] == 1
    tokens, targets = batch.tokens[row][here].tolist(), batch.targets[row][here].tolist()
    if batch.encoder is not None:
        return Question(batch.encoder.tokens[row][batch.encoder.segment_ids[row] == 1].tolist(), targets, 1)
    num_prefix = int((batch.attn_order[row][here] == 0).sum())
    num_given = num_prefix if num_prefix > 1 else max(len(tokens) // 2, 1)
    return Question(tokens[:num_given], targets[num_given - 1 :], num_prefix)


def text(vocabulary: Vocabulary, ids: list[int]) -> str:
    """The pieces, sentinels included, up to the end of the text."""
    special = vocabulary.special
    if special.eos in ids:
        ids = ids[: ids.index(special.eos)]
    parts, plain = [], []
    for token in [*ids, None]:
        if token is None or token in special.sentinels:
            parts.append(vocabulary.decode(plain))
            plain = []
        else:
            plain.append(token)
        if token is not None and token in special.sentinels:
            parts.append(f" <{special.sentinels.index(token)}> ")
    return "".join(parts)
