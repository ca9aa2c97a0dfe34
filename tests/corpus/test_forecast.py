"""A sample draws by what stands in a document alone, and forecasts memory by what is held and not by what is mapped."""

import collections
import random

import numpy as np
import pytest

from t5x_like.corpus import forecast, run, tally
from tests.corpus.test_minhash import text


class Damaged:
    """200 documents, two that cannot be read, and damage."""

    def records(self, path, counts):
        rng = random.Random(0)
        for number in range(200):
            yield {"text": " ".join(text(rng, 12))}
            if number % 100 == 50:
                yield "bad_json"
        raise EOFError("cut off")


def test_what_stands_before_damage_is_drawn_from_and_no_reason_is_lost():
    found, sample = [], forecast.Sampled(Damaged(), 0.3)
    with pytest.raises(EOFError):
        for item in sample.records("x", collections.Counter()):
            found.append(item)
    documents = [item["text"] for item in found if item != "bad_json"]
    assert found.count("bad_json") == 2 and 35 < len(documents) < 85
    assert forecast.are_drawn(documents, 0.3).all()


def test_a_document_is_drawn_whatever_stands_beside_it_and_of_more_are_drawn_the_same():
    rng = random.Random(1)
    texts = [" ".join(text(rng, size)) for size in (0, 1, 3, 40, 400) * 40]
    together = forecast.are_drawn(texts, 0.4)
    np.testing.assert_array_equal(together, [forecast.are_drawn([one], 0.4)[0] for one in texts])
    assert (forecast.are_drawn(texts, 0.6) >= together).all() and 0.2 < together[np.arange(200) % 5 > 2].mean() < 0.6
    assert not len(forecast.are_drawn([], 0.4))


def test_memory_grows_by_the_keys_of_a_piece_at_most_and_by_documents():
    told = tally.Tally()
    told.funnel[tally.READ]["web, en"] = [1_000, 10**6, 10**6]
    few, many, more = (forecast.of_whole(told, 0.01, size)["peak bytes"] for size in (0, 10**5, 10**9))
    assert 0 <= many - few - 2 * (10**7 - 10**5) < 10**6  # what the process itself grew by meanwhile
    assert more - few < 10**6 < 2 * run.KEY_BYTES
    assert forecast.of_whole(tally.Tally(), 0.5, 0)["documents"] == 0
