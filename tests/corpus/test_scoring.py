"""Models that are trained in the pipeline, what they say of texts, and what goes by it."""

import base64
import importlib.util
import json
import pathlib
import random
import zlib

import numpy as np
import pytest

from t5x_like.corpus import learning
from t5x_like.corpus.curate import curate
from t5x_like.corpus.documents import batch_of, column, scores_of, with_scores
from t5x_like.corpus.exact_duplicates import ExactDuplicates
from t5x_like.corpus.kenlm_file import KenlmFile
from t5x_like.corpus.linear_model import TrainFromWordList, TrainLinear, area_under_curve, features_of, fit
from t5x_like.corpus.perplexity import ArpaFile, NgramFolder, TrainNgrams, normalize
from t5x_like.corpus.scoring import Buckets, KeepBetween, KeepPercentiles, Score
from t5x_like.corpus.sources import Source
from t5x_like.corpus.word_lists import WordList
from t5x_like.tasks.readers import TextFiles

PROSE = "the old farmer walked slowly to a small town near the river and sold his milk at the market"
NOISE = "buy cheap now click here free offer discount win prize limited sale order today best price"


def prose(seed, words=PROSE):
    """Sentences whose words follow one another as they do in the list, more often than not."""
    rng, words = random.Random(seed), words.split()
    lines = []
    for _ in range(rng.randrange(3, 7)):
        place, line = rng.randrange(len(words)), []
        for _ in range(rng.randrange(6, 14)):
            line.append(words[place])
            place = (place + 1) % len(words) if rng.random() < 0.8 else rng.randrange(len(words))
        lines.append(" ".join(line) + ".")
    return "\n".join(lines)


def shuffled(text, seed):
    return "\n".join(" ".join(random.Random(seed).sample(line.split(), len(line.split()))) for line in text.split("\n"))


def reader(path, texts):
    path.write_text("\n\n".join(texts))
    return TextFiles([str(path)], per="paragraph")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    good = reader(folder / "good.txt", [prose(seed) for seed in range(300)])
    ordinary = reader(folder / "ordinary.txt", [prose(seed, NOISE) for seed in range(300)])
    ngrams, about = learning.fit(TrainNgrams(reference=good, vocab_size=280), folder / "ngrams")
    linear, card = learning.fit(TrainLinear(good=good, ordinary=ordinary, bits=12), folder / "linear")
    return {"ngrams": ngrams, "about": about, "linear": linear, "card": card, "good": good}


def test_text_whose_words_were_shuffled_surprises_more(models):
    texts = [prose(seed) for seed in range(1000, 1050)]
    as_it_is, mixed = (models["ngrams"].scores(some) for some in (texts, [shuffled(t, 1) for t in texts]))
    assert (as_it_is < mixed).mean() > 0.95
    assert (models["ngrams"].scores([prose(s, NOISE) for s in range(20)]) > as_it_is.max()).all()
    assert models["about"]["texts"] == 300 and models["about"]["ngrams"][0] == 283
    assert np.isnan(models["ngrams"].scores(["\n \n"])).all() and len(models["ngrams"].scores([])) == 0


def test_perplexity_is_of_all_lines_together_and_of_what_is_compared():
    assert normalize("  Élan “42”… 。") == 'elan "00"... .'


def test_perplexity_of_an_arpa_file_by_hand(tmp_path):
    path = tmp_path / "words.arpa"
    rows = ["-0.5\t<unk>", "0\t<s>", "-1\t</s>", "-0.25\tyes"]
    path.write_text("\\data\\\n\n\\1-grams:\n" + "\n".join(rows) + "\n\n\\end\\\n")
    found = ArpaFile(path=str(path)).scores(["Yes yes\n\nno", "yes"])
    np.testing.assert_allclose(found, [10 ** ((0.25 * 2 + 1 + 0.5 + 1) / 5), 10 ** (1.25 / 2)], rtol=1e-6)
    with pytest.raises(FileNotFoundError, match="no such file; an ARPA file"):
        ArpaFile(path="none.arpa")
    with pytest.raises(FileNotFoundError, match="holds no n-gram model"):
        NgramFolder(folder="none")


def test_an_arpa_file_gives_the_perplexities_of_kenlm(tmp_path):
    told = json.loads(pathlib.Path("tests/golden/kenlm_scores.json").read_text(encoding="utf-8"))
    (tmp_path / "model.arpa").write_text(told["arpa"], encoding="utf-8")
    found = ArpaFile(path=str(tmp_path / "model.arpa")).scores(list(told["log10"]))
    expected = [10 ** (-log10 / (len(text.split()) + 1)) for text, log10 in told["log10"].items()]
    np.testing.assert_allclose(found, expected, rtol=2e-6)
    assert any("dog" in text for text in told["log10"]) and "dog" not in told["arpa"]  # a word that it does not know


def test_kenlms_binary_files_are_told_from_others(tmp_path):
    """`python -m tests.golden.make.kenlm_scores`, where kenlm is installed, compares its reading with those scores."""
    (tmp_path / "model.arpa").write_text("\\data\\\n")
    with pytest.raises(ValueError, match="is no binary file of KenLM: an ARPA file is read by ArpaFile"):
        KenlmFile(path=str(tmp_path / "model.arpa"))
    with pytest.raises(FileNotFoundError, match="no such file; a KenLM file"):
        KenlmFile(path="none.bin")
    binary = tmp_path / "model.bin"
    binary.write_bytes(zlib.decompress(base64.b64decode(pathlib.Path("tests/golden/kenlm_trie.b64").read_text())))
    with pytest.raises(ValueError, match=r"is no ARPA file: .*a binary file of KenLM: KenlmFile"):
        ArpaFile(path=str(binary)).scores(["yes"])
    if importlib.util.find_spec("kenlm") is None:
        with pytest.raises(ModuleNotFoundError, match=r"pip install 't5x_like\[kenlm\]'"):
            KenlmFile(path=str(binary)).scores(["yes"])


def test_the_linear_model_tells_kinds_apart_that_it_did_not_learn_from(models):
    scores = models["linear"].scores([prose(9001), prose(9002, NOISE), ""])
    assert scores[0] > 0.9 and scores[1] < 0.1 and 0.3 < scores[2] < 0.7
    assert models["card"]["AUC"] > 0.99 and models["card"]["texts"] == [300, 300]
    assert 30 <= models["card"]["held out"] <= 90


def test_the_fit_is_the_minimum_whatever_the_order_and_the_share_of_kinds():
    texts = [prose(seed) for seed in range(60)] + [prose(seed, NOISE) for seed in range(20)]
    labels = np.arange(80) < 60
    features = features_of(texts, 10)
    weights = fit(features, labels, 1e-3)
    order = np.random.default_rng(0).permutation(80)
    np.testing.assert_allclose(fit(features[order], labels[order], 1e-3), weights, atol=2e-4)
    twice = np.concatenate([np.arange(80), np.arange(60)])
    np.testing.assert_allclose(fit(features[twice], labels[twice], 1e-3), weights, atol=2e-4)
    # At the minimum the slope is nought: what the texts pull is what the penalty holds.
    p = 1 / (1 + np.exp(-(features @ weights[:-1] + weights[-1])))
    pull = np.where(labels, (1 - p) * 0.5 / 60, -p * 0.5 / 20)
    np.testing.assert_allclose(features.T @ pull, 1e-3 * weights[:-1], atol=1e-6)


def test_the_area_under_the_curve_counts_pairs():
    values, labels = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
    assert area_under_curve(values, labels) == (1 + 0.5 + 1 + 1) / 4


def test_a_model_from_a_word_list_finds_texts_that_have_none_of_the_words(tmp_path):
    (tmp_path / "words.txt").write_text("darn\n")
    bad = [prose(seed, NOISE) + "\nwhat a darn thing." for seed in range(200)]
    examples = reader(tmp_path / "examples.txt", [*bad, *(prose(seed) for seed in range(200))])
    words = WordList(paths={"en": str(tmp_path / "words.txt")})
    model, card = learning.fit(TrainFromWordList(words=words, examples=examples, bits=12), tmp_path / "model")
    scores = model.scores([prose(501, NOISE), prose(502)])
    assert scores[0] > 0.9 and scores[1] < 0.1 and card["texts"] == [200, 200]
    alone = model.scores(["darn"])
    np.testing.assert_allclose(alone, model.scores([""]), atol=0.02)  # the word itself was taken out, and tells nothing
    with pytest.raises(ValueError, match="the word lists are of"):
        TrainFromWordList(words=words, examples=examples, language="de")


def test_too_little_to_learn_from_is_said_and_nothing_is_left(tmp_path):
    few = reader(tmp_path / "few.txt", ["one text", "another text"])
    with pytest.raises(ValueError, match="texts of the kind to learn from: give more"):
        learning.fit(TrainLinear(good=few, ordinary=few), tmp_path / "model")
    assert not (tmp_path / "model").exists() and not list(tmp_path.glob("*.tmp"))


def scored(values, **columns):
    rows = [{"file": 0, "row": i, "text": f"t{i}"} for i in range(len(values))]
    for name, told in columns.items():
        for row, value in zip(rows, told, strict=True):
            row[name] = value
    return with_scores(batch_of(rows), "s", np.array(values, np.float64))


def test_scores_stand_beside_one_another_and_a_document_may_have_none():
    batch = with_scores(scored([0.5, np.nan, 2.0]), "r", np.array([np.nan, 1.0, 3.0]))
    np.testing.assert_array_equal(scores_of(batch, "s"), [0.5, np.nan, 2.0])
    np.testing.assert_array_equal(scores_of(batch, "r"), [np.nan, 1.0, 3.0])
    assert np.isnan(scores_of(batch, "t")).all()


def test_only_documents_of_the_language_are_measured_and_quality_follows(models):
    rows = [{"text": prose(i), "row": i, "file": 0, "language": code} for i, code in enumerate(["en", "de", "en"])]
    batch = Score(model=models["linear"], name="good", language="en", quality="higher")(batch_of(rows))
    found = scores_of(batch, "good")
    assert np.isnan(found[1]) and (found[[0, 2]] > 0.9).all()
    np.testing.assert_allclose(column(batch, "quality"), [found[0], 0.0, found[2]], rtol=1e-6)
    lower = Score(model=models["linear"], name="good", quality="lower")(batch_of(rows))
    assert column(lower, "quality")[0] == -found[0]


def test_between_keeps_limits_and_documents_without_the_score():
    dropped = column(KeepBetween(score="s", low=1, high=2)(scored([0.5, 1.0, 2.0, 2.5, np.nan])), "reason")
    assert dropped == ["s below 1", None, None, "s above 2", None]


def test_percentiles_are_of_each_language():
    values = [*range(10), *range(100, 110), np.nan]
    batch = scored(values, language=["en"] * 10 + ["zh"] * 10 + ["en"])
    step = KeepPercentiles(score="s", low=20, high=90)
    chosen, *_ = step.choose(step.keys(batch))
    rest = column(step.take_away(batch, chosen), "reason")
    kept = [value for value, reason in zip(values, rest, strict=True) if reason is None]
    assert kept[:-1] == [*range(2, 9), *range(102, 109)] and np.isnan(kept[-1])
    everywhere = KeepPercentiles(score="s", high=50, per="")
    assert set(everywhere.choose(everywhere.keys(batch))[0]["row"].tolist()) == set(range(10, 20))


def test_buckets_are_numbered_by_percentiles():
    values = [*range(10), np.nan]
    batch, step = scored(values), Buckets(score="s")
    chosen, told, *_ = step.choose(step.keys(batch))
    found = scores_of(step.take_away(batch, chosen), "bucket")
    np.testing.assert_array_equal(found, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, np.nan])
    assert told == {"bucket 0": 3, "bucket 1": 3, "bucket 2": 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KeepBetween(score="s", low=2, high=1), "nothing would be kept"),
        (lambda: KeepPercentiles(score="s", low=50, high=20), "low < high"),
        (lambda: KeepPercentiles(score="s", per="weekday"), "choose one of language, source, domain"),
        (lambda: Buckets(score="s", percentiles=(60, 30)), "must ascend"),
        (lambda: Score(model=None, name="s", quality="best"), "'higher' or 'lower'"),
        (lambda: Score(model=None, name="a/b"), "without '/'"),
        (lambda: learning.check_names([Score(model=None, name="s")] * 2), "have one name"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_recipe_trains_its_models_once_and_keeps_what_its_percentiles_say(models, tmp_path, monkeypatch):
    from t5x_like.corpus import run

    monkeypatch.setattr(run, "PART_BYTES", 1)
    (tmp_path / "web").mkdir()
    for number in range(4):
        texts = [prose(number * 100 + i, NOISE if i % 2 else PROSE) for i in range(20)]
        (tmp_path / "web" / f"{number}.txt").write_text("\n\n".join(texts))
    recipe = {
        "sources": [Source(reader=TextFiles([f"{tmp_path}/web/*.txt"], per="paragraph"), name="web", language="en")],
        "steps": [
            Score(model=TrainNgrams(reference=models["good"], vocab_size=280), name="perplexity", quality="lower"),
            Buckets(score="perplexity"),
            KeepPercentiles(score="perplexity", high=50),
            ExactDuplicates(keep="best"),
        ],
        "shards": 1,
    }
    one = curate(output_dir=str(tmp_path / "one"), **recipe)
    two = curate(output_dir=str(tmp_path / "two"), **recipe, workers=2)
    assert one["shards"] == two["shards"] and one["kept"] == 40 and one["models"]["perplexity"]["texts"] == 300
    assert one["counts"]["KeepPercentiles: perplexity outside percentiles 0 to 50"] == 40
    assert one["counts"]["Buckets: bucket 0"] == 24
    monkeypatch.setattr(TrainNgrams, "train", lambda *_: pytest.fail("trained twice"))
    (tmp_path / "one" / "manifest.json").unlink()
    again = curate(output_dir=str(tmp_path / "one"), **recipe)
    assert again["shards"] == one["shards"]
    assert (
        json.loads((tmp_path / "one" / "models" / "perplexity" / "card.json").read_text())
        == one["models"]["perplexity"]
    )
