"""Fill in the middle (arXiv:2207.14255, section 3): a text is cut in three, and its middle comes last.

  text   def f(x): return x + 1
  PSM    <pre> def f(x) <suf> x + 1 <mid> : return </s>          prefix, suffix, middle
  SPM    <pre> <suf> x + 1 <mid> def f(x): return </s>           the middle goes on from the prefix

Both cuts are uniform over the places between characters, so that any part may be empty and a word may be cut: the text
is decoded, cut, and each part encoded anew. All tokens are predicted, as in any causal model. It happens to each
document by itself behind the cut into rows (the paper's context-level form), so that none is moved across a border.

documents   isolated: each piece of a document is a context of its own. concatenated: windows of one stream, in which
            every text between two EOS is rearranged; a window keeps its length, and so loses the tail of what its
            texts have grown (Megatron-LM's released code)

  recipe                               rate   spm_share
  arXiv:2207.14255                     0.5 - 0.9   0.5
  StarCoder (arXiv:2305.06161)         0.5    0.5
  Code Llama (arXiv:2308.12950)        0.9    0.5

A piece stays as it is when its tokens are not those of its text (it was cut inside a character), or when its parts have
become longer than its row. The vocabulary needs <mark:fim_prefix>, <mark:fim_suffix> and <mark:fim_middle>.
"""

from typing import Literal

import attrs
import numpy as np

from t5x_like.data import chunking, ragged
from t5x_like.data.examples import Context, Examples
from t5x_like.data.ragged import Documents, Ragged
from t5x_like.objectives.next_sentence import check_share
from t5x_like.objectives.seqio_preprocessor import SeqioPreprocessor

MARKERS = ("fim_prefix", "fim_suffix", "fim_middle")
ROOM = 10  # of a row: three markers, EOS, and what the parts have more tokens than the whole


@attrs.frozen(kw_only=True)
class FillInTheMiddle(SeqioPreprocessor):
    """rate: of the texts that are cut; spm_share: of those, how many are in the second form."""

    rate: float = 0.5
    spm_share: float = 0.5
    documents: Literal["isolated", "concatenated"] = "isolated"

    def __attrs_post_init__(self):
        if self.documents not in _CONTEXTS:
            raise ValueError(f"documents {self.documents!r}: choose one of {sorted(_CONTEXTS)}")
        check_share("rate", self.rate)
        check_share("spm_share", self.spm_share)

    def examples(self, rng: np.random.Generator, documents: Documents, context: Context) -> Examples:
        text = ragged.append(documents.features["targets"], context.special.eos, where=documents.ends)
        return _CONTEXTS[self.documents](self, rng, text, context)

    def rearranged(self, rng, texts: Ragged, is_first: np.ndarray, context: Context, room: float) -> Ragged:
        """The texts, some of them with their middle last; none of these is longer than `room`."""
        chosen = rng.random(len(texts.lengths)) < self.rate
        is_spm = rng.random(len(texts.lengths)) < self.spm_share
        cuts = np.sort(rng.random((len(texts.lengths), 2)), axis=1)
        made = ragged.to_list(texts)
        for i in np.flatnonzero(chosen).tolist():
            new = rearrange(made[i], cuts[i], is_spm[i], is_first[i], context)
            made[i] = new if len(new) <= room else made[i]
        return ragged.from_list(made)

    def check(self, context: Context) -> None:
        if "inputs" in context.lengths or context.lengths["targets"] < 2 * ROOM:
            raise ValueError(f"lengths {context.lengths}: give targets alone, of at least {2 * ROOM}")
        for name in MARKERS:
            context.special.marker(name)


def rearrange(tokens: np.ndarray, cuts: np.ndarray, is_spm: bool, is_first: bool, context: Context) -> np.ndarray:
    """A piece with its middle last. `cuts` are two places in order, as shares of its characters, in [0, 1)."""
    vocabulary, special = context.vocabulary, context.special
    ends = len(tokens) > 0 and tokens[-1] == special.eos
    body = (tokens[:-1] if ends else tokens).tolist()
    encode_first = vocabulary.encode if is_first else vocabulary.encode_inside
    text = vocabulary.decode(body) if is_first else vocabulary.decode_inside(body)
    if encode_first(text) != body:
        return tokens
    low, high = (cuts * (len(text) + 1)).astype(int).tolist()
    pre, suf, mid = (special.marker(name) for name in MARKERS)
    suffix = vocabulary.encode_inside(text[high:])
    if is_spm:
        parts = [pre, suf, *suffix, mid, *encode_first(text[:low]), *vocabulary.encode_inside(text[low:high])]
    else:
        parts = [pre, *encode_first(text[:low]), suf, *suffix, mid, *vocabulary.encode_inside(text[low:high])]
    parts += [special.eos] if ends else []
    return np.array(parts, np.int32)


def _isolated(objective: FillInTheMiddle, rng, text: Ragged, context: Context) -> Examples:
    room = context.lengths["targets"]
    pieces = chunking.split_documents(text, room - ROOM)
    made = objective.rearranged(rng, pieces, np.isin(pieces.starts, text.starts), context, room)
    return Examples(None, made, np.full(len(made.lengths), context.special.pad, np.int32))


def _concatenated(objective: FillInTheMiddle, rng, text: Ragged, context: Context) -> Examples:
    length, eos = context.lengths["targets"], context.special.eos
    before, windows = chunking.windows(text.values, length)
    is_end = windows.values == eos
    is_end[windows.starts + windows.lengths - 1] = True
    stops = np.flatnonzero(is_end) + 1
    texts = Ragged(windows.values, np.diff(stops, prepend=0))
    is_first = np.append(before[:1], windows.values)[texts.starts] == eos  # what stands before each in the stream
    made = objective.rearranged(rng, texts, is_first, context, np.inf)
    window = np.repeat(np.arange(len(windows.lengths)), windows.lengths)[stops - 1]
    sizes = np.bincount(window, made.lengths, len(windows.lengths)).astype(np.int64)
    return Examples(None, ragged.truncate(Ragged(made.values, sizes), length), before)


_CONTEXTS = {"isolated": _isolated, "concatenated": _concatenated}
