"""T5 1.0, T5 1.1 (mT5, ByT5, UL2 are built like it) and umT5, whose every layer has relative positions of its own."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from t5x_like.models.hugging_face.family import Family, require
from t5x_like.models.hugging_face.rules import Rule, keep, linear, transposed
from t5x_like.models.layers import name_of_activation


def attention(ours: str, theirs: str) -> tuple[Rule, ...]:
    return (
        linear(f"{ours}/query", f"{theirs}.q.weight"),
        linear(f"{ours}/key", f"{theirs}.k.weight"),
        linear(f"{ours}/value", f"{theirs}.v.weight"),
        linear(f"{ours}/out", f"{theirs}.o.weight", num_inputs=2),
    )


def side(name: str, mlp: int, *, bias_in_every_layer: bool) -> tuple[Rule, ...]:
    """The rules of a stack; its MLP is part `mlp` of a block."""
    ours, theirs = f"{name}/layers/{{}}", f"{name}.block.{{}}.layer"
    own = f"{theirs}.0.SelfAttention"
    bias = (f"{ours}/attention/bias/table", own) if bias_in_every_layer else (f"{name}/bias/table", own.format(0))
    return (
        *attention(f"{ours}/attention", own),
        transposed(bias[0], f"{bias[1]}.relative_attention_bias.weight"),
        keep(f"{ours}/attention_norm/before/scale", f"{theirs}.0.layer_norm.weight"),
        linear(f"{ours}/mlp/gate", f"{theirs}.{mlp}.DenseReluDense.wi_0.weight"),
        linear(f"{ours}/mlp/up", f"{theirs}.{mlp}.DenseReluDense.wi_1.weight"),
        linear(f"{ours}/mlp/down", f"{theirs}.{mlp}.DenseReluDense.wo.weight"),
        keep(f"{ours}/mlp_norm/before/scale", f"{theirs}.{mlp}.layer_norm.weight"),
        keep(f"{name}/final_norm/scale", f"{name}.final_layer_norm.weight"),
    )


def rules(*, bias_in_every_layer: bool = False) -> tuple[Rule, ...]:
    return (
        keep("embedding/table", "shared.weight"),
        *side("encoder", 1, bias_in_every_layer=bias_in_every_layer),
        *side("decoder", 2, bias_in_every_layer=bias_in_every_layer),
        *attention("decoder/layers/{}/cross_attention", "decoder.block.{}.layer.1.EncDecAttention"),
        keep("decoder/layers/{}/cross_attention_norm/before/scale", "decoder.block.{}.layer.1.layer_norm.weight"),
        linear("head/kernel", "lm_head.weight"),
    )


# T5 1.0 has one matrix into its MLP.
ONE_MATRIX = tuple(
    rule._replace(theirs=(rule.theirs[0].replace("wi_0", "wi"),), ours=(rule.ours[0].replace("gate", "up"),))
    for rule in rules()
    if "wi_1" not in rule.theirs[0]
)
GATED = {"gated-gelu": "gelu_tanh", "gated-silu": "silu"}
TIED = (r"(en|de)coder\.embed_tokens\.weight",)


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "EncoderDecoder.vocab_size": config["vocab_size"],
        "EncoderDecoder.num_encoder_layers": config["num_layers"],
        "EncoderDecoder.num_decoder_layers": config.get("num_decoder_layers") or config["num_layers"],
        "EncoderDecoder.d_model": config["d_model"],
        "EncoderDecoder.num_heads": config["num_heads"],
        "EncoderDecoder.head_dim": config["d_kv"],
        "EncoderDecoder.d_ff": config["d_ff"],
        "RMSNorm.epsilon": config.get("layer_norm_epsilon", 1e-6),
        "RelativeBuckets.num_buckets": config.get("relative_attention_num_buckets", 32),
        "RelativeBuckets.max_distance": config.get("relative_attention_max_distance", 128),
    }


def bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of all with a gated MLP."""
    mlp = config.get("feed_forward_proj", "relu")
    if mlp not in GATED:
        raise ValueError(
            f"config.json says feed_forward_proj {mlp!r}; with 'relu' it is T5 1.0, family t5_1_0, and this family has "
            f"{' or '.join(GATED)}"
        )
    # transformers 5 writes tie_word_embeddings true for all, and keeps what it was in scale_decoder_outputs.
    is_tied = config.get("tie_word_embeddings", True) and config.get("scale_decoder_outputs", True)
    head = "@ScaledTiedHead" if is_tied else "@UntiedHead"
    return sizes(config) | {"EncoderDecoder.head": head, "GatedMlp.activation": GATED[mlp]}


def untied_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of mT5, whose head was never tied."""
    return bindings({**config, "tie_word_embeddings": False})


def first_bindings(config: Mapping[str, Any]) -> dict[str, Any]:
    require(config, "feed_forward_proj", "relu")
    require(config, "tie_word_embeddings", True)
    return sizes(config)


def mlp_of(mlp: nnx.Module) -> str:
    ours = name_of_activation(mlp.activation)
    return next((theirs for theirs, name in GATED.items() if name == ours and hasattr(mlp, "gate")), ours)


def config_of(model: nnx.Module) -> dict[str, Any]:
    sizes, decoder = model.encoder.sizes, model.decoder
    bias = model.encoder.bias or model.encoder.layer(0).attention.bias
    is_tied = type(model.head).__name__ != "UntiedHead"
    return {
        "vocab_size": model.vocab_size,
        "num_layers": model.encoder.kinds.num_layers,
        "num_decoder_layers": decoder.kinds.num_layers,
        "d_model": sizes.d_model,
        "num_heads": sizes.num_heads,
        "d_kv": sizes.head_dim,
        "d_ff": sizes.d_ff,
        "layer_norm_epsilon": decoder.final_norm.epsilon,
        "relative_attention_num_buckets": bias.num_buckets,
        "relative_attention_max_distance": bias.max_distance,
        "feed_forward_proj": mlp_of(decoder.layer(0).mlp),
        "tie_word_embeddings": is_tied,
        "scale_decoder_outputs": is_tied,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


T5_1_1 = Family("t5", "T5ForConditionalGeneration", "models/t5_1_1.gin", bindings, config_of, rules(), TIED)
UL2 = T5_1_1  # with SwiGLU
T5_1_0 = T5_1_1._replace(
    include="models/t5_1_0.gin",
    bindings=first_bindings,
    rules=ONE_MATRIX,
)
MT5 = T5_1_1._replace(model_type="mt5", architecture="MT5ForConditionalGeneration", bindings=untied_bindings)
UMT5 = T5_1_1._replace(
    model_type="umt5",
    architecture="UMT5ForConditionalGeneration",
    include="models/umt5.gin",
    rules=rules(bias_in_every_layer=True),
)
