import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x_like.decoding.sampling import Sample, greedy

V, DRAWS = 12, 20_000


def logits(seed=0):
    return 2 * jax.random.normal(jax.random.key(seed), (V,))


def frequencies(sample, logits_V):
    """Shares of DRAWS draws, each with its own key."""
    tokens = jax.jit(sample)(jax.random.split(jax.random.key(1), DRAWS), jnp.tile(logits_V, (DRAWS, 1)))
    return np.bincount(tokens, minlength=V) / DRAWS


def brute_force(logits_V, temperature=1.0, top_k=None, top_p=1.0):
    """The distribution by definition: sort, cut to k, then to the shortest head that reaches p, renormalise."""
    p = np.exp(np.asarray(logits_V, np.float64) / temperature)
    order = np.argsort(-p, kind="stable")[: top_k or V]
    head = np.cumsum(p[order] / p[order].sum())
    order = order[: 1 + np.searchsorted(head, top_p)] if top_p < 1 else order
    kept = np.where(np.isin(np.arange(V), order), p, 0)
    return kept / kept.sum()


@pytest.mark.parametrize(
    "cut",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0},
        {"top_k": 1},
        {"top_k": 4},
        {"top_p": 0.3},
        {"top_p": 0.9},
        {"temperature": 1.5, "top_k": 6, "top_p": 0.8},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_distribution_cut_by_definition(cut, seed):
    """Every share of 20,000 draws lies within five standard errors, and what was cut is never drawn."""
    found, expected = frequencies(Sample(**cut), logits(seed)), brute_force(logits(seed), **cut)
    assert np.all(found[expected == 0] == 0)
    assert np.all(found[expected > 0.005] > 0)
    assert np.all(np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / DRAWS) + 1e-9)


def test_greedy_takes_the_likeliest_and_the_lowest_of_equals():
    table = jnp.array([[0.0, 3.0, 1.0], [2.0, 5.0, 5.0]])
    assert greedy(None, table).tolist() == [1, 1]


def test_equal_logits_at_the_edge_of_top_k_keep_exactly_k_tokens():
    found = frequencies(Sample(top_k=3), jnp.zeros(V))
    assert np.count_nonzero(found) == 3


def test_each_row_may_have_its_own_temperature_and_zero_is_greedy():
    table = jnp.tile(logits(), (DRAWS, 1))
    temperature = jnp.where(jnp.arange(DRAWS) % 2 == 0, 0.0, 2.0)
    tokens = Sample(temperature=temperature)(jax.random.split(jax.random.key(0), DRAWS), table)
    assert set(tokens[::2].tolist()) == {int(jnp.argmax(logits()))}
    assert len(set(tokens[1::2].tolist())) > 6


def test_a_row_draws_the_same_alone_as_among_others():
    keys, table = jax.random.split(jax.random.key(0), 5), jax.random.normal(jax.random.key(1), (5, V))
    together = Sample(top_p=0.9)(keys, table)
    alone = [int(Sample(top_p=0.9)(keys[i : i + 1], table[i : i + 1])[0]) for i in range(5)]
    assert together.tolist() == alone


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"temperature": -1.0}], ids=str)
def test_cuts_that_keep_nothing_or_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sample(**wrong)


def test_each_row_may_keep_its_own_number_of_tokens():
    table = jnp.tile(jnp.zeros(V), (DRAWS, 1))
    top_k = jnp.where(jnp.arange(DRAWS) % 2 == 0, 2, V + 5)
    tokens = Sample(top_k=top_k)(jax.random.split(jax.random.key(0), DRAWS), table)
    assert set(tokens[::2].tolist()) == {0, 1}
    assert set(tokens[1::2].tolist()) == set(range(V))
    with pytest.raises(ValueError, match="top_k"):
        Sample(top_k=np.array([3, 0]))
