import re

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from t5x_like import losses
from t5x_like.blockwise_cross_entropy import BlockwiseCrossEntropy
from t5x_like.features import Features
from t5x_like.models.heads import CappedTiedHead, MlmHead, ScaledTiedHead, TiedHead, UntiedHead
from t5x_like.models.initializers import normal_init
from t5x_like.models.layers import Embedding, sizes_of, unsharded
from t5x_like.models.parameters import merge, split
from t5x_like.models.stack import Hidden
from t5x_like.partitioning.axis_rules import AxisRules, constrain
from t5x_like.partitioning.mesh import make_mesh, on_mesh


def random_logits(shape=(4, 6, 11)):
    logits = 3 * jax.random.normal(jax.random.key(0), shape)
    targets = jax.random.randint(jax.random.key(1), shape[:-1], 0, shape[-1])
    return logits, targets


def one_hot_cross_entropy(logits, targets, z_loss, label_smoothing):
    """T5X's formula, written over one-hot targets in float64."""
    logits, V = np.asarray(logits, np.float64), logits.shape[-1]
    right, wrong = 1 - label_smoothing, label_smoothing / (V - 1)
    soft = np.where(np.arange(V) == np.asarray(targets)[..., None], right, wrong)
    log_z = np.log(np.exp(logits).sum(-1))
    constant = -(right * np.log(right) + (V - 1) * wrong * np.log(wrong + 1e-20))
    return -(soft * (logits - log_z[..., None])).sum(-1) - constant + z_loss * log_z**2


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy_is_t5x_s_one_hot_formula(z_loss, label_smoothing):
    logits, targets = random_logits()
    got = losses.token_cross_entropy(logits, targets, z_loss=z_loss, label_smoothing=label_smoothing)
    np.testing.assert_allclose(
        got, one_hot_cross_entropy(logits, targets, z_loss, label_smoothing), rtol=2e-5, atol=1e-5
    )


def test_gradient_is_softmax_minus_the_smoothed_target():
    logits, targets = random_logits()
    gradient = jax.grad(lambda x: losses.token_cross_entropy(x, targets, label_smoothing=0.2).sum())(logits)
    soft = jnp.where(jnp.arange(11)[None, None] == targets[..., None], 0.8, 0.2 / 10)
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - soft, atol=1e-6)


def test_uniform_logits_cost_log_vocab():
    loss_BL = losses.token_cross_entropy(jnp.zeros((2, 3, 7)), jnp.zeros((2, 3), jnp.int32))
    np.testing.assert_allclose(loss_BL, np.log(7), rtol=1e-6)


def test_a_perfect_model_of_smoothed_targets_has_loss_zero():
    logits = jnp.log(jnp.array([[[0.9, 0.05, 0.05]]]))
    loss_BL = losses.token_cross_entropy(logits, jnp.zeros((1, 1), jnp.int32), label_smoothing=0.1)
    np.testing.assert_allclose(loss_BL, 0.0, atol=1e-6)


def test_bfloat16_logits_are_summed_in_float32():
    logits, targets = random_logits((2, 3, 4096))
    low = logits.astype(jnp.bfloat16)
    got = losses.token_cross_entropy(low, targets)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, losses.token_cross_entropy(low.astype(jnp.float32), targets), rtol=1e-6)


def test_places_of_weight_zero_count_for_nothing_even_if_not_a_number():
    term = losses.weighted(jnp.array([[1.0, jnp.nan, 3.0]]), jnp.array([[0.5, 0.0, 1.0]]))
    np.testing.assert_allclose(term, (3.5, 1.5))


@pytest.mark.parametrize("wrong", [{"z_loss": -1e-4}, {"label_smoothing": 1.0}, {"label_smoothing": -0.1}])
@pytest.mark.parametrize("loss", [losses.CrossEntropy, losses.ChunkedCrossEntropy, BlockwiseCrossEntropy])
def test_impossible_settings_are_refused(loss, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        loss(**wrong)


class HeadAlone(nnx.Module):
    """A model whose hidden states are its tokens."""

    def __init__(self, head, *, dtype="float32", shard=unsharded):
        sizes = sizes_of(d_model=8, num_heads=1, num_kv_heads=1, head_dim=8, d_ff=8, dtype=dtype)
        parts = {"vocab_size": VOCAB, "init": normal_init(num_layers=1, head_dim=8, stddev=1.0)}
        parts["rngs"] = nnx.Rngs(params=jax.random.key(0))
        self.embedding, self.head, self.shard = Embedding(sizes, **parts), head(sizes, **parts), shard

    def hidden(self, features, *, dropout_key=None):
        return Hidden(features.tokens, {"layers": losses.Term(jnp.ones(()), jnp.ones(()))})

    def logits(self, x_BLD):
        logits_BLV = self.head(x_BLD, self.embedding.table[...])
        return self.shard(logits_BLV, "batch", "length", "vocab_activation")


VOCAB, LENGTH = 48, 21


def hidden_batch(rows=4):
    keys = jax.random.split(jax.random.key(3), 3)
    return Features(
        tokens=jax.random.normal(keys[0], (rows, LENGTH, 8)),
        targets=jax.random.randint(keys[1], (rows, LENGTH), 0, VOCAB),
        loss_weights=jax.random.bernoulli(keys[2], 0.8, (rows, LENGTH)).astype(jnp.float32),
        segment_ids=None,
        positions=None,
        attn_order=None,
    )


def loss_and_gradients(loss, model):
    """Of the parameters by name, and of the hidden states; a function of both."""
    graphdef, params, _ = split(model)

    def total(params, x, batch):
        terms = loss(merge(graphdef, params), batch._replace(tokens=x), None)
        return sum(term.sum / term.weight for term in terms.values())

    return jax.value_and_grad(total, argnums=(0, 1)), params


SETTINGS = {"z_loss": 1e-2, "label_smoothing": 0.1}


PIECES = {
    "1 place": losses.ChunkedCrossEntropy(**SETTINGS, chunk_size=1),
    "7 places": losses.ChunkedCrossEntropy(**SETTINGS, chunk_size=8),  # 21 places, cut evenly
    "all places": losses.ChunkedCrossEntropy(**SETTINGS, chunk_size=64),
    "16 entries": BlockwiseCrossEntropy(**SETTINGS, block_size=16),
    "5 entries": BlockwiseCrossEntropy(**SETTINGS, block_size=5),  # of 48: the last block is not full
    "11 entries": BlockwiseCrossEntropy(**SETTINGS, block_size=11),  # over two devices the last of either is not full
    "all entries": BlockwiseCrossEntropy(**SETTINGS, block_size=64),
}


@pytest.mark.parametrize("head", [UntiedHead, TiedHead, ScaledTiedHead, CappedTiedHead, MlmHead])
@pytest.mark.parametrize("pieces", PIECES)
def test_pieces_change_neither_loss_nor_gradients(head, pieces):
    batch = hidden_batch()
    whole, params = loss_and_gradients(losses.CrossEntropy(**SETTINGS), HeadAlone(head))
    by_piece, _ = loss_and_gradients(PIECES[pieces], HeadAlone(head))
    found, expected = (jax.jit(f)(params, batch.tokens, batch) for f in (by_piece, whole))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


class OffsetHead(UntiedHead):
    """Logits are not 0 where the kernel is, so that what fills a block up shows if it is counted."""

    def __call__(self, x_BLD, table_VD):
        return super().__call__(x_BLD, table_VD) + 3.0


@pytest.mark.parametrize("pieces", ["7 places", "5 entries", "11 entries"])
def test_pieces_change_nothing_on_a_mesh_over_rows_and_vocabulary(pieces):
    batch, rules, mesh = hidden_batch(), AxisRules(), make_mesh(data=2, fsdp=2, tensor=2)
    loss = PIECES[pieces]
    alone, params = loss_and_gradients(losses.CrossEntropy(**SETTINGS), HeadAlone(OffsetHead))
    split_up, _ = loss_and_gradients(loss, HeadAlone(OffsetHead, shard=constrain(mesh, rules)))
    axes = split(HeadAlone(OffsetHead)).axes
    placed = {name: jax.device_put(x, NamedSharding(mesh, rules.spec(*axes[name]))) for name, x in params.items()}
    rows = jax.device_put(batch, NamedSharding(mesh, rules.spec("batch")))
    program = jax.jit(on_mesh(mesh, split_up)).lower(placed, rows.tokens, rows).compile()
    found, expected = program(placed, rows.tokens, rows), jax.jit(alone)(params, batch.tokens, batch)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    # A device's logits are [4 / 4 rows, 7 places, 48 / 2 words]; no larger ones may be brought together.
    gathered = re.findall(r"(\S+) all-(?:gather|to-all)\(", program.as_text())
    assert not [shape for shape in gathered if f",{VOCAB}]" in shape and "7," in shape], gathered


def test_many_blocks_add_little_to_the_rounding_of_the_gradient_of_bfloat16_states():
    """Each block's part is rounded as the whole is, and their sum is not: 1.15 times the error, 2 in bfloat16."""
    batch = hidden_batch()
    low = batch.tokens.astype(jnp.bfloat16)

    def gradient(loss, dtype, x):
        function, params = loss_and_gradients(loss, HeadAlone(UntiedHead, dtype=dtype))
        return np.asarray(jax.jit(function)(params, x, batch)[1][1], np.float32)

    exact = gradient(losses.CrossEntropy(), "float32", low.astype(jnp.float32))
    by_entry, whole = (
        np.linalg.norm(gradient(loss, "bfloat16", low) - exact)
        for loss in (BlockwiseCrossEntropy(block_size=1), losses.CrossEntropy())
    )
    assert by_entry < 1.4 * whole


def sizes_made(jaxpr):
    for equation in jaxpr.eqns:
        yield from (out.aval.size for out in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from sizes_made(inner)


@pytest.mark.parametrize(
    "loss, holds",
    [
        (losses.CrossEntropy(), True),
        (losses.ChunkedCrossEntropy(chunk_size=8), False),
        (BlockwiseCrossEntropy(block_size=16), False),
    ],
)
def test_pieces_never_make_an_array_of_tokens_times_vocabulary(loss, holds):
    batch = hidden_batch()
    function, params = loss_and_gradients(loss, HeadAlone(UntiedHead, dtype="bfloat16"))
    largest = max(sizes_made(jax.make_jaxpr(function)(params, batch.tokens, batch).jaxpr))
    assert (largest >= batch.targets.size * VOCAB) == holds


def test_held_out_metrics_by_chunks_are_those_of_the_whole():
    batch, model = hidden_batch(), HeadAlone(TiedHead)
    long = jax.tree.map(lambda x: jnp.tile(x, (1, 9, *[1] * (x.ndim - 2))), batch)  # 189 places
    for name, term in losses.token_metrics(model, batch).items():
        np.testing.assert_allclose(losses.token_metrics(model, long)[name], 9 * jnp.array(term), rtol=1e-5)
    logits, right = model.logits(batch.tokens), losses.token_metrics(model, batch)["accuracy"]
    assert right.sum == ((jnp.argmax(logits, -1) == batch.targets) * batch.loss_weights).sum()


def test_a_piece_has_something_in_it():
    with pytest.raises(ValueError, match="chunk_size 0 must be at least 1"):
        losses.ChunkedCrossEntropy(chunk_size=0)
    with pytest.raises(ValueError, match="block_size 0 must be at least 1"):
        BlockwiseCrossEntropy(block_size=0)
