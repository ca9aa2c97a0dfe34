import jax
import jax.numpy as jnp
import pytest

from t5x_like.decoding.sampling import greedy
from t5x_like.decoding.stop_strings import EndsWith, cut, suffixes_of
from t5x_like.vocabularies import load
from tests.decoding.test_generate import NEW, PAD, PROMPTS, decoder, rows, run
from tests.decoding.test_texts import text_model


def test_a_text_is_cut_where_the_first_stop_string_begins():
    assert cut("one. two! three", ["!", "."]) == "one"
    assert cut("one. two! three", ["three", "wo"]) == "one. t"
    assert cut("one", ["two"]) == "one" == cut("one", [])


def test_a_row_ends_when_its_tokens_end_with_a_suffix():
    tokens = jnp.array([[5, 6, 7, 0], [5, 7, 6, 0], [7, 7, 7, 0]])
    stop = EndsWith(((6, 7), (7, 7, 7), (1, 2, 3, 4, 5)))
    assert jax.jit(stop)(tokens, jnp.int32(3)).tolist() == [True, False, True]
    assert jax.jit(stop)(tokens, jnp.int32(2)).tolist() == [False, False, False]
    assert EndsWith()(tokens, jnp.int32(3)).tolist() == [False] * 3


def test_generation_stops_after_the_suffix_and_pads():
    free = run(decoder, rows(PROMPTS), eos_id=-1)
    suffix = tuple(free[0, 1:3].tolist())
    found = run(decoder, rows(PROMPTS), eos_id=-1, stop=jax.tree_util.Partial(EndsWith((suffix,))))
    for stopped, whole in zip(found.tolist(), free.tolist(), strict=True):
        ends = [n for n in range(2, NEW + 1) if tuple(whole[n - 2 : n]) == suffix]
        n = ends[0] if ends else NEW
        assert stopped == whole[:n] + [PAD] * (NEW - n)
    assert found[0, 3:].tolist() == [PAD] * (NEW - 3)


def test_a_row_has_at_most_as_many_tokens_as_its_limit():
    free = run(decoder, rows(PROMPTS), eos_id=-1)
    limits = [3, 0, NEW, 1]
    found = run(decoder, rows(PROMPTS), eos_id=-1, limits=jnp.array(limits))
    for limited, whole, n in zip(found.tolist(), free.tolist(), limits, strict=True):
        assert limited == whole[:n] + [PAD] * (NEW - n)


def test_stop_strings_cut_what_is_generated_without_changing_what_stands_before():
    settings = {"max_new_tokens": 8, "sample": greedy, "seed": 0}
    model = text_model("InText")
    free = list(model.generate(["one", "two"], **settings))
    stop = next(c for c in free[0] if free[0].index(c) > 0)
    found = list(model.generate(["one", "two"], stop_at=[stop], **settings))
    assert found == [cut(text, [stop]) for text in free]
    assert found[0] and found[0] != free[0]


def test_only_strings_that_the_vocabulary_reads_back_stop_on_the_device():
    vocabulary = load.open_vocabulary(load.describe("byte", None, extra_ids=10), None)
    assert suffixes_of(["ab"], vocabulary).suffixes == (tuple(vocabulary.encode("ab")),)


@pytest.mark.parametrize("wrong", [[""], "ab", ["a", ""]])
def test_stop_strings_that_are_empty_or_no_list_are_refused(wrong):
    with pytest.raises(ValueError, match="give a list of strings"):
        cut("text", wrong)
