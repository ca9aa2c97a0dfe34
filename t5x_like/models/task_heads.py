"""Heads on hidden states that predict something else than the next token, made as `Head(sizes, ..., init=, rngs=)`.

Results are float32. Letters beside those of the package: S things per row (pairs, spans), C classes.
"""

import jax
from flax import nnx

from t5x_like.models.heads import multiply
from t5x_like.models.initializers import Initializers
from t5x_like.models.layers import Sizes, activation_named, add_bias, parameter, project, zeros


class ReplacedTokenHead(nnx.Module):
    """One logit a token, [B, L, D] -> [B, L]: is it the original one? (ELECTRA, arXiv:2003.10555, section 2)

    A dense layer of width D with an activation, then one output, as in the released code.
    """

    def __init__(self, sizes: Sizes, *, init: Initializers, rngs: nnx.Rngs, activation: str = "gelu"):
        D = sizes.d_model
        self.dtype, self.activation = sizes.dtype, activation_named(activation)
        self.dense = parameter(rngs, init.mlp_in, (D, D), ("embed", "mlp"), fan_in=D)
        self.dense_bias = zeros((D,), ("mlp",))
        self.out = parameter(rngs, init.logits, (D, 1), ("embed", None), fan_in=D)
        self.out_bias = zeros((1,), (None,))

    def __call__(self, x_BLD: jax.Array) -> jax.Array:
        y_BLD = self.activation(add_bias(project(x_BLD, self.dense[...], dtype=self.dtype), self.dense_bias))
        logits_BL1 = multiply(y_BLD, self.out[...], contracted_dim=0, dtype=self.dtype)
        return add_bias(logits_BL1, self.out_bias)[..., 0]
