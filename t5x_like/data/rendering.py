"""Examples to the sides of a row: encoder and decoder, or one stack alone; an argument of the pipeline chooses.

  inputs 5 6 7   targets 8 9 1   (start token 0)

  encoder_decoder   encoder tokens 5 6 7           decoder tokens 0 8 9         targets 8 9 1        weights 1 1 1
  decoder_only      tokens 0 5 6 7 8 9   targets 5 6 7 8 9 1   weights 0 0 0 1 1 1   attn_order 0 0 0 0 1 2

As in SeqIO's PrefixLMFeatureConverter, the bidirectional part of a decoder-only row is one longer than the inputs: the
place that predicts the first target sees, and is seen by, the whole prefix.

A method that predicts in place (BERT, UniLM, GLM) makes the side of a row itself: `in_place`, for one stack alone.
"""

import numpy as np

from t5x_like.data import ragged
from t5x_like.data.examples import Examples, Side
from t5x_like.data.ragged import Ragged


def encoder_decoder(examples: Examples | Side) -> tuple[Side, ...]:
    """(encoder, decoder): the encoder sees all of itself, the decoder is causal."""
    if isinstance(examples, Side):
        raise ValueError("this objective predicts in place and has no inputs and targets: set render = @in_place")
    inputs, targets, starts = examples
    if inputs is None:
        raise ValueError("this objective gives no inputs to encode: train a Decoder on it, with render = @decoder_only")
    zeros = np.zeros(len(inputs.values), np.int32)
    order = ragged.index_within(targets.lengths).astype(np.int32)
    weights = np.ones(len(targets.values), np.float32)
    return (
        Side(inputs.values, None, None, zeros, inputs.lengths),
        Side(shift_right(targets, starts), targets.values, weights, order, targets.lengths),
    )


def decoder_only(examples: Examples | Side) -> tuple[Side, ...]:
    """(decoder,): inputs and targets in one sequence; the inputs see each other, only the targets are predicted.

    What is predicted in place stays as it is, so that both can be mixed on one stack (next tokens and masked ones).
    """
    if isinstance(examples, Side):
        return in_place(examples)
    inputs, targets, starts = examples
    if inputs is None:
        order = ragged.index_within(targets.lengths).astype(np.int32)
        weights = np.ones(len(targets.values), np.float32)
        return (Side(shift_right(targets, starts), targets.values, weights, order, targets.lengths),)
    whole = ragged.join_pairs(inputs, targets)
    place = ragged.index_within(whole.lengths)
    num_inputs = np.repeat(inputs.lengths, whole.lengths)
    order = np.maximum(place - num_inputs, 0).astype(np.int32)
    weights = (place >= num_inputs).astype(np.float32)
    return (Side(shift_right(whole, starts), whole.values, weights, order, whole.lengths),)


def in_place(examples: Examples | Side) -> tuple[Side, ...]:
    """(stack,): as the objective made it."""
    if not isinstance(examples, Side):
        raise ValueError(
            "this objective makes inputs and targets, and predicts nothing in place: set render = @encoder_decoder or "
            "@decoder_only and such a model, or choose an objective for an Encoder, e.g. MaskedLM"
        )
    return (examples,)


def shift_right(sequences: Ragged, start_tokens: np.ndarray) -> np.ndarray:
    """Each sequence moved one to the right behind its start token; its last token is dropped. Flat, like the values."""
    shifted = np.empty_like(sequences.values)
    shifted[1:] = sequences.values[:-1]
    some = sequences.lengths > 0
    shifted[sequences.starts[some]] = start_tokens[some]
    return shifted
