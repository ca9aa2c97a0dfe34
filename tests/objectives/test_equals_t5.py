"""T5's own preprocessors and SeqIO's converters: the same on the same masks, and in how often they hide what."""

import json
import pathlib

import numpy as np
import pytest

from t5x_like.data import masking, ragged, rendering, replacing
from t5x_like.data.examples import Context, Examples
from t5x_like.data.packing import offsets_in_rows
from t5x_like.data.ragged import Ragged
from t5x_like.data.rows import lay_out, to_features
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.vocabularies.special_tokens import SpecialTokens

GOLDEN = json.loads(pathlib.Path("tests/golden/t5_preprocessors.json").read_text())
SENTINELS = np.arange(99, 79, -1)
OURS = {
    "noise_span_to_unique_sentinel": lambda tokens, mask: masking.spans_to_sentinels(tokens, mask, SENTINELS),
    "nonnoise_span_to_unique_sentinel": lambda tokens, mask: masking.spans_to_sentinels(tokens, ~mask, SENTINELS),
    "noise_token_to_sentinel": lambda tokens, mask: replacing.each_by(tokens, mask, 99),
    "noise_span_to_sentinel": lambda tokens, mask: masking.spans_to_sentinels(tokens, mask, np.full(20, 99)),
    "drop_noise_tokens": lambda tokens, mask: replacing.dropped(tokens, mask),
    "drop_nonnoise_tokens": lambda tokens, mask: replacing.dropped(tokens, ~mask),
}


@pytest.mark.parametrize("name", OURS)
def test_what_becomes_of_noise_is_the_same_on_the_same_masks(name):
    cases = GOLDEN["on_masks"]
    tokens = ragged.from_list([range(1, len(case["mask"]) + 1) for case in cases])
    mask = np.array([bit == "1" for case in cases for bit in case["mask"]])
    assert [ids.tolist() for ids in ragged.to_list(OURS[name](tokens, mask))] == [case[name] for case in cases]


def test_the_golden_text_is_corrupted_to_the_same_sides():
    golden = GOLDEN["seeds_1_2_3_4"]
    special = SpecialTokens(pad=0, eos=50, sentinels=tuple(SENTINELS.tolist()))
    text, mask = Ragged(np.arange(1, 21, dtype=np.int32), np.array([20])), np.array(golden["mask"]) == 1
    made = SpanCorruption().examples_of(text, mask, Context({"inputs": 20, "targets": 20}, special, 100))
    assert made.inputs.values.tolist() == [*golden["inputs"], 50]
    assert made.targets.values.tolist() == [*golden["targets"], 50]


def test_texts_of_every_length_have_as_many_noise_tokens_and_spans():
    for length, density, mean, num_noise, num_spans in GOLDEN["counts"]:
        assert masking.noise_counts(length, density, mean) == (num_noise, num_spans)
        mask = masking.random_spans(np.random.default_rng(0), np.array([length]), density=density, mean_span=mean)
        assert mask.sum() == num_noise and masking.starts_of_spans(np.array([length]), mask).sum() == num_spans


def test_rows_of_inputs_come_from_texts_of_the_same_length():
    """In rows as long as random_spans_helper tells: with half of the tokens hidden 512 targets for 512 inputs."""
    for inputs, density, mean, num_tokens, num_targets in GOLDEN["row_lengths"]:
        objective = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
        assert objective.num_tokens({"inputs": inputs, "targets": num_targets}) == num_tokens
        assert objective.num_inputs_and_targets(num_tokens)[1] == num_targets


@pytest.mark.parametrize("kind", ["plain", "rolled"])
def test_every_place_is_hidden_as_often(kind):
    """Their 4,000 draws and 20,000 of ours: no place apart by 4.5 standard errors (0.034 where half is hidden)."""
    often, draws = GOLDEN["how_often"], 20_000
    lengths, rng = np.full(draws, often["length"]), np.random.default_rng(0)
    mask = masking.random_spans(rng, lengths, density=often["density"], mean_span=often["mean"])
    if kind == "rolled":
        mask = masking.random_roll(rng, lengths, mask)
    share, theirs = mask.reshape(draws, -1).mean(axis=0), np.array(often[kind])
    error = np.sqrt(theirs * (1 - theirs) * (1 / often["draws"] + 1 / draws))
    assert (np.abs(share - theirs) <= 4.5 * error + 1e-12).all()
    if kind == "plain":
        starts = masking.starts_of_spans(lengths, mask)
        sizes = np.bincount(np.bincount(np.cumsum(starts)[mask] - 1), minlength=len(often["span_lengths"]))
        assert_same_shares(sizes, np.array(often["span_lengths"]))


def test_prefixes_are_as_long():
    """The same lengths, with the same shares."""
    theirs = np.array(GOLDEN["how_often"]["prefixes"])
    ours = np.bincount(masking.random_prefix(np.random.default_rng(0), np.full(20_000, 30), density=0.25), minlength=30)
    assert np.flatnonzero(theirs).tolist() == np.flatnonzero(ours).tolist()
    assert_same_shares(ours, theirs)


def assert_same_shares(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Two histograms of one distribution: chi squared under the value that one pair in 10,000 exceeds."""
    some = ours + theirs >= 20
    a, b = (np.append(counts[some], counts[~some].sum()).astype(float) for counts in (ours, theirs))
    a, b = a[a + b > 0], b[a + b > 0]
    statistic = ((np.sqrt(b.sum() / a.sum()) * a - np.sqrt(a.sum() / b.sum()) * b) ** 2 / (a + b)).sum()
    freedom = len(a) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + 3.719 * np.sqrt(2 / (9 * freedom))) ** 3  # Wilson and Hilferty
    assert statistic < limit, (statistic, limit)


@pytest.mark.parametrize("name", ["PrefixLMFeatureConverter", "EncDecFeatureConverter"])
def test_two_pairs_are_packed_into_the_row_of_seqio(name):
    golden = GOLDEN["converted"][name]
    pairs, row = golden["pairs"], golden["row"]
    made = Examples(
        ragged.from_list([pair["inputs"] for pair in pairs]),
        ragged.from_list([pair["targets"] for pair in pairs]),
        np.zeros(2, np.int32),
    )
    is_prefix = name == "PrefixLMFeatureConverter"
    sides = (rendering.decoder_only if is_prefix else rendering.encoder_decoder)(made)
    lengths = [sum(golden["lengths"].values())] if is_prefix else [*golden["lengths"].values()]
    assert golden["num_rows"] == 1 and offsets_in_rows(np.zeros(2, np.int64), sides[0].lengths)[0][0] == 0
    found = to_features(*lay_out(sides, np.zeros(2, np.int64), 1, lengths))
    theirs = {key.removeprefix("decoder_"): np.array(value) for key, value in row.items() if "encoder" not in key[:7]}
    assert (found.tokens[0] == theirs["input_tokens"]).all() and (found.targets[0] == theirs["target_tokens"]).all()
    assert (found.loss_weights[0] == theirs["loss_weights"]).all()
    assert (found.segment_ids[0] == theirs["segment_ids"]).all()
    assert (found.positions[0, :, 0] == theirs["positions"]).all()
    if is_prefix:
        is_text = found.segment_ids[0] > 0
        assert ((found.attn_order[0] == 0) & is_text == (theirs["causal_attention"] == 1)).all()
    else:
        for key, array in (("input_tokens", "tokens"), ("segment_ids", "segment_ids")):
            assert (getattr(found.encoder, array)[0] == np.array(row[f"encoder_{key}"])).all()
        assert (found.encoder.positions[0, :, 0] == np.array(row["encoder_positions"])).all()
