"""The battery that every objective passes. Add a row for a new one; add a test here, not in its own file."""

import json

import attrs
import jax
import numpy as np
import pytest

from t5x_like.data import ragged, rendering
from t5x_like.data.examples import Context, Side, no_examples
from t5x_like.data.pipeline import describe
from t5x_like.data.ragged import Documents
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.vocabularies.special_tokens import SpecialTokens

MARKERS = ("e1", "/e1", "e2", "/e2", "blank", "entity", "sop", "eop", "smask", "gmask", "fim_prefix", "fim_suffix")
MARKERS += ("fim_middle",)
SPECIAL = SpecialTokens(
    pad=0,
    eos=1,
    unk=2,
    sentinels=tuple(range(999, 899, -1)),
    modes={"R": 890, "S": 891, "X": 892},
    markers={name: 870 + k for k, name in enumerate(MARKERS)},
    cls=893,
    separator=894,
    mask=895,
)
VOCAB_SIZE = 1000


class Words:
    """A vocabulary of one character an id, two thirds of which begin a word."""

    begins_word = np.arange(VOCAB_SIZE) % 3 > 0

    def encode(self, text):
        return [ord(character) - 0x4E00 for character in text]

    def decode(self, ids):
        return "".join(chr(0x4E00 + token) for token in ids)

    encode_inside, decode_inside = encode, decode


FULL_STOPS = tuple(range(10, 300, 7))
PAIR, ALONE = {"inputs": 48, "targets": 48}, {"targets": 64}

# name: (objective, row lengths, does it read pairs, does it draw random numbers)
ROWS = {
    "causal isolated": (OBJECTIVES["CausalLM"](), ALONE, False, False),
    "causal concatenated": (OBJECTIVES["CausalLM"](documents="concatenated"), ALONE, False, False),
    "prefix encoder-decoder": (OBJECTIVES["PrefixLM"](), PAIR, False, True),
    "prefix decoder": (OBJECTIVES["PrefixLM"](noise_density=0.25), ALONE, False, True),
    "spans encoder-decoder": (OBJECTIVES["SpanCorruption"](), PAIR, False, True),
    "spans decoder": (OBJECTIVES["SpanCorruption"](), ALONE, False, True),
    "iid encoder-decoder": (OBJECTIVES["IidDenoising"](), {"inputs": 48, "targets": 64}, False, True),
    "iid decoder": (OBJECTIVES["IidDenoising"](style="drop"), ALONE, False, True),
    "mass encoder-decoder": (OBJECTIVES["IidDenoising"](style="mass"), PAIR, False, True),
    "bert-style decoder": (OBJECTIVES["IidDenoising"](style="bert"), ALONE, False, True),
    "deshuffling encoder-decoder": (OBJECTIVES["Deshuffling"](), PAIR, False, True),
    "deshuffling decoder": (OBJECTIVES["Deshuffling"](), ALONE, False, True),
    "random words encoder-decoder": (OBJECTIVES["RandomReplacement"](), PAIR, False, True),
    "own words decoder": (OBJECTIVES["RandomReplacement"](source="sequence"), ALONE, False, True),
    "bart encoder-decoder": (OBJECTIVES["Bart"](sentence_ends=range(3, 300, 7), rotate=0.5), PAIR, False, True),
    "bart decoder": (OBJECTIVES["Bart"](noise="deletion"), ALONE, False, True),
    "bart masking": (OBJECTIVES["Bart"](noise="masking", permute_sentences=0), PAIR, False, True),
    "bart sentences": (OBJECTIVES["Bart"](noise="none", sentence_ends=[20, 40, 150]), PAIR, False, True),
    "ul2 encoder-decoder": (OBJECTIVES["UL2"](), PAIR, False, True),
    "ul2 decoder": (OBJECTIVES["UL2"](), ALONE, False, True),
    "supervised encoder-decoder": (OBJECTIVES["Supervised"](), PAIR, True, False),
    "supervised decoder": (OBJECTIVES["Supervised"](), ALONE, True, False),
    "bert": (OBJECTIVES["MaskedLM"](), ALONE, False, True),
    "bert static": (OBJECTIVES["MaskedLM"](masks="static", units="words"), ALONE, False, True),
    "bert segments": (OBJECTIVES["MaskedLM"](units="segments"), ALONE, False, True),
    "roberta": (OBJECTIVES["MaskedLM"](budget="roberta", documents="concatenated"), ALONE, False, True),
    "ngram": (OBJECTIVES["MaskedLM"](units="words", ngrams=[6 / 11, 3 / 11, 2 / 11]), ALONE, False, True),
    "spanbert": (OBJECTIVES["SpanBoundary"](), ALONE, False, True),
    "ernie": (OBJECTIVES["EntityMasking"](), ALONE, False, True),
    "macbert": (OBJECTIVES["SimilarWords"](), ALONE, False, True),
    "nsp": (OBJECTIVES["NextSentence"](sentence_ends=FULL_STOPS), ALONE, False, True),
    "sop": (OBJECTIVES["SentenceOrder"](sentence_ends=FULL_STOPS), ALONE, False, True),
    "structbert": (OBJECTIVES["Structural"](sentence_ends=FULL_STOPS), ALONE, False, True),
    "conpono": (
        OBJECTIVES["DocumentCoherence"](sentence_ends=FULL_STOPS, texts_per_example=4),
        ALONE,
        False,
        True,
    ),
    "mtb": (OBJECTIVES["MatchingTheBlanks"](), ALONE, False, True),
    "luke": (OBJECTIVES["EntityPrediction"](num_entities=9, max_entities=16), ALONE, False, True),
    "erica": (OBJECTIVES["RelationContrast"](), ALONE, False, True),
    "erica entities": (
        OBJECTIVES["EntityDiscrimination"](relation_names=("\u5100\u5101", "\u5102"), question_length=6),
        ALONE,
        False,
        True,
    ),
    "unshuffling": (OBJECTIVES["SentenceUnshuffling"](sentence_ends=FULL_STOPS), ALONE, False, True),
    "electra": (OBJECTIVES["ReplacedToken"](), ALONE, False, True),
    "spans rolled": (OBJECTIVES["SpanCorruption"](random_roll=True, closing_sentinel=True), PAIR, False, True),
    "middles": (OBJECTIVES["FillInTheMiddle"](), ALONE, False, True),
    "supervised all": (OBJECTIVES["Supervised"](loss_on="all", cut="random_chunk"), ALONE, True, True),
    "fim in windows": (OBJECTIVES["FillInTheMiddle"](documents="concatenated"), ALONE, False, True),
    "glm": (OBJECTIVES["BlankInfilling"](), ALONE, False, True),
    "glm all": (OBJECTIVES["BlankInfilling"](shares=[1, 1, 1], sentence_ends=FULL_STOPS), ALONE, False, True),
    "unilm": (OBJECTIVES["UniLM"](sentence_ends=FULL_STOPS), ALONE, False, True),
    "tlm": (OBJECTIVES["TranslationLM"](), ALONE, True, True),
    "instruction": (OBJECTIVES["InstructionLM"](loss_on="response", texts_per_example=2), ALONE, False, False),
}
# The targets of these are the whole text; what they were made from is shown beside it once more.
SHOWN_TWICE = (OBJECTIVES["Deshuffling"], OBJECTIVES["RandomReplacement"], OBJECTIVES["Bart"])
# Pairs are cut, as in SeqIO, and statements are the surroundings of their entities.
CUT = {"supervised encoder-decoder", "supervised decoder", "supervised all", "mtb", "tlm", "fim in windows"}
PAIRS = (OBJECTIVES["NextSentence"], OBJECTIVES["SentenceOrder"], OBJECTIVES["Structural"], OBJECTIVES["UniLM"])
# These tell each place what comes next; the others what is hidden where it stands.
NEXT_TOKEN = (OBJECTIVES["BlankInfilling"], OBJECTIVES["InstructionLM"])
every = pytest.mark.parametrize(("objective", "lengths", "pairs", "random"), ROWS.values(), ids=ROWS)


def documents(reads, *, sizes=(1, 2, 30, 200, 7, 65)):
    """Each token once over all documents, so that losing or repeating one shows; and what the features say of them."""
    tokens = np.split(np.arange(3, 3 + sum(sizes)), np.cumsum(sizes)[:-1])
    features = {"targets": ragged.from_list(tokens)}
    others = {
        "inputs": lambda part: part + 400,
        "segments": lambda part: part % 2,
        "responses": lambda part: part // 8 % 2,
        "similar": lambda part: np.where(part % 2, part - 1, 0),
        "relations": lambda part: np.where(part % 5 == 0, 1 + 65536 * (part % 2) + (part // 5 + 6) % 7 + 1, 0),
        "entities": lambda part: np.where(part % 5 < 2, 2 * (part // 5 % 7 + 1) + part % 5, 0),
    }
    features |= {name: ragged.from_list([others[name](part) for part in tokens]) for name in set(reads) & set(others)}
    return Documents(features, np.ones(len(sizes), bool))


def make(objective, lengths, pairs, seed=0):
    context = Context(lengths, SPECIAL, VOCAB_SIZE, Words())
    objective.check(context)
    assert ("inputs" in objective.reads) == pairs
    return objective.examples(np.random.default_rng(seed), documents(objective.reads), context)


def render(examples, lengths):
    if isinstance(examples, Side):
        return rendering.in_place(examples)
    return rendering.encoder_decoder(examples) if "inputs" in lengths else rendering.decoder_only(examples)


@every
def test_rows_hold_what_it_makes(objective, lengths, pairs, random):
    sides = render(make(objective, lengths, pairs), lengths)
    for side, name in zip(sides, sorted(lengths), strict=True):
        assert side.lengths.max() <= lengths[name]
        assert side.tokens.min() >= 0


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if name not in CUT])
def test_no_token_is_lost_or_seen_twice(name):
    examples = make(*ROWS[name][:3])
    if isinstance(ROWS[name][0], PAIRS):  # texts of other documents come twice, and a pair is cut to fit
        assert len({t for t in examples.targets.tolist() if 3 <= t < 870}) > 250
        return
    if isinstance(ROWS[name][0], OBJECTIVES["EntityDiscrimination"]):  # a question repeats a name of its text
        assert {t for t in examples.targets.tolist() if 3 <= t < 700} == set(range(3, 308))
        return
    if isinstance(examples, Side):  # everything is read, and known where it is hidden
        assert sorted(t for t in examples.targets.tolist() if 3 <= t < 870) == list(range(3, 308))
        return
    sides = [examples.targets.values, examples.start_tokens] + ([examples.inputs.values] if examples.inputs else [])
    objective = ROWS[name][0]
    if isinstance(objective, SHOWN_TWICE) or getattr(objective, "style", "") in ("mass", "bert"):
        sides = sides[:1]
    tokens = [token for side in sides for token in side.tolist() if 3 <= token < 870]
    if examples.inputs is None:  # a start token that is a text token stands once more, as the token before a cut
        predicted = examples.targets.values[(examples.targets.values >= 3) & (examples.targets.values < 870)]
        assert len(predicted) == len(set(predicted.tolist()))
        tokens = set(tokens)
    assert sorted(tokens) == list(range(3, 308))


@every
def test_the_same_seed_makes_the_same_examples(objective, lengths, pairs, random):
    first, again, other = (make(objective, lengths, pairs, seed) for seed in (0, 0, 1))
    assert everything(first) == everything(again)
    assert (everything(first) == everything(other)) is not random


def everything(examples):
    columns = examples._replace(aux=dict(examples.aux)) if isinstance(examples, Side) else examples
    return [array.tolist() for array in jax.tree.leaves(columns)]


IN_PLACE = [name for name, row in ROWS.items() if isinstance(make(*row[:3]), Side)]


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_is_predicted_is_not_read_but_for_the_tokens_kept_on_purpose(name):
    """Hidden tokens stand for what was drawn: what is read in their places says nothing of what they were."""
    side = make(*ROWS[name][:3])
    predicted = side.loss_weights > 0
    if isinstance(ROWS[name][0], NEXT_TOKEN):  # a place sees itself, and never the place behind that it is told of
        assert (np.diff(side.attn_order)[predicted[1:] & predicted[:-1]] != 0).all()
        return
    assert (side.tokens == side.targets)[~predicted].all()
    assert (side.tokens != side.targets)[predicted].mean() > 0.6
    assert 0 < predicted.mean() < 0.35
    if name != "unilm":
        assert (side.attn_order == 0).all()
    special = [SPECIAL.cls, SPECIAL.mask, *SPECIAL.markers.values()] + [SPECIAL.separator] * (name != "unilm")
    assert not np.isin(side.targets[predicted], special).any()


@pytest.mark.parametrize("name", IN_PLACE)
def test_examples_in_another_order_are_the_same_examples(name):
    side = make(*ROWS[name][:3])
    order = np.random.default_rng(0).permutation(side.num_examples)
    moved = side.take(order)
    back = moved.take(np.argsort(order))
    assert everything(back) == everything(side)
    one = side.cut(int(order[0]), int(order[0]) + 1)
    assert everything(moved.cut(0, 1)) == everything(one)
    assert set(side.aux) == set(no_examples(ROWS[name][0], Context(ALONE, SPECIAL, VOCAB_SIZE, Words())).aux)


@every
def test_of_no_documents_it_makes_nothing(objective, lengths, pairs, random):
    made = no_examples(objective, Context(lengths, SPECIAL, VOCAB_SIZE, Words()))
    assert made.num_examples == 0
    assert [side.num_examples for side in render(made, lengths)] == [0] * len(lengths)


@every
def test_it_is_data(objective, lengths, pairs, random):
    spec = json.loads(json.dumps(describe(objective)))
    assert OBJECTIVES[spec["name"]](**spec["fields"]) == objective
    assert attrs.has(type(objective)) and objective == attrs.evolve(objective)


def test_every_objective_has_a_row():
    assert {type(row[0]) for row in ROWS.values()} == set(OBJECTIVES.values())


def test_only_whole_documents_end_with_eos():
    docs = Documents({"targets": ragged.from_list([[5, 6], [7, 8]])}, np.array([False, True]))
    examples = OBJECTIVES["CausalLM"]().examples(np.random.default_rng(0), docs, Context(ALONE, SPECIAL, VOCAB_SIZE))
    assert examples.targets.values.tolist() == [5, 6, 7, 8, 1]


def test_a_document_longer_than_a_row_goes_on_behind_its_own_last_token():
    docs = Documents({"targets": ragged.from_list([[5, 6, 7], [8]])}, np.array([True, True]))
    examples = OBJECTIVES["CausalLM"]().examples(
        np.random.default_rng(0), docs, Context({"targets": 2}, SPECIAL, VOCAB_SIZE)
    )
    assert examples.start_tokens.tolist() == [0, 6, 0]
    assert [part.tolist() for part in ragged.to_list(examples.targets)] == [[5, 6], [7, 1], [8, 1]]


def test_an_encoder_needs_inputs():
    examples = make(OBJECTIVES["CausalLM"](), ALONE, pairs=False)
    with pytest.raises(ValueError, match="train a Decoder on it"):
        rendering.encoder_decoder(examples)


@pytest.mark.parametrize("name", ["bert", "ngram", "spanbert", "ernie"])
def test_hidden_tokens_leave_no_trace_in_what_is_read(name):
    """Other tokens in their places, the same random numbers: the row that is read is the same."""
    objective = attrs.evolve(ROWS[name][0], masked=0.9, random=0.1)
    context = Context(ALONE, SPECIAL, VOCAB_SIZE, Words())
    text = documents(objective.reads)
    side = objective.examples(np.random.default_rng(0), text, context)
    shift = 3 * (side.loss_weights > 0)  # by three, so that words begin where they did
    tokens = (side.targets + shift)[(side.targets >= 3) & (side.targets < 870)].astype(np.int32)
    changed = text.features | {"targets": text.features["targets"]._replace(values=tokens)}
    other = objective.examples(np.random.default_rng(0), text._replace(features=changed), context)
    assert shift.any() and (other.targets != side.targets).any()
    assert (other.tokens == side.tokens).all() and (other.loss_weights == side.loss_weights).all()
