"""Parameters kept in another type than float32.

  train.model = @kept_in
  kept_in.model = @Decoder
  kept_in.dtype = 'bfloat16'

Half the bytes of parameters, of what is gathered of them and of a micro-batch's gradients, whose sum stays float32.
Plain bfloat16 stands still where an update is less than half of the last place: train with `stochastically_rounded`.
"""

from collections.abc import Callable

from flax import nnx

from t5x_like.models.layers import Shard, unsharded

TYPES = ("bfloat16", "float32")


def kept_in(
    *, model: Callable[..., nnx.Module], rngs: nnx.Rngs, dtype: str = "bfloat16", shard: Shard = unsharded
) -> nnx.Module:
    """`model`, with its parameters drawn in float32 and rounded to the nearest of `dtype`."""
    if dtype not in TYPES:
        raise ValueError(f"dtype {dtype!r}: parameters are kept in one of {', '.join(TYPES)}")
    module = model(rngs=rngs, shard=shard)
    for _, param in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        param.set_value(param.get_value().astype(dtype))
    return module
