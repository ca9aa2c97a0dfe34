"""The device half of every method with more than cross-entropy: what the numbers are, and that gradients are finite."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5x_like import losses
from t5x_like.data import packing
from t5x_like.data.rows import lay_out, to_features
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.encoder import Encoder
from t5x_like.models.entity_entry import EntityEntry
from t5x_like.models.entry import Entry
from t5x_like.models.generator_discriminator import GeneratorDiscriminator
from t5x_like.models.initializers import normal_init
from t5x_like.models.layers import sizes_of
from t5x_like.models.parameters import merge, split
from t5x_like.models.positions import BlockPositions
from t5x_like.models.stack import Hidden
from t5x_like.models.task_heads import (
    BilinearHead,
    EntityHead,
    MultiTokenHeads,
    PairHead,
    RelationHead,
    SpanBoundaryHead,
)
from t5x_like.objectives import (
    contrastive,
    document_coherence,
    entity_discrimination,
    entity_prediction,
    matching_the_blanks,
    multi_token,
    relation_contrast,
    sigmoid_contrastive,
    span_boundary,
    terms,
)
from t5x_like.objectives.replaced_token import ReplacedTokenLoss, replace
from t5x_like.objectives.terms import SumOfTerms
from tests.golden.released_code import RELEASED
from tests.test_all_objectives import ROWS, VOCAB_SIZE, make, render

TINY = {"vocab_size": VOCAB_SIZE, "num_layers": 1, "d_model": 16, "num_heads": 2, "d_ff": 16}


def with_head(name, head, part, **weights):
    loss = SumOfTerms({"loss": terms.predict_tokens, name: part}, weights)
    return functools.partial(Encoder, **TINY, task_heads={name: head}), loss


pairs = functools.partial(PairHead, num_classes=3)
glm_positions = functools.partial(BlockPositions, max_length=64, max_block_length=64)
two_ahead = functools.partial(MultiTokenHeads, num_extra=2, layer=Block)
METHODS = {
    "bert": (functools.partial(Encoder, **TINY), losses.CrossEntropy()),
    "nsp": with_head("pair", pairs, terms.classify_pairs),
    "sop": with_head("pair", pairs, terms.classify_pairs),
    "unshuffling": with_head("pair", functools.partial(PairHead, num_classes=8), terms.classify_pairs),
    "structbert": with_head("pair", pairs, terms.classify_pairs),
    "spanbert": with_head(
        "span", functools.partial(SpanBoundaryHead, vocab_size=VOCAB_SIZE), span_boundary.predict_from_boundary
    ),
    "conpono": with_head(
        "distance", functools.partial(BilinearHead, num_relations=4), document_coherence.find_neighbours
    ),
    "mtb": (
        functools.partial(Encoder, **TINY, task_heads={"relation": functools.partial(RelationHead, width=8)}),
        SumOfTerms(
            {
                "loss": terms.predict_tokens,
                "match": matching_the_blanks.match_relations,
                "apart": matching_the_blanks.tell_relations_apart,
            }
        ),
    ),
    "luke": (
        functools.partial(
            Encoder,
            **TINY,
            entry=functools.partial(EntityEntry, num_entities=9, width=8),
            task_heads={"entity": functools.partial(EntityHead, num_entities=9, width=8)},
        ),
        SumOfTerms({"loss": terms.predict_tokens, "entity": entity_prediction.predict_entities}),
    ),
    "erica": (
        functools.partial(Encoder, **TINY),
        SumOfTerms({"loss": terms.predict_tokens, "relation": relation_contrast.contrast_relations}),
    ),
    "erica entities": (
        functools.partial(Encoder, **TINY),
        SumOfTerms({"loss": terms.predict_tokens, "entity": entity_discrimination.find_tails}),
    ),
    "electra": (
        functools.partial(
            GeneratorDiscriminator,
            vocab_size=VOCAB_SIZE,
            width=16,
            generator=functools.partial(Encoder, num_layers=1, d_model=8, num_heads=2, d_ff=16),
            discriminator=functools.partial(Encoder, num_layers=1, d_model=16, num_heads=2, d_ff=16),
        ),
        ReplacedTokenLoss(),
    ),
    "unilm": (
        functools.partial(Encoder, **TINY, task_heads={"pair": pairs}, entry=functools.partial(Entry, num_types=6)),
        SumOfTerms({"loss": terms.predict_tokens, "pair": terms.classify_pairs}),
    ),
    "tlm": (
        functools.partial(Encoder, **TINY, entry=functools.partial(Entry, num_types=2)),
        losses.CrossEntropy(),
    ),
    "glm": (
        functools.partial(Decoder, **TINY, layers=Block, entry=functools.partial(Entry, positions=glm_positions)),
        losses.CrossEntropy(),
    ),
    "causal isolated": (
        functools.partial(Decoder, **TINY, task_heads={"ahead": two_ahead}),
        SumOfTerms({"loss": terms.predict_tokens, "ahead": multi_token.predict_ahead}),
    ),
}
every = pytest.mark.parametrize("name", METHODS)


@functools.cache
def model_of(name):
    graphdef, params, _ = split(METHODS[name][0](rngs=nnx.Rngs(params=jax.random.key(0))))
    return graphdef, params


@functools.cache
def batch_of(name, length=64):
    (side,) = render(make(*ROWS[name][:3]), ROWS[name][1])
    rows = packing.plan_rows(side.lengths[:, None], np.array([length]))
    return to_features(*lay_out([side], rows, int(rows.max()) + 1, [length]))


@functools.cache
def gradients(name, batch_name=None):
    graphdef, params = model_of(name)
    loss = METHODS[name][1]

    def total(params):
        found = loss(merge(graphdef, params), batch_of(batch_name or name), jax.random.key(1))
        return sum(term.sum / term.weight for term in found.values()), found

    (value, found), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    return value, found, grads


@every
def test_gradients_are_finite_and_reach_every_parameter_that_is_used(name):
    value, found, grads = gradients(name)
    assert np.isfinite(value) and all(term.weight > 0 for term in found.values())
    assert all(np.isfinite(grad).all() for grad in grads.values())
    still = [path for path, grad in grads.items() if not np.abs(grad).max() > 0]
    assert all("key_bias" in path or "/types" in path for path in still), still


@every
def test_what_is_measured_is_what_is_minimised(name):
    """Without weights and dropout, the held-out loss of every part is its training loss."""
    graphdef, params = model_of(name)
    measure = jax.jit(lambda p, x: METHODS[name][1].measure(merge(graphdef, p), x))
    measured = measure(params, batch_of(name))
    _, found, _ = gradients(name)
    assert (
        np.isclose(measured["loss"].sum, found["loss"].sum, rtol=1e-4)
        and measured["loss"].weight == found["loss"].weight
    )
    assert all(0 <= measured[key].sum <= measured[key].weight + 1e-6 for key in measured if "loss" not in key)
    if name != "electra":  # its generator draws by the place in the batch
        moved = measure(params, jax.tree.map(lambda array: array[::-1], batch_of(name)))
        for key, (total, weight) in measured.items():
            np.testing.assert_allclose(moved[key].sum, total, rtol=1e-4, atol=1e-5, err_msg="rows in another order")
            assert moved[key].weight == weight


def test_a_sum_of_terms_is_the_sum_of_weighted_means_and_a_weight_of_0_leaves_a_part_out():
    def part(total, weight):
        return lambda model, x_BLD, batch: {"loss": Term(jnp.float32(total), jnp.float32(weight))}

    class Model:
        def hidden(self, batch, *, dropout_key=None):
            return None, {}

    loss = SumOfTerms({"loss": part(6.0, 4.0), "pair": part(10.0, 5.0)}, {"pair": 3.0})
    found = loss(Model(), None, None)
    assert float(sum(t.sum / t.weight for t in found.values())) == 6 / 4 + 3.0 * 10 / 5
    assert SumOfTerms({"loss": part(1, 1), "pair": part(1, 1)}, {"pair": 0.0})(Model(), None, None).keys() == {"loss"}
    for bad, says in [
        ({"parts": {"pair": part(1, 1)}}, "name one of them 'loss'"),
        ({"parts": {"loss": part(1, 1)}, "weights": {"pari": 1.0}}, "weights of"),
    ]:
        with pytest.raises(ValueError, match=says):
            SumOfTerms(**bad)


def test_a_missing_head_or_label_is_said_with_its_remedy():
    graphdef, params = model_of("bert")
    with pytest.raises(ValueError, match=r"set Encoder.task_heads = \{'pair': @PairHead\}"):
        terms.head_of(merge(graphdef, params), "pair", "PairHead")
    with pytest.raises(ValueError, match="choose the objective that this loss belongs to"):
        terms.aux_of(batch_of("bert"), "pair")


@pytest.mark.parametrize("name", ["nsp", "spanbert", "conpono", "luke"])
def test_packing_changes_no_loss(name):
    """Labels and the places that they speak of go with their tokens: one example a row gives the same sums."""
    graphdef, params = model_of(name)
    side = make(*ROWS[name][:3])
    apart = to_features(*lay_out([side], np.arange(side.num_examples), side.num_examples, [64]))
    measure = jax.jit(lambda p, x: METHODS[name][1].measure(merge(graphdef, p), x))
    one, other = measure(params, apart), measure(params, batch_of(name))
    for key in one:
        np.testing.assert_allclose(one[key].sum, other[key].sum, rtol=2e-4, atol=1e-3)
        assert one[key].weight == other[key].weight


def test_a_text_of_conpono_is_encoded_by_itself():
    graphdef, params = model_of("conpono")
    side = make(*ROWS["conpono"][:3])
    example = int(np.argmax(side.lengths))
    x = to_features(*lay_out([side.cut(example, example + 1)], np.zeros(1, int), 1, [64]))
    hidden = jax.jit(lambda x: merge(graphdef, params).hidden(x).x_BLD)
    before = hidden(x)
    second = x.segment_ids[0] == 2
    assert second.any() and (x.segment_ids[0] == 1).any()
    after = hidden(x._replace(tokens=np.where(second, 7, x.tokens)))
    first = x.segment_ids[0] == 1
    assert (before[0][first] == after[0][first]).all() and (before[0][second] != after[0][second]).any()


def electra_batch():
    return jax.tree.map(jnp.asarray, batch_of("electra"))


def test_a_generator_that_tells_the_truth_leaves_nothing_to_find():
    x = electra_batch()
    certain = 1e9 * jax.nn.one_hot(x.targets, VOCAB_SIZE)
    fake, is_fake = replace(certain, x, jax.random.key(0))
    assert is_fake.sum() == 0 and (fake.tokens == x.targets).all()


def test_a_uniform_generator_replaces_nearly_every_drawn_token():
    x = electra_batch()
    _, is_fake = replace(jnp.zeros((*x.tokens.shape, VOCAB_SIZE)), x, jax.random.key(0))
    drawn = (x.loss_weights > 0).sum()
    assert is_fake.sum() > 0.95 * drawn and is_fake.sum() <= drawn


def test_the_discriminator_teaches_the_generator_nothing_but_the_embedding():
    graphdef, params = model_of("electra")

    def judged(params):
        return ReplacedTokenLoss()(merge(graphdef, params), electra_batch(), jax.random.key(0))["replaced"].sum

    grads = jax.jit(jax.grad(judged))(params)
    own = [path for path in grads if path.startswith("generator/")]
    assert own and all((np.asarray(grads[path]) == 0).all() for path in own)
    assert np.abs(grads["discriminator/encoder/embedding/table"]).max() > 0


def test_contrasts_in_float64():
    rng = np.random.default_rng(0)
    logits, real = 5 * rng.standard_normal((6, 6)), jnp.array([1.0, 1, 1, 1, 0, 0])
    own = logits[:4, :4]
    rows = np.log(np.exp(own).sum(1)) - np.diag(own)
    columns = np.log(np.exp(own).sum(0)) - np.diag(own)
    found = contrastive.softmax_contrast(jnp.asarray(logits, jnp.float32), real)
    np.testing.assert_allclose(found.sum / found.weight, (rows.mean() + columns.mean()) / 2, rtol=1e-6)
    signs = 2 * np.eye(4) - 1
    found = sigmoid_contrastive.sigmoid_contrast(jnp.asarray(logits, jnp.float32), real)
    np.testing.assert_allclose(found.sum / found.weight, np.log1p(np.exp(-signs * own)).sum() / 4, rtol=1e-6)
    order = rng.permutation(6)
    moved = contrastive.softmax_contrast(jnp.asarray(logits[order][:, order], jnp.float32), real[order])
    np.testing.assert_allclose(
        moved.sum, contrastive.softmax_contrast(jnp.asarray(logits, jnp.float32), real).sum, rtol=1e-6
    )


class Relates:
    """A model whose relation of each statement is what was given, for one row."""

    def __init__(self, r):
        self.task_heads = {"relation": lambda x_BLD, heads_BS, tails_BS: jnp.asarray(r, jnp.float32)[heads_BS]}


def statements_of(pair):
    return batch_of("bert")._replace(aux={"relation": pair[None], "relation_tail": 0 * pair[None]})


def test_pairs_of_statements_in_float64():
    r = np.random.default_rng(0).standard_normal((5, 3))
    pair = np.array([7, 7, 9, 0, 7])  # the fourth is no statement
    batch, x, model = statements_of(pair), jnp.zeros((1, 5, 2)), Relates(r)
    order = np.array([0, 1, 2, 4])
    logits, labels = (r @ r.T)[order][:, order], pair[order]
    same = (labels[:, None] == labels[None]) & ~np.eye(4, dtype=bool)
    match = matching_the_blanks.match_relations(model, x, batch)["loss"]
    apart = matching_the_blanks.tell_relations_apart(model, x, batch)["loss"]
    np.testing.assert_allclose(match.sum, np.log1p(np.exp(-logits))[same].sum(), rtol=1e-5)
    np.testing.assert_allclose(apart.sum, np.log1p(np.exp(logits))[~same & ~np.eye(4, dtype=bool)].sum(), rtol=1e-5)
    assert match.weight == same.sum() == 6 and apart.weight == 6


def test_the_softmax_form_of_matching_is_that_of_released_code():
    given, found = RELEASED["MTB"]["inputs"], RELEASED["MTB"]["found"]
    batch, x = statements_of(np.array(given["pair"])), jnp.zeros((1, 10, 2))
    terms = matching_the_blanks.contrast_matches(Relates(given["encodings"]), x, batch, per_row=10)
    np.testing.assert_allclose(terms["loss"].sum, found["loss"], rtol=1e-6)
    np.testing.assert_allclose(terms["accuracy"].sum, found["acc"], rtol=1e-6)
    assert terms["loss"].weight == terms["accuracy"].weight == found["denominator"]
    alone = matching_the_blanks.contrast_matches(Relates(given["encodings"]), x, statements_of(np.full(10, 3)))
    assert float(alone["loss"].sum) == float(alone["loss"].weight) == 0  # nothing to tell them from
    for some in (batch, statements_of(np.full(10, 3)), statements_of(np.zeros(10, int))):
        slope = jax.grad(lambda r, b=some: matching_the_blanks.contrast_matches(Relates(r), x, b)["loss"].sum)
        assert np.isfinite(slope(jnp.asarray(given["encodings"]))).all()


def test_texts_at_each_distance_in_float64():
    """Three texts of one document and two of another in two rows: the text d behind each is told from all others."""
    rng = np.random.default_rng(0)
    x, matrices = rng.standard_normal((2, 6, 3)), rng.standard_normal((4, 3, 3))
    place = np.array([[1, 0, 2, 0, 3, 0], [1, 0, 0, 2, 0, 0]])
    back = np.array([[0, 0, 2, 0, 4, 0], [0, 0, 0, 3, 0, 0]])
    texts = [(row, spot) for row in range(2) for spot in range(6) if place[row, spot]]
    terms, hits = [], 0
    for matrix, distance in zip(matrices, (-2, -1, 1, 2), strict=True):
        for i, (row, spot) in enumerate(texts):
            others = [j for j in range(len(texts)) if j != i]
            logits = np.array([x[row, spot] @ matrix @ x[texts[j]] for j in others])
            for at, j in enumerate(others):
                if texts[j][0] == row and place[texts[j]] == place[row, spot] + distance:
                    terms.append(np.log(np.exp(logits).sum()) - logits[at])
                    hits += logits.argmax() == at

    class Model:
        task_heads: ClassVar = {
            "distance": lambda a, c: jnp.einsum("AD,KDE,CE->KAC", a, jnp.asarray(matrices, jnp.float32), c)
        }

    batch = batch_of("bert")._replace(aux={"text_place": place, "text_back": back})
    found = document_coherence.find_neighbours(Model(), jnp.asarray(x, jnp.float32), batch)
    assert found["loss"].weight == len(terms) == 2 + 4 + 2 and float(found["recall"].sum) == hits
    np.testing.assert_allclose(found["loss"].sum, sum(terms), rtol=1e-5)


def test_the_place_of_an_entity_is_the_mean_over_its_mention():
    entry = EntityEntry(
        sizes_of(d_model=8, num_heads=2, num_kv_heads=None, head_dim=None, d_ff=8, dtype="float32"),
        num_entities=3,
        width=4,
        norm=lambda D: lambda x: x,
        init=normal_init(num_layers=1, head_dim=4),
        rngs=nnx.Rngs(params=jax.random.key(0)),
    )
    aux = {"entity": jnp.array([[0, 0, 2]]), "entity_length": jnp.array([[0, 0, 2]])}
    x = batch_of("bert")._replace(positions=jnp.array([[[0], [1], [0]]]), type_ids=None, aux=aux)
    found = entry(jnp.zeros((1, 3, 8)), x)[0]
    places = entry.positions.table[...][:2]
    own = entry.entities[...][2] @ entry.widen[...]
    np.testing.assert_allclose(found[:2], places + entry.types[...][:1], atol=1e-6)
    np.testing.assert_allclose(found[2], places.mean(axis=0) + own + entry.types[...][0], atol=1e-6)


def test_heads_ahead_predict_the_tokens_behind_the_next_one_within_their_text():
    """Heads that answer with what they are asked for are right everywhere, and no text reaches into the next."""
    targets = jnp.array([[5, 6, 7, 8, 9, 5, 6, 0]])
    batch = Features(
        tokens=jnp.zeros((1, 8), jnp.int32),
        targets=targets,
        loss_weights=jnp.array([[0.0, 1, 1, 1, 1, 1, 1, 0]]),
        segment_ids=jnp.array([[1, 1, 1, 1, 2, 2, 2, 0]]),
        positions=jnp.zeros((1, 8, 1), jnp.int32),
        attn_order=jnp.arange(8)[None],
    )

    class Model:
        task_heads: ClassVar = {"ahead": lambda x, batch: [Hidden(10.0 * jax.nn.one_hot(t, 12), {}) for t in answers]}

        def logits(self, x_BLD):
            return x_BLD

    answers = [jnp.roll(targets, -1, axis=1), jnp.roll(targets, -2, axis=1)]
    found = multi_token.predict_ahead(Model(), None, batch)
    # The first place has no weight; of each text the last place has nothing one ahead, the last two nothing two ahead.
    assert float(found["accuracy"].weight) == float(found["accuracy"].sum) == (2 + 2) + (1 + 1)
    one = float(losses.token_cross_entropy(10.0 * jax.nn.one_hot(jnp.array([5]), 12), jnp.array([5]))[0])
    np.testing.assert_allclose(found["loss"].sum / found["loss"].weight, 2 * one, rtol=1e-5)
