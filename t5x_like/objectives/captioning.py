"""CoCa (arXiv:2205.01917, section 3.2): a caption predicted from its image, and told from the others of the batch.

  loss = caption_weight * mean over tokens of cross-entropy + contrastive_weight * CLIP's loss

The weights are open_clip's and the paper's, 2 and 1. For models with `read` (ContrastiveCaptioner). Captions behind
an image prefix (SimVLM, arXiv:2108.10904; PaLI; PaliGemma) need no loss of their own: `CrossEntropy` of an
ImagePrefixDecoder, with weights on the text's targets. The device half only, as in `contrastive`.
"""

import dataclasses

import jax

from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.contrastive import is_example, retrieval, softmax_contrast
from t5x_like.objectives.terms import predict_tokens


@dataclasses.dataclass(frozen=True)
class CaptioningLoss:
    """Terms: "loss" (captions) and "contrast"; held-out metrics: token accuracy, and recall as in `contrastive`."""

    caption_weight: float = 2.0
    contrastive_weight: float = 1.0

    def __post_init__(self):
        if min(self.caption_weight, self.contrastive_weight) < 0:
            raise ValueError(f"{self}: weights are 0 or more; CoCa has 2 and 1")

    def __call__(self, model, batch: Features, dropout_key: jax.Array | None) -> dict[str, Term]:
        read = model.read(batch, dropout_key=dropout_key)
        caption = predict_tokens(model, read.x_BLD, batch)["loss"]
        contrast = softmax_contrast(model.contrast(read.image_BW, read.text_BW), is_example(batch))
        return {
            "loss": Term(self.caption_weight * caption.sum, caption.weight),
            "contrast": Term(self.contrastive_weight * contrast.sum, contrast.weight),
            **read.terms,
        }

    def measure(self, model, batch: Features) -> dict[str, Term]:
        read = model.read(batch)
        logits_BB, real_B = model.contrast(read.image_BW, read.text_BW), is_example(batch)
        contrast = {"contrast_loss": softmax_contrast(logits_BB, real_B), **retrieval(logits_BB, real_B)}
        return predict_tokens(model, read.x_BLD, batch) | contrast
