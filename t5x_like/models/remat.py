"""Rematerialisation: remat(layer) -> layer says what of a layer's forward pass waits in memory for its backward pass.

What is not kept is computed again. The names that `KeepNamed` takes are given by the layers themselves:

  query, key, value   [B, L, N or G, H]   after biases, norms and positions
  attention           [B, L, N, H]        what the attention read, before its output matrix
  attention_out       [B, L, D]
  mlp_in              [B, L, F]           each product with an input matrix of an MLP
  mlp_out             [B, L, D]
"""

import dataclasses
import difflib
from collections.abc import Callable

import jax

NAMES = ("query", "key", "value", "attention", "attention_out", "mlp_in", "mlp_out")


def keep_matmuls(layer: Callable) -> Callable:
    """Keeps the products with the layer's matrices; norms, activations and attention are computed again."""
    return jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable, prevent_cse=False)


@dataclasses.dataclass(frozen=True)
class KeepNamed:
    """Keeps what the layers call by these names, on the device or in the host's memory, and nothing else.

    offload   waits in pinned host memory, and is fetched back for the backward pass
    """

    keep: tuple[str, ...] = ()
    offload: tuple[str, ...] = ()

    def __post_init__(self):
        for name in (*self.keep, *self.offload):
            if name not in NAMES:
                nearest = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.0)[0]
                raise ValueError(f"{name!r} names nothing in a layer; nearest is {nearest!r} of {', '.join(NAMES)}")
        if both := set(self.keep) & set(self.offload):
            raise ValueError(f"{sorted(both)} cannot be kept on the device and offloaded: name each once")

    def __call__(self, layer: Callable) -> Callable:
        policies = jax.checkpoint_policies
        if not self.offload:
            policy = policies.save_only_these_names(*self.keep)
        else:
            policy = policies.save_and_offload_only_these_names(
                names_which_can_be_saved=list(self.keep),
                names_which_can_be_offloaded=list(self.offload),
                offload_src="device",
                offload_dst="pinned_host",
            )
        return jax.checkpoint(layer, policy=policy, prevent_cse=False)
