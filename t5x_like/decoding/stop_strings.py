"""Texts that end where one of some strings begins.

A string can be written in tokens in many ways, so the text decides: `cut` is exact. `EndsWith` only saves time: it ends
a row on the device when its tokens end as the tokenizer writes a string, after which `cut` would remove everything.

  stop string "\\n\\n"    tokens ... 5 9 13 13    EndsWith(((13, 13),)) ends the row here
                        text   "a b\\n\\n"        cut: "a b"
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from t5x_like.vocabularies.load import Vocabulary

# stop(new tokens [B, L], how many of L there are) -> bool [B]: the rows that end here
StopFn = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class EndsWith:
    """Ends a row whose new tokens end with one of these sequences of ids."""

    suffixes: tuple[tuple[int, ...], ...] = ()

    def __call__(self, tokens_BL: jax.Array, num_new: jax.Array) -> jax.Array:
        B, L = tokens_BL.shape
        stopped_B = jnp.zeros(B, bool)
        for suffix in self.suffixes:
            n = len(suffix)
            if n <= L:
                last_Bn = jax.lax.dynamic_slice(tokens_BL, (0, jnp.maximum(num_new - n, 0)), (B, n))
                stopped_B |= (num_new >= n) & (last_Bn == jnp.array(suffix)[None]).all(axis=1)
        return stopped_B


def suffixes_of(stop_strings: Sequence[str], vocabulary: Vocabulary) -> EndsWith:
    """How the tokenizer writes the strings; those that it cannot write and read back are left to `cut`."""
    check(stop_strings)
    written = [(string, tuple(vocabulary.encode(string))) for string in stop_strings]
    return EndsWith(tuple(ids for string, ids in written if ids and string in vocabulary.decode(list(ids))))


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first place where one of the strings begins."""
    check(stop_strings)
    places = [text.find(string) for string in stop_strings]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def check(stop_strings: Sequence[str]) -> None:
    if isinstance(stop_strings, str) or not all(stop_strings):
        raise ValueError(f"stop_strings {stop_strings!r}: give a list of strings, none of them empty")
