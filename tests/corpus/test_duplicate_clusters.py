"""What a report says of duplicates: counts that add up, who stays, how alike, and nothing of a text as markup."""

import collections
import json

import numpy as np
import pytest

from t5x_like.corpus import duplicate_clusters, run
from t5x_like.corpus.curate import curate
from t5x_like.corpus.exact_duplicates import ExactDuplicates
from t5x_like.corpus.minhash import MinHash
from t5x_like.corpus.sources import Source
from t5x_like.corpus.survivors import EARLIER, UNDATED, all_but_one
from t5x_like.tasks.readers import JsonLines

WORDS = [f"w{'abcdefghij'[i // 26 % 10]}{chr(97 + i % 26)}" for i in range(120)]


@pytest.mark.parametrize("policy", ["source", "longest", "best", "earliest"])
def test_clusters_are_those_of_the_groups_and_the_first_is_the_one_that_stays(policy):
    rng = np.random.default_rng(0)
    group = rng.choice(np.arange(400) ** 2, 900, p=np.repeat([0.7 / 20, 0.3 / 380], [20, 380]))
    keys = {
        "file": rng.integers(0, 4, 900).astype(np.int32),
        "row": rng.permutation(900),
        "length": rng.integers(1, 50, 900),
        "quality": rng.random(900).astype(np.float32),
        "date": np.where(rng.random(900) < 0.5, UNDATED, 20240101000000),
    }
    gone = all_but_one(keys, group, policy)
    told = duplicate_clusters.told_of(keys, group, gone, policy, lambda pairs: pairs[:, 0] / (pairs[:, 1] + 1))
    counts = collections.Counter(group.tolist())
    sizes = collections.Counter(count for count in counts.values() if count > 1)
    assert told["sizes"] == {str(size): number for size, number in sizes.items()}
    assert [one["documents"] for one in told["largest"]] == sorted(counts.values(), reverse=True)[:10]
    at = {(int(keys["file"][i]), int(keys["row"][i])): i for i in range(900)}
    for cluster in told["largest"]:
        members = [at[one["file"], one["row"]] for one in cluster["members"]]
        assert len({group[i] for i in members}) == 1 and len(members) == min(8, cluster["documents"])
        assert [one["goes"] for one in cluster["members"]] == [False] + [True] * (len(members) - 1)
        assert [one["like"] for one in cluster["members"]] == [round(members[0] / (i + 1), 4) for i in members]
    dates = {one["date"] for cluster in told["largest"] for one in cluster["members"]}
    assert dates == {"", "20240101000000"}


def test_documents_of_earlier_corpora_all_stay_and_have_no_text():
    keys = {name: np.zeros(3, np.int64) for name in ("row", "length", "quality")}
    keys |= {"date": np.full(3, UNDATED), "file": np.full(3, EARLIER, np.int32)}
    told = duplicate_clusters.told_of(keys, np.zeros(3, int), np.zeros(0, int), "longest", lambda pairs: np.ones(3))
    (cluster,) = duplicate_clusters.described(told, {})["largest"]
    assert [one["goes"] for one in cluster["members"]] == [False] * 3
    assert not any("text" in one for one in cluster["members"])


def test_a_report_shows_the_largest_clusters_of_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_BYTES", 1)  # every file a part
    monkeypatch.setattr(run, "BATCH", 3)
    text = " ".join(WORDS)
    edited = [" ".join([*WORDS[:place], "other", *WORDS[place + 1 :]]) for place in (7, 90)]
    alone = [" ".join(WORDS[i::9] * 3) for i in range(9)]
    files = [[*alone[:5], text, "<script>alert(1)</script> twice"], [edited[0], *alone[5:], text.upper()]]
    files[0].append("<script>alert(1)</script> twice")
    files[1].append(edited[1] + " and some more of it")
    for number, texts in enumerate(files):
        rows = [json.dumps({"text": one, "url": f"x/{number}/{i}"}) for i, one in enumerate(texts)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(rows))
    source = Source(reader=JsonLines([f"{tmp_path}/*.jsonl"], fields=("text", "url")), name="web", language="en")
    curate(sources=[source], steps=[ExactDuplicates(), MinHash()], output_dir=str(tmp_path / "out"), shards=1)
    told = json.loads((tmp_path / "out" / "tally.json").read_text())["clusters"]
    exact, near = told["1 ExactDuplicates"], told["2 MinHash"]
    assert exact["sizes"] == {"2": 2} and near["sizes"] == {"3": 1}
    assert (exact["keep"], near["keep"]) == ("source", "longest")
    (cluster,) = near["largest"]
    urls = [(one["url"], one["goes"]) for one in cluster["members"]]
    assert urls[0] == ("x/1/6", False) and set(urls[1:]) == {("x/0/5", True), ("x/1/0", True)}
    assert cluster["members"][0]["like"] == 1.0 and all(0.7 <= one["like"] < 1 for one in cluster["members"][1:])
    assert all(text.startswith(one["text"][:20]) for one in cluster["members"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        "Duplicates" in page
        and "x/1/6" in page
        and "Of a cluster one document stays: keep = &#x27;longest&#x27;." in page
    )
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
