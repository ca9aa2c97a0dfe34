"""What a compiled step sends between devices, read from its HLO text: kind, bytes, mesh axis, and how often.

A collective inside a loop counts as often as the loop turns: the compiler writes the number beside it, or the condition
compares a counter with it. Bytes are those of the whole array on one device: of an all-gather the gathered one, of a
reduce-scatter the one that is summed before each keeps its part. A TPU's program has two forms of its own: a collective
that runs beside other work stands in every computation of its chain, from AsyncCollectiveStart to AsyncCollectiveDone,
and is counted at its start; a reduce-scatter is a computation all-reduce-scatter, whose all-reduce is none. A program
for several slices is that of one of them: its groups number the chips of a slice, and what goes to others, along
"slices", is sent through the hosts.
"""

import collections
import itertools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_ITEM_BYTES = {"pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_ITEM_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_OPERATION = re.compile(r" = (.*?) (" + "|".join(KINDS) + r")(?:-start)?\(")
_TO_SLICES = re.compile(r' = (.*?) send\(.*_xla_host_transfer_rendezvous="(' + "|".join(KINDS) + ")")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|true_computation|false_computation|async_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_CONSTANT = re.compile(r"%?([\w.\-]+) = s(?:32|64)\[\]\S* constant\((-?\d+)\)")
_COMPARE = re.compile(r"ROOT .* compare\((.*?)\), direction=(LT|LE|GT|GE|NE)")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")
_LISTED = re.compile(r"replica_groups=\{(\{[\d,{} ]*\})\}")
_PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{} ]*\})\}")


class Collective(NamedTuple):
    """kind, the mesh axes it goes along ("slices": to other slices, "?": none of their combinations), bytes, times."""

    kind: str
    axes: str
    bytes: int
    times: int


def collectives_of(hlo: str, mesh: Mesh) -> list[Collective]:
    """The collectives of a compiled program, alike ones together, largest total first."""
    bodies = dict(computations(hlo))
    times = how_often(bodies)
    names = axis_groups(mesh)
    found = collections.Counter()
    for computation, lines in bodies.items():
        starts_chain = any('"AsyncCollectiveStart"' in line for line in lines)
        for line in lines:
            match = _OPERATION.search(line)
            if match and times[computation] and (starts_chain or "chain_id=" not in line):
                sizes = [array_bytes(*array) for array in _ARRAY.findall(match[1])]
                # An asynchronous start tells its operands and its results; the results are the larger or equal half.
                size = max(sizes) if "-start(" in line else sum(sizes)
                kind, groups = match[2], groups_of(line, mesh.size)
                if kind == "reduce-scatter":
                    size *= max(map(len, groups))
                if computation.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                found[kind, names.get(groups, "?"), size] += times[computation]
            if (match := _TO_SLICES.search(line)) and times[computation]:
                size = max(array_bytes(*array) for array in _ARRAY.findall(match[1]))
                found[match[2], "slices", size] += times[computation]
    made = [Collective(*key, count) for key, count in found.items()]
    return sorted(made, key=lambda one: -one.bytes * one.times)


def computations(hlo: str) -> Iterator[tuple[str, list[str]]]:
    """(name, lines) of every computation of a module."""
    name, lines = None, []
    for line in hlo.splitlines():
        if match := _COMPUTATION.match(line):
            name, lines = match[1], []
            if line.startswith("ENTRY"):
                name = "ENTRY"
        elif line.rstrip() == "}" and name is not None:  # what a kernel tells of itself may begin a line with a brace
            yield name, lines
            name = None
        elif name is not None:
            lines.append(line)


def how_often(bodies: dict[str, list[str]]) -> collections.Counter:
    """How many times each computation runs in one call of the program."""
    calls = collections.defaultdict(list)
    for caller, lines in bodies.items():
        for line in lines:
            trips = trips_of(line, bodies) if " while(" in line else 1
            called = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                called += [name.strip().removeprefix("%") for name in branches.split(",")]
            calls[caller] += [(name, trips) for name in called if name in bodies]
    times = collections.Counter()

    def visit(name: str, count: int) -> None:
        times[name] += count
        for called, trips in calls[name]:
            visit(called, count * trips)

    visit("ENTRY", 1)
    return times


def trips_of(line: str, bodies: dict[str, list[str]]) -> int:
    """How often a while turns; 1 where neither the compiler nor its condition tells. JAX's loops count from 0 by 1."""
    if known := _TRIPS.search(line):
        return int(known[1])
    condition = _CONDITION.search(line)
    lines = list(bodies.get(condition[1], ())) if condition else []
    for inner in [name for own in lines for name in _CALLED.findall(own)]:  # the comparison may be in a fusion
        lines += bodies.get(inner, ())
    constants = {name: int(value) for name, value in _CONSTANT.findall("\n".join(lines))}
    compared = [match for own in lines if (match := _COMPARE.search(own))]
    if len(compared) != 1 or len(constants) != 1:
        return 1
    (limit,) = constants.values()
    return max(limit + (compared[0][2] in ("LE", "GE")), 1)


def array_bytes(dtype: str, dims: str) -> int:
    return _ITEM_BYTES.get(dtype, 0) * int(np.prod([int(dim) for dim in dims.split(",") if dim], dtype=np.int64))


def groups_of(line: str, num_devices: int) -> frozenset[frozenset[int]]:
    """The groups of devices that exchange something; of a permutation those that its pairs connect."""
    if match := _IOTA.search(line):
        shape, dims, order = ([int(n) for n in (part or "").split(",") if n] for part in match.groups())
        devices = np.arange(np.prod(dims)).reshape(dims)
        table = (devices.transpose(order) if order else devices).reshape(shape)
        return frozenset(frozenset(row) for row in table.tolist())
    if match := _MESH.search(line):
        sizes = {name.strip("'"): int(size) for name, size in (axis.split("=") for axis in match[1].split(","))}
        dims, order = ([int(n) for n in (part or "").split(",") if n] for part in match.groups()[1:3])
        devices = np.arange(num_devices).reshape(dims or [-1])
        table = (devices.transpose(order) if order else devices).reshape(list(sizes.values()))
        along = [list(sizes).index(name.strip("' ")) for name in match[4].split(",")]
        rest = [i for i in range(table.ndim) if i not in along]
        rows = table.transpose([*rest, *along]).reshape(-1, int(np.prod([table.shape[i] for i in along])))
        return frozenset(frozenset(row) for row in rows.tolist())
    if match := _LISTED.search(line):
        rows = re.findall(r"\{([\d,]*)\}", match[1])
        return frozenset(frozenset(int(n) for n in row.split(",")) for row in rows if row)
    if match := _PAIRS.search(line):
        root = list(range(num_devices))
        for pair in re.findall(r"\{(\d+),(\d+)\}", match[1]):
            a, b = (root[int(n)] for n in pair)
            root = [min(a, b) if r in (a, b) else r for r in root]
        members = collections.defaultdict(set)
        for device, r in enumerate(root):
            members[r].add(device)
        return frozenset(map(frozenset, members.values()))
    return frozenset([frozenset(range(num_devices))])


def axis_groups(mesh: Mesh) -> dict[frozenset[frozenset[int]], str]:
    """{groups of device numbers: "fsdp" or "data x fsdp"} for every combination of the axes that split something."""
    slices = np.vectorize(lambda device: getattr(device, "slice_index", 0))(mesh.devices)  # TPU devices alone have one
    in_first = np.nonzero(slices == slices.min())
    shape_of_slice = tuple(len(np.unique(places)) for places in in_first)
    return groups_by_axes(shape_of_slice, mesh.axis_names) | groups_by_axes(mesh.devices.shape, mesh.axis_names)


def groups_by_axes(shape: tuple[int, ...], names: tuple[str, ...]) -> dict[frozenset[frozenset[int]], str]:
    numbers = np.arange(math.prod(shape)).reshape(shape)
    split = [i for i, size in enumerate(numbers.shape) if size > 1]
    found = {}
    for count in range(len(split), 0, -1):
        for axes in itertools.combinations(split, count):
            rest = [i for i in range(numbers.ndim) if i not in axes]
            rows = numbers.transpose([*rest, *axes]).reshape(-1, int(np.prod([numbers.shape[i] for i in axes])))
            groups = frozenset(frozenset(row) for row in rows.tolist())
            found[groups] = " x ".join(names[i] for i in axes)
    return found
