"""Collectives in the text of a compiled program, in every form in which the compilers write them."""

import jax
import numpy as np
import pytest

from t5x_like.partitioning.mesh import make_mesh
from t5x_like.planning.collectives import Collective, collectives_of, groups_of

# As a TPU's compiler writes it: a loop whose number of turns stands in its condition alone, a kernel whose description
# begins a line with a brace, a gather that runs beside other work in three computations, and a reduce-scatter.
TPU = """\
HloModule jit_step

%fused_computation.1 (p: bf16[1,64]) -> (bf16[1,64], bf16[1,512]) {
  %all-gather.1 = bf16[1,512]{1,0} all-gather(%p), GATHERED
  ROOT %custom-call.1 = (bf16[1,64], bf16[1,512]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.2 (p: bf16[1,64]) -> bf16[1,512] {
  %all-gather.2 = bf16[1,512]{1,0} all-gather(%p), GATHERED
  ROOT %add.9 = bf16[1,512] add(%all-gather.2, %all-gather.2)
}

%fused_computation.3 (p: bf16[1,64]) -> bf16[1,512] {
  %all-gather.3 = bf16[1,512]{1,0} all-gather(%p), GATHERED
  ROOT %custom-call.3 = bf16[1,512] custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.4 (input: f32[512,16]) -> f32[64,16] {
  %all-reduce.4 = f32[512,16]{1,0} all-reduce(%input), channel_id=8, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %dynamic-slice.4 = f32[64,16] dynamic-slice(%all-reduce.4, %n), dynamic_slice_sizes={64,16}
}

%condition.5 (s: (s32[], bf16[1,64])) -> pred[] {
  %constant.5 = s32[]{:T(128)} constant(6)
  %n = s32[] get-tuple-element(%s), index=0
  ROOT %lt.5 = pred[] compare(%n, %constant.5), direction=LT, metadata={op_name="while/cond/lt"}
}

%body.6 (s: (s32[], bf16[1,64])) -> (s32[], bf16[1,64]) {
  %kernel = f32[2] custom-call(%s), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{
"xprof_metadata":"{}"
}}, metadata={op_name="attention"}
  %start = (bf16[1,64], bf16[1,512]) fusion(%s), kind=kCustom, calls=%fused_computation.1
  %between = bf16[1,512] fusion(%start), kind=kOutput, calls=%async_collective_fusion.2
  %done = bf16[1,512] fusion(%between), kind=kCustom, calls=%fused_computation.3
  %sum = f32[64,16] fusion(%done), kind=kCustom, calls=%all-reduce-scatter.4
  ROOT %t = (s32[], bf16[1,64]) tuple(%n, %start)
}

%branch.7 (x: f32[8]) -> f32[8] {
  ROOT %permuted = f32[8] collective-permute(%x), source_target_pairs={{0,1},{1,0},{2,3},{3,2},{4,5},{5,4},{6,7},{7,6}}
}

%branch.8 (x: f32[8]) -> f32[8] {
  ROOT %x = f32[8] parameter(0)
}

ENTRY %main (a: bf16[1,64]) -> f32[8] {
  %loop = (s32[], bf16[1,64]) while(%init), condition=%condition.5, body=%body.6
  %scattered = f32[4] reduce-scatter(%x), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, to_apply=%add
  ROOT %either = f32[8] conditional(%p, %x, %x), branch_computations={%branch.7, %branch.8}
}
""".replace(
    "GATHERED",
    "channel_id=7, replica_groups=mesh['axis_0'=1,'axis_1'=8] {'axis_1'}, frontend_attributes={chain_id=\"9\"}",
)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(data=1, fsdp=8, devices=jax.devices()[:8])


def test_what_a_tpu_sends_is_counted_once_a_turn_however_many_computations_it_stands_in(mesh):
    assert set(collectives_of(TPU, mesh)) == {
        Collective("all-gather", "fsdp", 2 * 512, 6),
        Collective("reduce-scatter", "fsdp", 4 * 512 * 16, 6),
        Collective("reduce-scatter", "fsdp", 4 * 4 * 8, 1),
        Collective("collective-permute", "?", 4 * 8, 1),
    }


SLICES = """\
ENTRY %main (a: bf16[1,64]) -> f32[8] {
  %gathered = f32[64] all-gather(%a), channel_id=7, replica_groups={{0,1},{2,3}}, dimensions={0}
  %sent = (bf16[1,1,2048], u32[]{:S(2)}, token[]) send(%x, %token), channel_id=17, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",\
_xla_host_transfer_rendezvous="collective-permute_0",_xla_megascale_target={{400000->100000}}}
  %received = (bf16[1,1,2048], u32[]{:S(2)}, token[]) recv(%token), channel_id=18, is_host_transfer=true, \
frontend_attributes={_xla_host_transfer_rendezvous="collective-permute_0"}
}
"""


class Chip:
    def __init__(self, number):
        self.slice_index = number // 4


def test_a_program_for_several_slices_numbers_the_chips_of_one_and_sends_to_the_others():
    class Mesh:
        devices, axis_names, size = np.array([Chip(number) for number in range(8)]).reshape(2, 2, 2), "abc", 8

    assert set(collectives_of(SLICES, Mesh)) == {
        Collective("all-gather", "c", 4 * 64, 1),
        Collective("collective-permute", "slices", 2 * 2048, 1),
    }


def test_a_loop_whose_turns_nobody_tells_counts_once(mesh):
    unknown = TPU.replace("constant(6)", "parameter(1)")
    assert Collective("all-gather", "fsdp", 2 * 512, 1) in collectives_of(unknown, mesh)
    told = TPU.replace("body=%body.6", 'body=%body.6, backend_config={"known_trip_count":{"n":"3"}}')
    assert Collective("all-gather", "fsdp", 2 * 512, 3) in collectives_of(told, mesh)


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=2] {'a','c'}", [[0, 1, 2, 3]]),
        ("source_target_pairs={{0,2},{2,0},{1,3},{3,1}}", [[0, 2], [1, 3]]),
        ("no groups", [[0, 1, 2, 3]]),
    ],
)
def test_groups_of_devices_in_every_spelling(written, groups):
    assert groups_of(f"%x = f32[4] all-gather(%y), {written}, dimensions={{0}}", 4) == frozenset(map(frozenset, groups))


def test_groups_cover_every_device_once():
    found = groups_of("replica_groups=mesh['a'=2,'b'=4], device_ids=([2,2,2]T(1,0,2)) {'a'}", 8)
    assert sorted(np.concatenate([sorted(group) for group in found]).tolist()) == list(range(8))
    assert frozenset([0, 2]) in found
