"""What a step takes at least on a kind of device: its operations, its memory traffic and its collectives, each alone.

The figures of a device are its maker's; nothing reaches them. Between the longest of the three times (all overlap) and
their sum (nothing does) lies what a perfect program takes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from t5x_like.planning.collectives import Collective


class Device(NamedTuple):
    """flops: dense bfloat16 a second; memory: bytes; bandwidth, link: bytes a second (link: one device's, out)."""

    flops: float
    memory: float
    bandwidth: float
    link: float


# Memory of a v5e: what its compiler leaves to a program, 15.75 GiB.
DEVICES = {
    "TPU v4": Device(275e12, 32e9, 1228e9, 300e9),
    "TPU v5 lite": Device(197e12, 16.9e9, 819e9, 200e9),
    "TPU v5": Device(459e12, 95e9, 2765e9, 600e9),
    "TPU v6 lite": Device(918e12, 32e9, 1640e9, 448e9),
    "A100": Device(312e12, 80e9, 2039e9, 300e9),
    "H100": Device(989e12, 80e9, 3350e9, 450e9),
    "H200": Device(989e12, 141e9, 4800e9, 450e9),
}


def device_named(kind: str) -> Device | None:
    """By the longest name that stands in what JAX calls the device; None for one that is not known."""
    names = [name for name in DEVICES if name.lower() in kind.lower()]
    return DEVICES[max(names, key=len)] if names else None


class Work(NamedTuple):
    """Operations of one step of the whole mesh: `full` counts every pair of a row in attention, `causal` half."""

    full: float
    causal: float


def work_of(params: Mapping[str, jax.ShapeDtypeStruct], lengths: Mapping[str, int], batch_size: int) -> Work:
    """6 operations a weight and token, but for look-ups, norms and biases; 12 a pair of places and width of all heads.

    Counted from names and shapes: all experts of a mixture count, as if every token went through each, and layers that
    share their parameters (ALBERT) count as one.
    """
    inputs, targets = lengths.get("inputs", 0), lengths["targets"]
    tied = not any(name.startswith("head/kernel") for name in params)
    weights = full = causal = 0.0
    for name, param in params.items():
        last, size = name.rsplit("/", 1)[-1], math.prod(param.shape)
        encodes = name.startswith("encoder/") or "cross_attention/key" in name or "cross_attention/value" in name
        tokens = inputs if encodes else targets
        if last in ("scale", "bias", "types") or last.endswith("_bias") or "bias/" in name or "positions/" in name:
            continue
        if name.startswith("embedding/"):
            size *= tied
        weights += 6.0 * size * tokens
        if last == "query":
            width = math.prod(param.shape[-2:]) * math.prod(param.shape[:-3])
            keys = inputs if name.startswith("encoder/") or "cross_attention" in name else targets
            pairs = 12.0 * width * tokens * keys
            full += pairs
            causal += pairs if keys == inputs else pairs / 2
    return Work(batch_size * (weights + full), batch_size * (weights + causal))


class Seconds(NamedTuple):
    """compute, memory, network: each alone. A step lies between `least` and `most`."""

    compute: float
    memory: float
    network: float

    @property
    def least(self) -> float:
        return max(self)

    @property
    def most(self) -> float:
        return sum(self)


def seconds_of(
    device: Device, work: Work, num_devices: int, bytes_touched: float, collectives: Sequence[Collective]
) -> Seconds:
    """`bytes_touched`: what one device reads and writes at least once: arguments, results and temporaries."""
    sent = sum(one.bytes * one.times * (2 if one.kind == "all-reduce" else 1) for one in collectives)
    return Seconds(work.full / num_devices / device.flops, bytes_touched / device.bandwidth, sent / device.link)
