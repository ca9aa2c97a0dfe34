"""THE table: name in a config -> class or function. A config reaches nothing else; moving a file breaks no config."""

from collections.abc import Callable

import optax

from t5x_like import losses
from t5x_like.data import pipeline, rendering
from t5x_like.models import (
    attention,
    attention_bias,
    attention_kernels,
    blocks,
    decoder,
    encoder_decoder,
    entry,
    heads,
    initializers,
    layer_loops,
    layers,
    positions,
    rotary,
)
from t5x_like.objectives.table import OBJECTIVES
from t5x_like.optimizers import clipping, param_groups, schedules
from t5x_like.partitioning import axis_rules, mesh
from t5x_like.train import loop

CONFIGURABLES: dict[str, Callable] = {
    "train": loop.train,
    # data
    "Pipeline": pipeline.Pipeline,
    "encoder_decoder": rendering.encoder_decoder,
    "decoder_only": rendering.decoder_only,
    # objectives and losses
    **OBJECTIVES,
    "CrossEntropy": losses.CrossEntropy,
    # models and their parts
    "Decoder": decoder.Decoder,
    "EncoderDecoder": encoder_decoder.EncoderDecoder,
    "Attention": attention.Attention,
    "RMSNorm": layers.RMSNorm,
    "LayerNorm": layers.LayerNorm,
    "Mlp": layers.Mlp,
    "GatedMlp": layers.GatedMlp,
    "Embedding": layers.Embedding,
    "Entry": entry.Entry,
    "Block": blocks.Block,
    "ParallelBlock": blocks.ParallelBlock,
    "PreNorm": blocks.PreNorm,
    "PostNorm": blocks.PostNorm,
    "SandwichNorm": blocks.SandwichNorm,
    "NoNorm": blocks.NoNorm,
    "xla": attention_kernels.xla,
    "Rotary": rotary.Rotary,
    "LearnedPositions": positions.LearnedPositions,
    "RelativeBuckets": attention_bias.RelativeBuckets,
    "UntiedHead": heads.UntiedHead,
    "TiedHead": heads.TiedHead,
    "ScaledTiedHead": heads.ScaledTiedHead,
    "normal_init": initializers.normal_init,
    "gpt2_init": initializers.gpt2_init,
    "t5_init": initializers.t5_init,
    "save_everything": layer_loops.save_everything,
    "save_nothing": layer_loops.save_nothing,
    # optimizers and schedules
    "adamw": optax.adamw,
    "adafactor": optax.adafactor,
    "lion": optax.lion,
    "sgd": optax.sgd,
    "clipped": clipping.clipped,
    "AllExcept": param_groups.AllExcept,
    "constant": schedules.constant,
    "warmup_constant": schedules.warmup_constant,
    "warmup_linear": schedules.warmup_linear,
    "warmup_cosine": schedules.warmup_cosine,
    "inverse_square_root": schedules.inverse_square_root,
    "warmup_inverse_square_root": schedules.warmup_inverse_square_root,
    # mesh
    "make_mesh": mesh.make_mesh,
    "AxisRules": axis_rules.AxisRules,
}
