"""Cross-entropy by blocks of the vocabulary: neither all logits nor the whole head is held at any time.

The logarithm of the sum over a vocabulary is that of the sums of its blocks, so blocks go by one after the other,
forward and again backward (levanter's blockwise cross-entropy; Wijmans et al. 2024, arXiv:2411.09009, do it in one
kernel). On a mesh a block of the head is gathered when its turn comes and its gradient is summed and split at once.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from t5x_like import device_parts
from t5x_like.features import Features
from t5x_like.losses import Term, VocabularySums, check_settings, cross_entropy_of, token_metrics, weighted


@dataclasses.dataclass(frozen=True)
class BlockwiseCrossEntropy:
    """`CrossEntropy` that holds one block of the vocabulary at a time, its part of the head included.

    The same numbers as there but for the order of sums. Beside `ChunkedCrossEntropy`: less memory where parameters lie
    over fsdp, for one more gathering of the head. Heads are cut along their dimension "vocab", tied or not.

    block_size   entries of the vocabulary whose logits exist at a time
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0
    block_size: int = 4096

    def __post_init__(self):
        check_settings(self.z_loss, self.label_smoothing)
        if self.block_size < 1:
            raise ValueError(f"block_size {self.block_size} must be at least 1; 4096 is the default")

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        x_BLD, terms = model.hidden(batch, dropout_key=dropout_key)
        # The gradient of x adds up over blocks: in float32, so that many of them round little more than one.
        vocab_size = vocab_size_of(model)
        by_block = functools.partial(block_by_block, self.block_size, vocab_size)
        sums = device_parts.on_own_parts(by_block, model, x_BLD.astype(jnp.float32), batch.targets)
        loss_BL = cross_entropy_of(sums, vocab_size, self.z_loss, self.label_smoothing)
        return {"loss": weighted(loss_BL, batch.loss_weights), **terms}

    def measure(self, model, batch: Features) -> dict[str, Term]:
        return token_metrics(model, batch)


def vocab_size_of(model: nnx.Module) -> int:
    (size,) = {
        variable.get_value().shape[device_parts.axes_of(variable).index("vocab")]
        for _, variable in nnx.to_flat_state(nnx.state(model))
        if "vocab" in device_parts.axes_of(variable)
    }
    return size


def block_by_block(
    block_size: int, vocab_size: int, parts: device_parts.OwnParts, x_BLD: jax.Array, targets_BL: jax.Array
) -> VocabularySums:
    """The sums over the whole vocabulary, of the sums of its blocks; logits are made again for the gradient."""
    dims = [axes.index("vocab") if "vocab" in axes else None for axes in parts.axes]
    # A device of a tensor axis has V / T entries in a row; every block takes as many from each.
    T = device_parts.size_of("tensor")
    width = vocab_size // T
    size = -(-width // -(-vocab_size // block_size))
    num_blocks = -(-width // size)

    def blocks(value, dim):
        """[..., V, ...] -> [num_blocks, ..., T * size, ...], filled up with zeros."""
        parted = value.reshape(*value.shape[:dim], T, width, *value.shape[dim + 1 :])
        more = [(0, 0)] * parted.ndim
        more[dim + 1] = (0, num_blocks * size - width)
        parted = jnp.pad(parted, more)
        parted = parted.reshape(*parted.shape[: dim + 1], num_blocks, size, *parted.shape[dim + 2 :])
        parted = jnp.moveaxis(parted, dim + 1, 0)
        return parted.reshape(num_blocks, *value.shape[:dim], T * size, *value.shape[dim + 1 :])

    column_11V = jnp.arange(T * size)[None, None]

    def step(_, index_and_blocks):
        index, of_block = index_and_blocks
        values = [whole if block is None else block for whole, block in zip(parts.values, of_block, strict=True)]
        logits_BLV = parts._replace(values=values).whole().logits(x_BLD).astype(jnp.float32)
        place_11V = index * size + column_11V % size
        exists_11V, entry_11V = place_11V < width, column_11V // size * width + place_11V
        is_target_BLV = exists_11V & (entry_11V == targets_BL[..., None])
        return None, VocabularySums(
            log_z=jax.nn.logsumexp(jnp.where(exists_11V, logits_BLV, -jnp.inf), axis=-1),
            target=jnp.where(is_target_BLV, logits_BLV, 0.0).sum(axis=-1),
            total=jnp.where(exists_11V, logits_BLV, 0.0).sum(axis=-1),
        )

    of_blocks = [None if dim is None else blocks(value, dim) for value, dim in zip(parts.values, dims, strict=True)]
    _, found = jax.lax.scan(jax.checkpoint(step, prevent_cse=False), None, (jnp.arange(num_blocks), of_blocks))
    return VocabularySums(jax.nn.logsumexp(found.log_z, axis=0), found.target.sum(axis=0), found.total.sum(axis=0))
