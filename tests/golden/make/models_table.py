"""Writes docs/models.md, the table of all model configs: `python -m tests.golden.make.models_table`.

Shapes and settings only; no parameter is made.
"""

import pathlib
from collections.abc import Callable

from flax import nnx

from t5x_like import configs
from t5x_like.configurables import CONFIGURABLES
from t5x_like.models.parameters import split

CONFIGS, TABLE = pathlib.Path("configs/models"), pathlib.Path("docs/models.md")
HEAD = """# Models

Every config of `configs/models` that has sizes, made by `python -m tests.golden.make.models_table` from the configs
themselves. The numbers of parameters are those of the released models where the test of published sizes pins them.

| config | parameters | layers | d_model | heads | d_ff | vocabulary | positions | norms | MLP | attention | head |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def model_of(name: str) -> Callable:
    """What `train.model` is in configs/models/NAME.gin."""

    def train(*, model: Callable):
        return model

    table = CONFIGURABLES | {"train": train}
    return configs.resolve(table, [f"models/{name}.gin"], root="train", search_paths=["configs"]).call()


def sized() -> list[str]:
    """The configs that say how large the model is."""
    texts = {path.stem: path.read_text() for path in sorted(CONFIGS.glob("*.gin"))}
    return [name for name, text in texts.items() if ".d_model = " in text]


def row(name: str) -> str:
    make = model_of(name)
    module = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(params=0)))
    count = sum(leaf.size for leaf in split(module).params.values())
    stacks = [value for _, value in nnx.iter_modules(module) if type(value).__name__ == "Stack"]
    main = max(stacks, key=lambda stack: (stack.sizes.d_model, stack.kinds.num_layers))
    layer, sizes = main.layer(main.kinds.num_layers - 1), main.sizes
    cells = [
        name,
        f"{count:,}",
        " + ".join(str(stack.kinds.num_layers) for stack in stacks),
        str(sizes.d_model),
        f"{sizes.num_heads} / {sizes.num_kv_heads}" if sizes.num_heads != sizes.num_kv_heads else str(sizes.num_heads),
        str(layer.mlp.experts.gate.shape[-1] if hasattr(layer.mlp, "experts") else sizes.d_ff),
        f"{module.vocab_size:,}" if hasattr(module, "vocab_size") else "-",
        positions_of(main, layer),
        norms_of(layer),
        mlp_of(layer.mlp),
        attention_of(main) or "-",
        type(head).__name__ if (head := getattr(module, "head", None)) is not None else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def positions_of(stack, layer) -> str:
    entry = getattr(stack.entry, "narrow", stack.entry)
    found = [type(part).__name__ for part in (entry.positions, stack.bias, layer.attention.bias) if part is not None]
    if layer.attention.rotary is not None:
        found.append(f"Rotary {layer.attention.rotary.wavelength:,.0f}")
    return ", ".join(found)


def norms_of(layer) -> str:
    residual = layer.mlp_norm
    norm = getattr(residual, "before", None) or getattr(residual, "after", None) or residual
    place = "" if norm is residual else f", {type(residual).__name__}"
    return f"{type(norm).__name__}{place}"


def mlp_of(mlp) -> str:
    if hasattr(mlp, "experts"):
        return f"{mlp.experts.gate.shape[-3]} experts, {mlp.router.experts_per_token} a token"
    return type(mlp).__name__


def attention_of(stack) -> str:
    """What is said of attention beyond its heads, of the layers' kinds together."""
    layers = [stack.layer(number).attention for number in range(stack.kinds.num_layers)]
    windows = sorted({a.scores.window for a in layers if a.scores.window is not None})
    found = [f"window {window:,}" for window in windows]
    found += ["global layers"] if windows and any(a.scores.window is None for a in layers) else []
    found += [f"softcap {layers[0].scores.softcap:g}"] if layers[0].scores.softcap else []
    found += ["norms of queries and keys"] if layers[0].query_norm is not None else []
    found += ["biases"] if layers[0].query_bias is not None else []
    return ", ".join(found)


def main() -> None:
    TABLE.write_text(HEAD + "\n".join(row(name) for name in sized()) + "\n")
    print(TABLE)


if __name__ == "__main__":
    main()
