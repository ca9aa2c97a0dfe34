"""Which addresses a list of domains and a list of urls name, and which only look like it."""

import pytest

from t5x_like.corpus.documents import batch_of, column
from t5x_like.corpus.url_lists import UrlCategories


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    lists = {
        "adult/domains": "# a note\nbad.example\nsub.mixed.example\n10.0.0.1\nxn--bcher-kva.example\n",
        "adult/urls": "www.host.example/~page/\nhost.example/forum/adult\n",
        "gambling/domains": "bet.example\nbad.example\n",
        "malware/urls": "files.example/x.exe\n",
    }
    for name, text in lists.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


NAMED = {
    "http://bad.example/": "adult",
    "https://a.b.bad.example:8080/x?y#z": "adult",
    "HTTPS://User:pw@BAD.example./X": "adult",
    "bad.example/page": "adult",  # as NormalizeUrl leaves it
    "//bad.example": "adult",
    "http://10.0.0.1/x": "adult",
    "https://bücher.example/buch": "adult",
    "http://host.example/~page": "adult",
    "http://www.host.example/~page?x=1": "adult",
    "http://host.example/FORUM/adult/7": "adult",
    "http://www.bet.example/": "gambling",
    "http://files.example/x.exe#top": "malware",
}
NOT_NAMED = [
    "",
    "http://notbad.example/",  # ends alike, is no host below
    "http://bad.example.org/",
    "http://mixed.example/",  # only a host below it is listed
    "http://other.example/bad.example",
    "http://110.0.0.1/",
    "http://1.10.0.0.1/",
    "http://host.example/",
    "http://host.example/~pages",
    "http://sub.host.example/~page",  # urls name one host
    "http://host.example/forum",
    "no address at all",
]


@pytest.mark.parametrize("url", [*NAMED, *NOT_NAMED])
def test_an_address_is_in_the_category_that_names_it_or_something_above_it(folder, url):
    step = UrlCategories(folder=folder, categories=["adult", "gambling", "malware"])
    assert step.reason(url) == (f"address in {NAMED[url]}" if url in NAMED else None)


def test_documents_go_by_the_first_category_that_is_asked_for(folder):
    batch = batch_of([{"text": "x", "url": url} for url in ("http://bad.example", "http://bet.example", "")])
    assert column(UrlCategories(folder=folder, categories=["gambling", "adult"])(batch), "reason") == [
        "address in gambling",
        "address in gambling",
        None,
    ]
    assert column(UrlCategories(folder=folder, categories=["malware"])(batch), "reason") == [None] * 3
    allowed = UrlCategories(folder=folder, categories=["adult"], allow=["good.bad.example"])
    assert allowed.reason("http://www.good.bad.example/") is None and allowed.reason("http://bad.example/")


def test_what_is_no_list_is_one_sentence(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no list: name a folder with CATEGORY/domains"):
        UrlCategories(folder=str(tmp_path), categories=["adult"])
    with pytest.raises(ValueError, match=r"categories \['porn'\]: .* has adult, gambling, malware"):
        UrlCategories(folder=folder, categories=["porn"])
    with pytest.raises(ValueError, match="categories are empty: choose from adult"):
        UrlCategories(folder=folder, categories=[])
    with pytest.raises(ValueError, match=r"allow 'https://Good.example/' is no host .* write 'good.example'"):
        UrlCategories(folder=folder, categories=["adult"], allow=["https://Good.example/"])
