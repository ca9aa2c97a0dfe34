"""ELECTRA (arXiv:2003.10555, sections 2 and 3; the released code): find the tokens that a small model has replaced.

  text            [CLS] the chef cooked the meal [SEP]
  tokens          [CLS] the chef [MASK] the meal [SEP]      what the generator reads
  generator       draws `ate` from its distribution at the masked place
  discriminator   [CLS] the chef ate the meal [SEP]   ->    0 0 0 1 0 0 0   (drawn the original word: 0)

As in the code: max(1, round(0.15 * length)) places are drawn with replacement (one drawn twice counts twice for the
generator), each is masked with probability 0.85 and else left as it is; the generator's draw by Gumbel noise passes no
gradient; the discriminator judges all tokens, special ones included; and 50 multiplies the mean over tokens, where the
paper has sums. Each example is one text.
"""

import dataclasses

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from t5x_like import losses
from t5x_like.data import choosing, chunking, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.models.stack import sum_terms
from t5x_like.objectives.masked_lm import check_one_side, check_shares
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.terms import predict_tokens


@attrs.frozen(kw_only=True)
class ReplacedToken(SeqioPreprocessor):
    rate: float = 0.15
    masked: float = 0.85
    max_predictions: int | None = None

    def __attrs_post_init__(self):
        check_shares(self.rate, self.masked, 0.0)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        special = context.special
        pieces = chunking.split_documents(documents.features["targets"], context.lengths["targets"] - 2)
        text = ragged.surround(pieces, special.cls_token(), special.separator_token())
        counts = choosing.bert_budget(text.lengths, self.rate, self.max_predictions) * (pieces.lengths > 0)
        drawn = (rng.random(counts.sum()) * np.repeat(pieces.lengths, counts)).astype(np.int64)
        drawn += np.repeat(text.starts + 1, counts)
        tokens = text.values.copy()
        tokens[drawn[rng.random(len(drawn)) < self.masked]] = special.mask_token()
        weights = np.bincount(drawn, minlength=len(tokens))
        return Side.bidirectional(ragged.Ragged(tokens, text.lengths), text.values, weights)

    def check(self, context: Context) -> None:
        check_one_side(context, least=4)


@dataclasses.dataclass(frozen=True)
class ReplacedTokenLoss:
    """mean over masked tokens of the generator's cross-entropy + rtd_weight * mean over tokens of the discriminator's.

    For a `GeneratorDiscriminator`. Terms "loss" (generator) and "replaced"; held-out metrics: of the generator, and the
    discriminator's `replaced_accuracy`, `replaced_share`, `replaced_recall` and `replaced_precision`.
    """

    rtd_weight: float = 50.0

    def __post_init__(self):
        if not self.rtd_weight >= 0:
            raise ValueError(f"rtd_weight {self.rtd_weight} is negative; ELECTRA has 50")

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        keys = (None, None, jax.random.key(0)) if dropout_key is None else jax.random.split(dropout_key, 3)
        x_BLG, generator_terms = model.hidden(batch, dropout_key=keys[0])
        found = predict_tokens(model, x_BLG, batch)["loss"]
        fake, is_fake_BL = replace(model.logits(x_BLG), batch, keys[2])
        logits_BL, terms = model.replaced(fake, dropout_key=keys[1])
        judged = losses.weighted(binary_cross_entropy(logits_BL, is_fake_BL), is_real(batch))
        of_layers = sum_terms([generator_terms, terms])
        return {"loss": found, "replaced": Term(self.rtd_weight * judged.sum, judged.weight), **of_layers}

    def measure(self, model, batch: Features) -> dict[str, Term]:
        x_BLG = model.hidden(batch).x_BLD
        fake, is_fake_BL = replace(model.logits(x_BLG), batch, jax.random.key(0))
        logits_BL = model.replaced(fake).logits_BL
        says_BL, real_BL, fakes_BL = (logits_BL > 0).astype(jnp.float32), is_real(batch), is_fake_BL * is_real(batch)
        return predict_tokens(model, x_BLG, batch) | {
            "replaced_loss": losses.weighted(binary_cross_entropy(logits_BL, is_fake_BL), real_BL),
            "replaced_accuracy": losses.weighted((says_BL == is_fake_BL).astype(jnp.float32), real_BL),
            "replaced_share": losses.weighted(is_fake_BL, real_BL),
            "replaced_recall": losses.weighted(says_BL, fakes_BL),
            "replaced_precision": losses.weighted(is_fake_BL, says_BL * real_BL),
        }


def replace(logits_BLV: jax.Array, batch: Features, key: jax.Array) -> tuple[Features, jax.Array]:
    """What the discriminator reads, and float32 [B, L]: 1 where a drawn token is not the original one."""
    noise_BLV = jax.random.gumbel(key, logits_BLV.shape, jnp.float32)
    drawn_BL = jnp.argmax(jax.lax.stop_gradient(logits_BLV) + noise_BLV, axis=-1).astype(jnp.int32)
    tokens_BL = jnp.where(batch.loss_weights > 0, drawn_BL, batch.tokens)
    is_fake_BL = (batch.loss_weights > 0) & (drawn_BL != batch.targets)
    return batch._replace(tokens=tokens_BL), is_fake_BL.astype(jnp.float32)


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jax.nn.softplus(logits) - labels * logits


def is_real(batch: Features) -> jax.Array:
    return (batch.segment_ids > 0).astype(jnp.float32)
