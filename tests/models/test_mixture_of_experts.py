import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from t5x_like.features import Features
from t5x_like.losses import CrossEntropy, Term
from t5x_like.models.blocks import Block
from t5x_like.models.decoder import Decoder
from t5x_like.models.initializers import normal_init
from t5x_like.models.layers import sizes_of
from t5x_like.models.mixture_of_experts import Experts, GatedExperts, MixtureOfExperts, batch_balance, row_balance
from t5x_like.models.mixture_of_experts_dispatch import dropless, with_capacity
from t5x_like.models.mixture_of_experts_routers import ExpertChoice, SigmoidTopK, SoftmaxTopK
from t5x_like.models.parameters import merge, split
from t5x_like.partitioning.axis_rules import AxisRules, constrain, shardings
from t5x_like.partitioning.mesh import make_mesh, on_mesh
from t5x_like.train.state import TrainState
from t5x_like.train.step import make_train_step

SIZES = sizes_of(d_model=8, num_heads=2, num_kv_heads=None, head_dim=4, d_ff=6, dtype="float32")
E, B, L, D = 4, 4, 6, 8
IS_REAL = jnp.arange(L)[None] < jnp.array([6, 4, 5, 1])[:, None]
X = jax.random.normal(jax.random.key(1), (B, L, D))
ROOM = functools.partial(with_capacity, capacity_factor=float(E))
SWITCH = functools.partial(SoftmaxTopK, experts_per_token=1, renormalise=False)
SIGMOID = functools.partial(SigmoidTopK, experts_per_token=2, scale=2.5)
CHOICE = functools.partial(ExpertChoice, sees_whole_rows=True, capacity_factor=1.5)


def make(balance=None, **options):
    """A mixture whose router has clear preferences: its graphdef and parameters."""
    init = normal_init(num_layers=1, head_dim=4, stddev=0.5)
    rngs = nnx.Rngs(params=jax.random.key(0))
    graphdef, params, _ = split(
        MixtureOfExperts(SIZES, init=init, rngs=rngs, num_experts=E, balance=balance, **options)
    )
    params = params | {"router/kernel": 60 * params["router/kernel"]}
    if "router/bias" in params:
        params = params | {"router/bias": jnp.array([0.3, -0.2, 0.0, 0.1])}
    return graphdef, params


@functools.partial(jax.jit, static_argnums=0)
def run(graphdef, params, x_BLD, is_real_BL):
    return merge(graphdef, params)(x_BLD, is_real_BL)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def mixtral_rule(logits, bias):
    chosen = np.argsort(-logits)[:2]
    return chosen, softmax(logits[chosen])


def unnormalised_rule(logits, bias):
    chosen = np.argsort(-logits)[:2]
    return chosen, softmax(logits)[chosen]


def switch_rule(logits, bias):
    return [logits.argmax()], softmax(logits)[[logits.argmax()]]


def sigmoid_rule(logits, bias):
    scores = 1 / (1 + np.exp(-logits))
    chosen = np.argsort(-(scores + bias))[:2]
    return chosen, 2.5 * scores[chosen] / scores[chosen].sum()


def by_hand(params, rule, is_gated):
    """A loop over tokens."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    y = np.zeros((B, L, D))
    for b, place in np.argwhere(np.asarray(IS_REAL)):
        x = np.asarray(X[b, place], np.float64)
        for e, weight in zip(*rule(x @ p["router/kernel"], p.get("router/bias")), strict=True):
            up = x @ p["experts/up"][e]
            if is_gated:
                gate = x @ p["experts/gate"][e]
                up = gate / (1 + np.exp(-gate)) * up
            else:
                up = np.maximum(up, 0)
            y[b, place] += weight * (up @ p["experts/down"][e])
    return y


@pytest.mark.parametrize("dispatch", [dropless, ROOM], ids=["dropless", "with_capacity"])
@pytest.mark.parametrize(
    "router, rule",
    [
        (SoftmaxTopK, mixtral_rule),
        (functools.partial(SoftmaxTopK, renormalise=False), unnormalised_rule),
        (SWITCH, switch_rule),
        (SIGMOID, sigmoid_rule),
    ],
    ids=["mixtral", "unnormalised", "switch", "sigmoid"],
)
def test_a_mixture_is_the_weighted_sum_of_what_each_chosen_expert_makes_of_a_token(router, rule, dispatch):
    graphdef, params = make(router=router, dispatch=dispatch)
    y, _ = run(graphdef, params, X, IS_REAL)
    np.testing.assert_allclose(y, by_hand(params, rule, is_gated=True), rtol=1e-4, atol=1e-5)


def test_experts_without_a_gate_are_mlps():
    graphdef, params = make(router=SWITCH, experts=functools.partial(Experts, activation="relu"))
    y, _ = run(graphdef, params, X, IS_REAL)
    np.testing.assert_allclose(y, by_hand(params, switch_rule, is_gated=False), rtol=1e-4, atol=1e-5)


def test_shared_experts_are_one_mlp_of_their_width_that_every_token_reads():
    graphdef, params = make(num_shared_experts=2, expert_size=3)
    assert params["experts/up"].shape == (E, D, 3) and params["shared/up"].shape == (D, 6)
    y, _ = run(graphdef, params, X, IS_REAL)
    gate = X @ params["shared/gate"]
    shared = (jax.nn.silu(gate) * (X @ params["shared/up"])) @ params["shared/down"]
    np.testing.assert_allclose(y - shared, by_hand(params, mixtral_rule, is_gated=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("router", [SoftmaxTopK, CHOICE], ids=["top k", "expert choice"])
@pytest.mark.parametrize("dispatch", [dropless, ROOM], ids=["dropless", "with_capacity"])
def test_gradients_are_those_of_computing_every_expert_for_every_token(router, dispatch):
    graphdef, params = make(router=router, dispatch=dispatch)

    def every_expert(params, x_BLD):
        routing = merge(graphdef, params).router(x_BLD, IS_REAL)
        gate = jax.nn.silu(jnp.einsum("BLD,EDF->BLEF", x_BLD, params["experts/gate"]))
        up = jnp.einsum("BLD,EDF->BLEF", x_BLD, params["experts/up"])
        y_BLED = jnp.einsum("BLEF,EFD->BLED", gate * up, params["experts/down"])
        weights_BLE = (jax.nn.one_hot(routing.experts_BLK, E) * routing.weights_BLK[..., None]).sum(axis=2)
        return jnp.einsum("BLE,BLED->BLD", weights_BLE, y_BLED)

    def gradient(f):
        return jax.jit(jax.grad(lambda params, x: (f(params, x) ** 2).sum(), argnums=(0, 1)))(params, X)

    found, expected = gradient(lambda params, x: merge(graphdef, params)(x, IS_REAL)[0]), gradient(every_expert)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-4)
    for name in params:
        np.testing.assert_allclose(found[0][name], expected[0][name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("router", [SoftmaxTopK, SIGMOID, CHOICE], ids=["softmax", "sigmoid", "expert choice"])
@pytest.mark.parametrize("dispatch", [dropless, with_capacity])
@pytest.mark.parametrize("balance", [batch_balance, row_balance])
def test_padding_is_neither_routed_nor_counted(router, dispatch, balance):
    graphdef, params = make(router=router, dispatch=dispatch, balance=balance, router_z_loss=0.1)
    y, terms = run(graphdef, params, X, IS_REAL)
    other, other_terms = run(graphdef, params, jnp.where(IS_REAL[..., None], X, 7.0), IS_REAL)
    np.testing.assert_array_equal(y, other)
    assert not y[~IS_REAL].any()
    jax.tree.map(np.testing.assert_array_equal, terms, other_terms)
    assert terms["expert_balance"].weight == terms["router_z_loss"].weight == IS_REAL.sum()


@pytest.mark.parametrize("router", [SIGMOID, CHOICE], ids=["sigmoid", "expert choice"])
def test_the_weights_of_terms_need_nothing_of_the_forward_pass(router):
    """The train step counts them first, in a pass of its own."""
    graphdef, params = make(router=router, dispatch=with_capacity, balance=row_balance, router_z_loss=0.1)

    def weights(params, x_BLD, is_real_BL):
        return {name: term.weight for name, term in merge(graphdef, params)(x_BLD, is_real_BL)[1].items()}

    compiled = jax.jit(weights).lower(params, X, IS_REAL).compile()
    assert compiled.cost_analysis()["flops"] < B * L * D
    routing = merge(graphdef, params).router(X, IS_REAL)
    assert weights(params, X, IS_REAL)["experts_dropped"] == (routing.experts_BLK < E).sum()


def test_a_batch_of_padding_gives_zeros_and_terms_of_weight_zero():
    for dispatch in (dropless, with_capacity):
        graphdef, params = make(router=SIGMOID, dispatch=dispatch, balance=row_balance, router_z_loss=0.1)
        y, terms = run(graphdef, params, X, jnp.zeros_like(IS_REAL))
        assert not y.any()
        for name, term in terms.items():
            assert term.sum == 0 and term.weight == 0, name


def test_what_does_not_fit_is_left_out_latest_first_and_its_share_is_told():
    graphdef, params = make(router=SWITCH, dispatch=functools.partial(with_capacity, capacity_factor=1.0))
    x = jnp.abs(X)
    params = params | {"router/kernel": jnp.tile(jnp.array([[1.0, 0.0, -1.0, -1.0]]), (D, 1))}  # all want expert 0
    y, terms = run(graphdef, params, x, IS_REAL)
    has_output = np.abs(y).max(axis=-1) > 0  # room for ceil(6 / 4) = 2 of each row
    np.testing.assert_array_equal(has_output, np.arange(L)[None] < np.array([2, 2, 2, 1])[:, None])
    assert terms["experts_dropped"] == Term(16 - 7, 16)


def test_a_token_loses_no_place_to_a_later_one_nor_to_another_row():
    graphdef, params = make(dispatch=functools.partial(with_capacity, capacity_factor=0.7))
    everywhere = jnp.ones_like(IS_REAL)
    y, terms = run(graphdef, params, X, everywhere)
    assert terms["experts_dropped"].sum > 0
    later, _ = run(graphdef, params, X.at[:, 3:].multiply(-2.0).at[0].multiply(-1.0), everywhere)
    np.testing.assert_array_equal(y[1:, :3], later[1:, :3])


def test_each_expert_chooses_the_tokens_of_a_row_that_want_it_most():
    graphdef, params = make(router=CHOICE)
    routing = merge(graphdef, params).router(X, IS_REAL)
    shares = np.where(IS_REAL[..., None], softmax(np.asarray(X @ params["router/kernel"])), -1)
    capacity = 3  # 1.5 * 6 / 4, rounded up
    expected = np.full((B, L, E), E)
    for b in range(B):
        for e in range(E):
            best = np.argsort(-shares[b, :, e])[:capacity]
            expected[b, [place for place in best if IS_REAL[b, place]], e] = e
    np.testing.assert_array_equal(routing.experts_BLK, expected)
    assert routing.num_per_row == capacity * E
    weights = np.where(expected < E, shares, 0)
    np.testing.assert_allclose(routing.weights_BLK, weights, rtol=1e-5)


def test_balance_is_the_switch_loss_by_hand():
    graphdef, params = make(balance=functools.partial(batch_balance, coefficient=0.5))
    term = run(graphdef, params, X, IS_REAL)[1]["expert_balance"]
    logits = np.asarray(X @ params["router/kernel"], np.float64)[np.asarray(IS_REAL)]
    chosen = np.argsort(-logits, axis=-1)[:, :2]
    f = np.bincount(chosen.ravel(), minlength=E) / chosen.size
    np.testing.assert_allclose(term.sum / term.weight, 0.5 * E * (f * softmax(logits).mean(axis=0)).sum(), rtol=1e-5)


def test_balance_is_its_coefficient_where_the_router_wants_all_alike_and_the_number_of_experts_where_it_wants_one():
    graphdef, params = make(router=SWITCH, balance=functools.partial(row_balance, coefficient=1.0))
    alike = run(graphdef, params | {"router/kernel": jnp.zeros((D, E))}, X, IS_REAL)[1]["expert_balance"]
    np.testing.assert_allclose(alike.sum / alike.weight, 1.0, rtol=1e-6)
    one = params | {"router/kernel": jnp.tile(jnp.array([[50.0, 0, 0, 0]]), (D, 1))}
    one = run(graphdef, one, jnp.abs(X), IS_REAL)[1]["expert_balance"]
    np.testing.assert_allclose(one.sum / one.weight, E, rtol=1e-6)


def test_row_balance_is_the_batch_balance_of_every_row_by_itself():
    graphdef, params = make(balance=row_balance)
    whole = run(graphdef, params, X, IS_REAL)[1]["expert_balance"]
    graphdef, params = make(balance=batch_balance)
    rows = [run(graphdef, params, X[b : b + 1], IS_REAL[b : b + 1])[1]["expert_balance"] for b in range(B)]
    np.testing.assert_allclose(whole.sum, sum(term.sum for term in rows), rtol=1e-5)


def test_router_z_loss_is_the_mean_square_of_log_z():
    graphdef, params = make(router_z_loss=0.01)
    term = run(graphdef, params, X, IS_REAL)[1]["router_z_loss"]
    logits = np.asarray(X @ params["router/kernel"], np.float64)[np.asarray(IS_REAL)]
    np.testing.assert_allclose(term.sum / term.weight, 0.01 * (np.log(np.exp(logits).sum(-1)) ** 2).mean(), rtol=1e-5)


def test_the_router_bias_learns_from_the_load_alone():
    graphdef, params = make(router=SIGMOID)

    def value(params):
        y, terms = merge(graphdef, params)(X, IS_REAL)
        return terms["router_bias"].sum / terms["router_bias"].weight, y

    (zero, _), gradient = jax.value_and_grad(value, has_aux=True)(params)
    chosen = np.asarray(merge(graphdef, params).router(X, IS_REAL).experts_BLK)
    share = np.bincount(chosen[chosen < E], minlength=E) / (chosen < E).sum()
    assert zero == 0
    np.testing.assert_allclose(gradient["router/bias"], share - 1 / E, atol=1e-6)
    assert all(not gradient[name].any() for name in params if name != "router/bias")
    of_output = jax.grad(lambda params: value(params)[1].sum())(params)
    assert not of_output["router/bias"].any()


def test_steps_against_the_sign_of_the_bias_gradient_even_the_load():
    graphdef, params = make(router=SIGMOID)
    x = jax.random.normal(jax.random.key(2), (8, 64, D)) + 0.5
    real = jnp.ones(x.shape[:2], bool)

    @jax.jit
    def gradient(bias):
        def value(bias):
            term = merge(graphdef, params | {"router/bias": bias}).router(x, real).terms["router_bias"]
            return term.sum / term.weight

        return jax.grad(value)(bias)

    bias = jnp.zeros(E)
    at_first = np.abs(gradient(bias)).max()
    for _ in range(200):
        bias = bias - 0.005 * jnp.sign(gradient(bias))
    assert at_first > 0.1
    assert np.abs(gradient(bias)).max() < 0.02


def tiny_decoder(balance):
    mlp = functools.partial(MixtureOfExperts, num_experts=E, balance=balance, router=SIGMOID, router_z_loss=0.01)
    layers = functools.partial(Block, mlp=mlp)
    model = Decoder(vocab_size=31, num_layers=2, d_model=D, num_heads=2, d_ff=6, layers=layers, rngs=nnx.Rngs(params=0))
    graphdef, params, _ = split(model)
    return graphdef, {
        name: value + 0.3 * jnp.cos(jnp.arange(value.size)).reshape(value.shape) for name, value in params.items()
    }


def batch():
    tokens = jax.random.randint(jax.random.key(3), (B, L), 1, 31)
    place = jnp.tile(jnp.arange(L), (B, 1))
    real = IS_REAL.astype(jnp.int32)
    return Features(tokens, jnp.roll(tokens, -1, axis=1), IS_REAL.astype(jnp.float32), real, place[..., None], place)


@functools.cache
def step(balance, num_microbatches):
    graphdef, params = tiny_decoder(balance)
    optimizer = optax.sgd(1.0)
    train = jax.jit(make_train_step(graphdef, CrossEntropy(), optimizer, num_microbatches=num_microbatches))
    state, metrics = train(
        TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)), batch(), jax.random.key(0)
    )
    return params, state.params, metrics


def test_terms_reach_the_train_step_and_are_exact_under_micro_batches():
    before, whole, metrics = step(row_balance, 1)
    assert metrics["expert_balance"] > 0.01 * 0.99 and metrics["router_z_loss"] > 0
    assert metrics["expert_balance_weight"] == 2 * IS_REAL.sum()  # two layers: the mean over them
    _, in_parts, part_metrics = step(row_balance, 2)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], part_metrics[name], rtol=1e-4, atol=1e-7, err_msg=name)
    for name in whole:
        np.testing.assert_allclose(whole[name], in_parts[name], rtol=1e-4, atol=1e-5, err_msg=name)
        assert (whole[name] != before[name]).any(), name


def test_batch_balance_with_micro_batches_is_the_mean_over_them_weighted_by_tokens():
    _, _, metrics = step(batch_balance, 2)
    graphdef, params = tiny_decoder(batch_balance)
    halves = [jax.tree.map(lambda a, i=i: a[i::2], batch()) for i in range(2)]
    terms = [merge(graphdef, params).hidden(half).terms["expert_balance"] for half in halves]
    expected = sum(term.sum for term in terms) / sum(term.weight for term in terms)
    np.testing.assert_allclose(metrics["expert_balance"], expected, rtol=1e-5)


@pytest.mark.parametrize("dispatch", [dropless, with_capacity])
def test_a_mixture_split_over_a_mesh_gives_the_numbers_of_a_whole_one(dispatch):
    mesh, rules = make_mesh(data=2, fsdp=2, tensor=2), AxisRules()
    graphdef, params = make(dispatch=dispatch, balance=batch_balance)
    expected = run(graphdef, params, X, IS_REAL)
    graphdef, _ = make(dispatch=dispatch, balance=batch_balance, shard=constrain(mesh, rules))
    axes = split(merge(graphdef, params)).axes
    assert axes["experts/up"] == ("expert", "embed", "mlp") and axes["experts/down"] == ("expert", "mlp", "embed")
    placed = jax.device_put(params, shardings(mesh, rules, params, axes))
    found = on_mesh(mesh, run)(graphdef, placed, X, IS_REAL)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, expected)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"router": ExpertChoice}, "ExpertChoice lets a token see those after it: in a decoder use SoftmaxTopK"),
        (
            {"router": functools.partial(SoftmaxTopK, experts_per_token=5)},
            "experts_per_token 5: at least 1, and at most",
        ),
        ({"router": functools.partial(SoftmaxTopK, experts_per_token=1)}, "the router learns nothing"),
        ({"router": functools.partial(CHOICE, capacity_factor=0.0)}, "capacity_factor 0.0 leaves experts no room"),
        ({"router_z_loss": -1.0}, "router_z_loss -1.0 is negative; 0 turns it off"),
        ({"experts": functools.partial(GatedExperts, activation="swish")}, "activation 'swish' is not one of"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
