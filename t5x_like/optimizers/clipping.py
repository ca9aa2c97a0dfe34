"""An optimizer behind a limit on the gradient's global norm (arXiv:1211.5063)."""

import optax


def clipped(optimizer: optax.GradientTransformation, max_norm: float = 1.0) -> optax.GradientTransformation:
    """`optimizer`, given gradients scaled down to a global norm of at most `max_norm`.

    The norm is that of all parameters together, over the whole mesh. A gradient that is not finite stays so: the train
    loop stops on it, the clip does not hide it.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm {max_norm} must be above 0; to train without clipping, leave `clipped` away")
    return optax.chain(optax.clip_by_global_norm(max_norm), optimizer)
