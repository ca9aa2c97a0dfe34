import numpy as np
import pytest

from t5x_like.data import ragged
from t5x_like.data.examples import Context
from t5x_like.data.ragged import Documents
from t5x_like.objectives.span_corruption import SpanCorruption
from t5x_like.vocabularies.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(pad=0, eos=1, unk=2, sentinels=tuple(range(999, 799, -1)))


def corrupt(objective, lengths, *documents, seed=0):
    docs = Documents({"targets": ragged.from_list(documents)}, np.ones(len(documents), bool))
    return objective.examples(np.random.default_rng(seed), docs, Context(lengths, SPECIAL, 1000))


def restore(inputs, targets):
    """Puts each span of `targets` back in the place of its sentinel in `inputs`."""
    spans, tokens = {}, []
    for token in targets[:-1].tolist():
        if token in SPECIAL.sentinels:
            spans[token] = span = []
        else:
            span.append(token)
    for token in inputs[:-1].tolist():
        tokens += spans.pop(token) if token in spans else [token]
    assert not any(spans.values())  # a text of one token has a sentinel in its targets, and no span
    return tokens


@pytest.mark.parametrize(
    ("density", "mean", "num_tokens", "num_targets"),
    [(0.15, 3, 568, 114), (0.15, 8, 588, 100), (0.5, 3, 766, 512), (0.5, 8, 908, 512), (0.15, 64, 600, 92)],
)
def test_rows_of_512_inputs_have_the_lengths_of_t5(density, mean, num_tokens, num_targets):
    objective = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
    lengths = {"inputs": 512, "targets": 512}
    assert objective.num_tokens(lengths) == num_tokens
    examples = corrupt(objective, lengths, np.arange(3, 3 + num_tokens) % 700 + 3)
    assert examples.inputs.lengths.tolist() == [
        512 if density == 0.15 else objective.num_inputs_and_targets(num_tokens)[0]
    ]
    assert examples.targets.lengths.tolist() == [num_targets]


@pytest.mark.parametrize("lengths", [{"inputs": 32, "targets": 16}, {"targets": 40}])
@pytest.mark.parametrize("size", [1, 2, 3, 40, 333])
def test_inputs_and_targets_hold_every_token_once(lengths, size):
    document = np.random.default_rng(size).integers(3, 700, size)
    for seed in range(5):
        examples = corrupt(SpanCorruption(), lengths, document[: size // 2], document[size // 2 :], seed=seed)
        pairs = zip(ragged.to_list(examples.inputs), ragged.to_list(examples.targets), strict=True)
        tokens = []
        for inputs, targets in pairs:
            assert inputs[-1] == targets[-1] == SPECIAL.eos
            if "inputs" in lengths:
                assert len(inputs) <= 32 and len(targets) <= 16
            else:
                assert len(inputs) + len(targets) <= 40
            tokens += restore(inputs, targets)
        assert tokens == document.tolist()


def test_sentinels_descend_and_no_final_one_is_written():
    examples = corrupt(SpanCorruption(), {"inputs": 512, "targets": 114}, np.arange(3, 571))
    inputs, targets = examples.inputs.values, examples.targets.values
    used = [token for token in inputs.tolist() if token in SPECIAL.sentinels]
    assert used == [token for token in targets.tolist() if token in SPECIAL.sentinels] == list(range(999, 971, -1))
    assert targets[0] == 999 and inputs[-2] == 972  # the text ends in noise, so its sentinel is the last input


def test_too_many_spans_for_the_sentinels_is_an_error():
    few = SpecialTokens(pad=0, eos=1, sentinels=tuple(range(99, 89, -1)))
    with pytest.raises(ValueError, match="28 spans, but the vocabulary has 10 sentinels"):
        SpanCorruption().check(Context({"inputs": 512, "targets": 114}, few, 1000))


@pytest.mark.parametrize("fields", [{"noise_density": 1.5}, {"noise_density": 0.0}, {"mean_noise_span_length": 0.5}])
def test_impossible_settings_are_refused(fields):
    with pytest.raises(ValueError, match="noise_density must be between 0 and 1"):
        SpanCorruption(**fields)


def test_the_figure_of_the_paper_ends_with_the_next_sentinel():
    lengths = {"inputs": 512, "targets": 115}
    plain = corrupt(SpanCorruption(), lengths, np.arange(3, 571))
    closed = corrupt(SpanCorruption(closing_sentinel=True), lengths, np.arange(3, 571))
    assert closed.inputs.values.tolist() == plain.inputs.values.tolist()
    assert closed.targets.values.tolist() == [*plain.targets.values[:-1].tolist(), 971, SPECIAL.eos]


def test_rolled_noise_is_the_same_noise_at_any_place():
    """A token is noise with the same probability wherever it stands: 4,000 texts, 0.3 within 4 standard errors."""
    rolled = SpanCorruption(noise_density=0.3, random_roll=True)
    lengths = np.full(4000, 20)
    mask = rolled.noise(np.random.default_rng(0), lengths).reshape(4000, 20)
    assert (mask.sum(axis=1) == 6).all()
    assert np.abs(mask.mean(axis=0) - 0.3).max() < 4 * np.sqrt(0.21 / 4000)
    plain = SpanCorruption(noise_density=0.3).noise(np.random.default_rng(0), lengths).reshape(4000, 20)
    assert not plain[:, 0].any() and plain[:, -1].all()


@pytest.mark.parametrize("size", [1, 2, 40, 333])
def test_rolled_texts_fit_their_rows_and_lose_nothing(size):
    document = np.random.default_rng(size).permutation(np.arange(3, 3 + size))
    for seed in range(5):
        objective = SpanCorruption(random_roll=True, closing_sentinel=True)
        examples = corrupt(objective, {"inputs": 32, "targets": 17}, document, seed=seed)
        assert examples.inputs.lengths.max() <= 32 and examples.targets.lengths.max() <= 17
        tokens = np.concatenate([examples.inputs.values, examples.targets.values])
        assert sorted(tokens[(tokens >= 3) & (tokens < 800)].tolist()) == sorted(document.tolist())
