"""What every attention kernel must do: compute a request exactly as `xla` does, or refuse it. A new kernel is a row."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5x_like.models import cudnn_attention, kernel_choice
from t5x_like.models.attention_kernels import Scores, Visible, across, xla
from t5x_like.models.chunked_attention import Tiles, chunked, chunks_that_meet
from t5x_like.models.kv_cache import KeysValues
from t5x_like.models.ring_attention import balanced_ring, ring
from t5x_like.models.splash_attention import splash
from t5x_like.partitioning.mesh import make_mesh, on_mesh

B, N, H = 2, 4, 8
SINKS = jnp.array([0.3, -0.5, 1.0, 0.0])


class Request(NamedTuple):
    """`order` of the segments' tokens; a prefix is of 9. `keys`: how many keys there are in cross attention."""

    order: str = "causal"
    num_kv_heads: int = N
    length: int = 128
    keys: int | None = None
    window: int | None = None
    num_global: int = 0
    softcap: float | None = None
    bias_shape: tuple[int, int] | None = None
    has_sinks: bool = False
    dropout_rate: float = 0.0


REQUESTS = {
    "causal": Request(),
    "bidirectional": Request("bidirectional"),
    "prefix": Request("prefix"),
    "right to left": Request("reversed"),
    "causal window": Request(window=9),
    "bidirectional window": Request("bidirectional", window=9),
    "one key head": Request(num_kv_heads=1),
    "grouped heads": Request("bidirectional", num_kv_heads=2),
    "softcap": Request(softcap=1.5),
    "global places": Request("bidirectional", window=9, num_global=2),
    "one bias for all rows": Request(bias_shape=(1, N), num_kv_heads=2),
    "one bias for all heads": Request(bias_shape=(B, 1)),
    "sinks": Request(has_sinks=True, num_kv_heads=2),
    "dropout": Request(dropout_rate=0.4, num_kv_heads=2),
    "ragged": Request(length=37),
    "cross": Request("none", length=128, keys=256),
    "ragged cross": Request("none", length=29, keys=51),
    "everything": Request(
        "prefix", 2, length=80, window=20, num_global=3, softcap=2.0, bias_shape=(B, N), has_sinks=True
    ),
}


class Row(NamedTuple):
    """kernel(request) -> the function to call; `refused`: the requests that raise, and a word of the sentence."""

    kernel: Callable[[Request], Callable]
    refused: dict[str, str]


def cudnn_in_plain_jax(q_BLNH, seen, visible, scores, *, dropout_key=None, dropout_rate=0.0):
    """What cuDNN is asked for, computed by XLA: the request and its refusals, not cuDNN's own arithmetic."""
    low = q_BLNH.astype(jnp.bfloat16)
    reason = cudnn_attention.refusal(low, seen, visible, scores, 0.0 if dropout_key is None else dropout_rate)
    if reason is not None:
        raise ValueError(reason)
    return jax.nn.dot_product_attention(
        **cudnn_attention.arguments(q_BLNH, seen, visible, scores), implementation="xla"
    )


def splash_of(request):
    order = "causal" if request.order == "causal" else "bidirectional"
    return functools.partial(splash, order=order, block=128, interpret=True)


def on_mesh_of(num_devices, kernel):
    """The kernel where as many devices share every row; its chunks do not divide the pieces."""
    mesh = make_mesh(data=1, context=num_devices, devices=jax.devices()[:num_devices])

    def run(q_BLNH, *arguments, **named):
        q_BLNH = jax.lax.with_sharding_constraint(q_BLNH, NamedSharding(mesh, P(None, "context")))
        return on_mesh(mesh, functools.partial(kernel, query_chunk=5, key_chunk=7))(q_BLNH, *arguments, **named)

    return lambda request: run


def skipped_by(kernel, name):
    """Splash believes its order, `require_order` looks (see test_splash_attention); a ring reads as `chunked` does."""
    if kernel == "splash":
        return name in ("prefix", "right to left")
    return "ring" in kernel and name not in (
        "everything",
        *(("dropout", "cross", "ragged") if "of 4" in kernel else ()),
    )


KERNELS = {
    "chunked": Row(lambda request: functools.partial(chunked, query_chunk=32, key_chunk=48), {}),
    "cudnn": Row(
        lambda request: cudnn_in_plain_jax,
        {
            "softcap": "softcap",
            "one bias for all rows": "bias",
            "one bias for all heads": "bias",
            "sinks": "sinks",
            "dropout": "dropout",
            "ragged": "make both even",
            "ragged cross": "make both even",
            "everything": "bias",
        },
    ),
    "splash": Row(
        splash_of,
        {
            "global places": "num_global",
            "one bias for all rows": "bias",
            "one bias for all heads": "bias",
            "sinks": "sinks",
            "dropout": "dropout",
            "ragged": "multiples of 128",
            "ragged cross": "multiples of 128",
            "everything": "bias",
        },
    ),
}
RINGS = [(ring, 4), (ring, 8), (balanced_ring, 2), (balanced_ring, 4), (balanced_ring, 8)]
KERNELS |= {f"{kernel.__name__} of {n}": Row(on_mesh_of(n, kernel), {"ragged": "pieces"}) for kernel, n in RINGS}
CASES = [(k, r) for k in KERNELS for r in REQUESTS if not skipped_by(k, r)]


@pytest.fixture(autouse=True)
def gpu_that_is_told(monkeypatch, request):
    """For the refusals of cudnn; the arithmetic stays on the CPU."""
    if "cudnn" in request.node.name:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(cudnn_attention, "compute_capability", lambda: 9.0)


def packed(length):
    """Segments, and positions in them: one row of two segments and padding, one of three segments without."""
    lengths = [[length * 2 // 5, length * 2 // 5], [length // 2, length // 4, length - length // 2 - length // 4]]
    segments, places = np.zeros((2, B, length), np.int32)
    for row, sizes in enumerate(lengths):
        for number, size in enumerate(sizes):
            start = sum(sizes[:number])
            segments[row, start : start + size], places[row, start : start + size] = number + 1, np.arange(size)
    return segments, places


def visible_of(request):
    segments, places = packed(request.length)
    if request.keys is not None:
        return across(jnp.array(segments), jnp.array(packed(request.keys)[0]))
    orders = {"causal": places, "bidirectional": 0 * places, "reversed": -places, "prefix": np.maximum(places - 8, 0)}
    order = orders[request.order] - orders[request.order].min()
    return Visible(*(jnp.array(x) for x in (segments, segments, order, order, places, places)))


def arrays_of(request):
    shapes = {
        "q": (B, request.length, N, H),
        "k": (B, request.keys or request.length, request.num_kv_heads, H),
        "v": (B, request.keys or request.length, request.num_kv_heads, H),
    }
    if request.bias_shape:
        shapes["bias"] = (*request.bias_shape, request.length, request.length)
    keys = jax.random.split(jax.random.key(0), len(shapes))
    arrays = {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return arrays | ({"sinks": SINKS} if request.has_sinks else {})


def outcome(kernel, request, arrays=None):
    """What queries that see something read, and the gradients of all arrays."""
    visible, arrays = visible_of(request), arrays or arrays_of(request)
    key = jax.random.key(7) if request.dropout_rate else None
    weights = jax.random.normal(jax.random.key(1), arrays["q"].shape)
    weights = weights * (visible.query_segments_BL > 0)[:, :, None, None]

    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(arrays):
        scores = Scores(request.softcap, arrays.get("bias"), request.window, request.num_global, arrays.get("sinks"))
        seen = KeysValues(arrays["k"], arrays["v"])
        y = kernel(arrays["q"], seen, visible, scores, dropout_key=key, dropout_rate=request.dropout_rate)
        return (y * weights).sum(), y

    (_, y), gradients = jax.jit(run)(arrays)
    assert np.isfinite(y).all()
    return {"y": y * (weights != 0)} | gradients


@functools.cache
def expected(name):
    return outcome(xla, REQUESTS[name])


@pytest.mark.parametrize("kernel, name", CASES)
def test_a_kernel_computes_what_xla_does_or_refuses(kernel, name):
    """In float32, values and gradients of the order of 1: sums in another order differ by less than 3e-5."""
    row, request = KERNELS[kernel], REQUESTS[name]
    if name in row.refused:
        with pytest.raises(ValueError, match=row.refused[name]):
            jax.eval_shape(lambda: outcome(row.kernel(request), request))
        return
    found = outcome(row.kernel(request), request)
    for part, value in expected(name).items():
        np.testing.assert_allclose(found[part], value, atol=3e-5, rtol=3e-5, err_msg=part)


def test_every_request_makes_a_difference():
    """Else a kernel could ignore one and pass: causal attention is changed by all that is asked of it."""
    for name in ("bidirectional", "prefix", "right to left", "causal window", "softcap", "one bias for all heads"):
        assert np.abs(expected(name)["y"] - expected("causal")["y"]).max() > 0.1, name


def test_chunked_in_bfloat16_is_as_near_to_float32_as_xla():
    request = Request(num_kv_heads=2, length=96)
    low = {name: value.astype(jnp.bfloat16) for name, value in arrays_of(request).items()}
    exact = outcome(xla, request, {name: value.astype(jnp.float32) for name, value in low.items()})
    plain, by_chunks = outcome(xla, request, low), outcome(functools.partial(chunked, key_chunk=32), request, low)
    for part in exact:
        error = [np.abs(np.asarray(found[part], np.float32) - exact[part]).max() for found in (plain, by_chunks)]
        assert by_chunks[part].dtype == plain[part].dtype
        assert error[1] <= 1.5 * error[0], part


def sizes_made(jaxpr):
    """The number of elements of everything that a program makes."""
    for equation in jaxpr.eqns:
        yield from (out.aval.size for out in equation.outvars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from sizes_made(inner)


def test_chunked_never_makes_an_array_of_queries_times_keys():
    request = Request(length=512)
    kernel = functools.partial(chunked, query_chunk=32, key_chunk=32)
    jaxpr = jax.make_jaxpr(lambda: outcome_shapes(kernel, request))()
    assert max(sizes_made(jaxpr.jaxpr)) < request.length**2
    assert max(sizes_made(jax.make_jaxpr(lambda: outcome_shapes(xla, request))().jaxpr)) >= request.length**2


def outcome_shapes(kernel, request):
    """Forward and backward, under one trace."""
    visible, arrays = visible_of(request), {name: jnp.ones(x.shape) for name, x in arrays_of(request).items()}
    run = lambda q, k, v: kernel(q, KeysValues(k, v), visible, Scores()).sum()  # noqa: E731
    return jax.grad(run, argnums=(0, 1, 2))(*arrays.values())


def test_chunks_that_cannot_see_each_other_are_skipped():
    causal, skips = (
        visible_of(Request(length=64)),
        lambda visible, **options: (
            np.asarray(chunks_that_meet(Tiles(16, 16, None, **({"window": None, "num_global": 0} | options)), visible))
            .astype(int)
            .tolist()
        ),
    )
    one = jax.tree.map(lambda x: x[:1], causal)._replace(
        **{name: jnp.ones((1, 64), jnp.int32) for name in ("query_segments_BL", "key_segments_BM")},
        **{
            name: jnp.arange(64)[None]
            for name in ("query_order_BL", "key_order_BM", "query_positions_BL", "key_positions_BM")
        },
    )
    assert skips(one) == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert skips(one, window=3) == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert skips(one, window=3, num_global=1) == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]
    halves = jnp.repeat(jnp.array([[1, 2]]), 32, axis=1)
    packed = one._replace(query_segments_BL=halves, key_segments_BM=halves)
    assert skips(packed) == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_chunked_gives_the_same_on_a_mesh_over_rows_and_heads():
    request = Request(num_kv_heads=2, length=64)
    mesh = make_mesh(data=2, tensor=2, devices=jax.devices()[:4])
    placed = jax.device_put(arrays_of(request), NamedSharding(mesh, P("data", None, "tensor", None)))
    kernel = functools.partial(chunked, query_chunk=16, key_chunk=16)
    found, whole = outcome(kernel, request, placed), outcome(kernel, request)
    for part, value in whole.items():
        np.testing.assert_allclose(found[part], value, atol=1e-5, err_msg=part)


def test_chunks_must_have_places():
    with pytest.raises(ValueError, match="key_chunk 0 must be at least 1"):
        outcome(functools.partial(chunked, key_chunk=0), Request(length=8))


def test_auto_takes_the_kernel_that_fits_the_device_and_the_length(monkeypatch):
    asked = []
    for name in ("xla", "chunked", "cudnn", "cudnn_packed"):
        monkeypatch.setattr(kernel_choice, name, lambda q, *_, name=name, **__: asked.append(name) or q)

    def choose(length, dtype, order=None, **scores):
        q = jax.ShapeDtypeStruct((1, length, N, H), dtype)
        ids = jax.ShapeDtypeStruct((1, length), jnp.int32)
        auto = functools.partial(kernel_choice.auto, order=order)
        jax.eval_shape(lambda q, ids: auto(q, KeysValues(q, q), Visible(*[ids] * 6), Scores(**scores)), q, ids)
        return asked.pop()

    assert choose(512, jnp.bfloat16) == "xla"
    assert choose(1024, jnp.bfloat16) == "chunked"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(cudnn_attention, "compute_capability", lambda: 8.0)
    assert choose(512, jnp.bfloat16) == choose(8192, jnp.bfloat16) == "cudnn"
    assert choose(512, jnp.float32) == "xla"
    assert choose(8192, jnp.bfloat16, softcap=30.0) == "chunked"
    assert choose(512, jnp.bfloat16, "causal") == "cudnn"  # before Hopper
    monkeypatch.setattr(cudnn_attention, "compute_capability", lambda: 9.0)
    assert choose(512, jnp.bfloat16, "causal") == choose(512, jnp.float16, "bidirectional") == "cudnn_packed"
    assert choose(512, jnp.bfloat16, "causal", softcap=30.0) == "xla"


@pytest.mark.parametrize(
    "dtype, head_dim, message", [("float32", 64, "float32"), ("bfloat16", 36, "head_dim 36"), ("float16", 512, "512")]
)
def test_cudnn_names_the_types_and_widths_that_it_lacks(dtype, head_dim, message):
    q = jnp.zeros((1, 4, 1, head_dim), dtype)
    visible = Visible(*[jnp.ones((1, 4), jnp.int32)] * 6)
    with pytest.raises(ValueError, match=message):
        cudnn_attention.cudnn(q, KeysValues(q, q), visible, Scores())


def test_cu_dnn_needs_a_gpu():
    q = jnp.zeros((1, 4, 1, 8), jnp.bfloat16)
    reason = cudnn_attention.refusal(q, KeysValues(q, q), None, Scores(), 0.0)
    assert jax.default_backend() == "gpu" or "runs on NVIDIA GPUs" in reason


def test_chunked_in_a_scan_of_layers_takes_memory_that_is_linear_in_the_length():
    """Masks are the same in all layers: made before the scan, those of all chunks would be queries times keys again."""

    def temporaries(length):
        visible = Visible(*[jax.ShapeDtypeStruct((1, length), jnp.int32)] * 6)

        def loss(x_BLNH, visible):
            def layer(x_BLNH, _):
                return chunked(
                    x_BLNH, KeysValues(x_BLNH, x_BLNH), visible, Scores(), query_chunk=64, key_chunk=64
                ), None

            return jax.lax.scan(layer, x_BLNH, None, length=4)[0].sum()

        x_BLNH = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        return jax.jit(jax.grad(loss)).lower(x_BLNH, visible).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(4096) < 2.2 * temporaries(2048)
