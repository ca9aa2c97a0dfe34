"""CONPONO (arXiv:2005.10389, section 3): which text of the batch stands k texts further on, or before?

  document   T1 T2 T3 T4 T5       each encoded by itself: [CLS] T [SEP], with a few tokens hidden
  anchor T3  at -2: T1   at -1: T2   at +1: T4   at +2: T5      chosen among all texts of the batch

A document is cut into texts of whole sentences, `text_length` tokens at most, and an example is a window of them, side
by side in a row but out of each other's sight. Each is an anchor, and the choice is a softmax of [CLS] W_k [CLS]' over
the texts of the whole batch: its neighbours at other distances and texts of other documents. (The released code draws
32 candidates for each anchor; here all are the batch's.) The loss is the mean over anchors and distances, beside that
of masked tokens, at a tenth.
"""

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from t5x_like.data import pairing, ragged
from t5x_like.data.examples import Context, Side
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.features import Features
from t5x_like.losses import Term
from t5x_like.objectives.masked_lm import MaskedLM, check_one_side
from t5x_like.objectives.next_sentence import as_mask, check_mask
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor
from t5x_like.objectives.terms import aux_of, head_of


def _a_tenth() -> MaskedLM:
    return MaskedLM(rate=0.1)


@attrs.frozen(kw_only=True)
class DocumentCoherence(SeqioPreprocessor):
    """texts_per_example   how many texts stand side by side; a row has room for them at `text_length`"""

    mask: MaskedLM = attrs.field(factory=_a_tenth, converter=as_mask)
    sentence_ends: tuple[int, ...] = attrs.field(default=(), converter=tuple)
    texts_per_example: int = 8

    def __attrs_post_init__(self):
        check_mask(self.mask)
        if self.texts_per_example < 2:
            raise ValueError(f"texts_per_example {self.texts_per_example}: a text needs another one to be told from")

    def text_length(self, context: Context) -> int:
        """Tokens of a text without [CLS] and [SEP], so that the texts of an example fit the row."""
        return context.lengths["targets"] // self.texts_per_example - 2

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Side:
        text, special = documents.features["targets"], context.special
        lengths, document = self.cut(text, context)
        framed = ragged.surround(Ragged(text.values, lengths), special.cls_token(), special.separator_token())
        number = ragged.index_within(np.bincount(document, minlength=len(text.lengths)))
        part = number % self.texts_per_example
        window = np.cumsum(part == 0) - 1
        inside = np.ones(len(framed.values), bool)
        inside[framed.starts] = inside[framed.starts + framed.lengths - 1] = False
        begins = context.begins_word()[framed.values] if self.mask.units == "words" else None
        side = self.mask.hide(rng, framed, inside, begins, context)
        examples = np.bincount(window, framed.lengths).astype(np.int64)
        starts = np.cumsum(examples) - examples
        back, place = np.zeros((2, len(framed.values)), np.int32)
        back[framed.starts] = framed.starts - starts[window]
        place[framed.starts] = part + 1
        return side._replace(
            lengths=examples,
            positions=ragged.index_within(framed.lengths).astype(np.int32)[:, None],
            parts=np.repeat(part, framed.lengths).astype(np.int32),
            aux={"text_place": place, "text_back": back},
        )

    def cut(self, text: Ragged, context: Context) -> tuple[np.ndarray, np.ndarray]:
        """(tokens of each text, its document): whole sentences gathered while they fit, longer ones cut."""
        room = self.text_length(context)
        sentences = pairing.find_sentences(text, np.array(self.sentence_ends, np.int64))
        document = np.repeat(np.arange(len(text.lengths)), sentences.last_of - sentences.first_of)
        pieces, document = pairing.cut_sentences(sentences.lengths, document, room)
        ends = pairing.group_sentences(pieces, document, room)
        return np.diff(np.concatenate([[0], np.cumsum(pieces)])[ends], prepend=0), document[ends - 1]

    def check(self, context: Context) -> None:
        check_one_side(context, least=4)
        self.mask.check(context)
        if self.text_length(context) < 4:
            raise ValueError(
                f"lengths {context.lengths} leave {self.text_length(context)} tokens for each of "
                f"{self.texts_per_example} texts: make rows longer or texts_per_example smaller"
            )


def find_neighbours(model, x_BLD: jax.Array, batch: Features, *, texts_per_row: int = 16) -> dict[str, Term]:
    """The text at each distance from each text, by the head "distance" with a matrix for -k ... -1, 1 ... k.

    texts_per_row   most texts of a row that take part; packing may put more of them there
    """
    place_BL, back_BL = aux_of(batch, "text_place"), aux_of(batch, "text_back")
    found_BS, spot_BS = jax.lax.top_k((place_BL > 0).astype(jnp.int32), min(texts_per_row, place_BL.shape[1]))
    x_BSD = jnp.take_along_axis(x_BLD, spot_BS[..., None], axis=1)
    row_BS = jnp.arange(len(place_BL))[:, None] * place_BL.shape[1]
    example_N = (row_BS + spot_BS - jnp.take_along_axis(back_BL, spot_BS, axis=1)).ravel()
    number_N = jnp.take_along_axis(place_BL, spot_BS, axis=1).ravel()
    real_N = found_BS.ravel() > 0
    x_ND = x_BSD.reshape(-1, x_BLD.shape[-1])
    logits_KNN = head_of(model, "distance", "BilinearHead")(x_ND, x_ND)
    others_NN = real_N[None] & ~jnp.eye(len(real_N), dtype=bool)
    logits_KNN = jnp.where(others_NN[None], logits_KNN, -1e30)
    reach = len(logits_KNN) // 2
    distances = jnp.array([*range(-reach, 0), *range(1, reach + 1)])
    is_target_NN = (example_N[:, None] == example_N[None]) & real_N[:, None] & others_NN
    distance_NN = number_N[None] - number_N[:, None]
    target_KNN = is_target_NN[None] & (distance_NN[None] == distances[:, None, None])
    weights_KN = target_KNN.any(axis=-1).astype(jnp.float32)
    loss_KN = jax.nn.logsumexp(logits_KNN, axis=-1) - jnp.where(target_KNN, logits_KNN, 0.0).sum(axis=-1)
    best_KN = jnp.take_along_axis(target_KNN, jnp.argmax(logits_KNN, axis=-1)[..., None], axis=-1)[..., 0]
    return {
        "loss": Term(jnp.where(weights_KN > 0, loss_KN, 0.0).sum(), weights_KN.sum()),
        "recall": Term((best_KN * weights_KN).sum(), weights_KN.sum()),
    }
