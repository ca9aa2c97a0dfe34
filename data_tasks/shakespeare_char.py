"""Character-level language modelling of one text, as nanoGPT does with Shakespeare: the first 90 % to train.

Text: https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt (1,115,394 characters,
65 different ones). Tokenizer: kind "char" of `t5x_like tokenizer`, one id per character.
"""

import functools

import seqio

from t5x_like.objectives.causal_lm import CausalLM
from t5x_like.tasks import held_out, readers, sources, vocabularies

HELD_OUT_FRACTION = 0.1


def register(*, path: str, tokenizer: str, name: str = "shakespeare_char") -> None:
    """`documents="concatenated"`: windows at any place of one stream, as nanoGPT samples them."""
    seqio.TaskRegistry.add(
        name,
        source=sources.Corpus(readers.TextFiles([path]), hold_out=held_out.Tail(HELD_OUT_FRACTION)),
        preprocessors=[
            functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            CausalLM(documents="concatenated"),
        ],
        output_features={"targets": seqio.Feature(vocabularies.seqio_vocabulary(tokenizer, extra_ids=0))},
    )
