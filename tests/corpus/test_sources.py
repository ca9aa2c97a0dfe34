"""Readers of wikis, mail, papers, books and source trees: what is text, what is known of it, and what is refused."""

import bz2
import collections
import gzip
import time

import pytest

from t5x_like.corpus import markup
from t5x_like.corpus.books import Books
from t5x_like.corpus.curate import curate
from t5x_like.corpus.mail import Mailbox
from t5x_like.corpus.papers import JatsArticles, LatexSources, MarkdownFiles
from t5x_like.corpus.source_code import SourceTree, licence_of
from t5x_like.corpus.sources import Source
from t5x_like.corpus.wiki import WikiDump, plain_text


def read(reader):
    return [item for path in reader.files() for item in reader.documents(path, collections.Counter())]


# Wikis

PAGE = (
    "<page><title>{}</title><ns>{}</ns>{}<revision><timestamp>2024-01-02T03:04:05Z</timestamp>"
    "<text>{}</text></revision></page>"
)
WIKI = """{{{{Infobox town|name=Yate}}}}
'''Yate''' is a [[town]] in [[England|the south]] ({{{{lang|en|x}}}}) of &lt;ref name="a"&gt;A book&lt;/ref&gt; Britain.
[[File:Yate.jpg|thumb|The [[church]]]]

== History ==
It is {}.
{{| class="wikitable"
| a || b
|}}
&lt;!-- nobody sees this --&gt;
[[Category:Towns]]"""


def dump(*pages):
    head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><sitename>W</sitename></siteinfo>'
    return head + "".join(pages) + "</mediawiki>"


def test_articles_of_a_dump_are_what_a_reader_sees(tmp_path):
    pages = [
        PAGE.format("Yate", 0, "", WIKI.format("old")),
        PAGE.format("Talk:Yate", 1, "", "nobody reads"),
        PAGE.format("Yates", 0, '<redirect title="Yate" />', "#REDIRECT [[Yate]]"),
        PAGE.format("New place", 0, "", "Plain words."),
    ]
    (tmp_path / "dump.xml.bz2").write_bytes(bz2.compress(dump(*pages).encode()))
    first, other, redirect, last = read(WikiDump([f"{tmp_path}/*.bz2"], site="https://w.org/wiki/"))
    assert first["text"] == "Yate\n\nYate is a town in the south of Britain.\n\nHistory\nIt is old."
    assert first["url"] == "https://w.org/wiki/Yate" and first["date"] == "2024-01-02T03:04:05Z"
    assert (other, redirect) == ("other_namespace", "redirect")
    assert last["text"] == "New place\n\nPlain words." and last["url"].endswith("/New_place")


def test_markup_that_is_broken_is_text_and_no_error():
    for source in ("{{open", "[[a|b", "'''''x", "{| a\n|", "<ref>", "[[File:x|[[y]]", "= =", "&#xZZ;"):
        assert isinstance(plain_text(source), str)
    assert plain_text("see [[:Category:Towns|towns]] and [[de:Ort]]") == "see towns and"


def test_xml_that_would_harm_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "a.xml"
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    path.write_text(bomb + dump(PAGE.format("&b;", 0, "", "x")))
    with pytest.raises(ValueError, match=r"a.xml declares entities of its own"):
        read(WikiDump([str(path)]))
    path.write_text(dump(PAGE.format("a", 0, "", "x" * 300_000)))
    with pytest.raises(ValueError, match="longer than 100,000 bytes"):
        read(WikiDump([str(path)], max_document_bytes=100_000))
    path.write_text(dump(*[PAGE.format("a", 0, "", "x" * 40_000)] * 9))
    assert len(read(WikiDump([str(path)], max_document_bytes=200_000))) == 9  # of one page, not of the file
    path.write_text(dump(PAGE.format("a", 0, "", "x")).replace("</page>", ""))
    with pytest.raises(ValueError, match="is no XML, or damaged"):
        read(WikiDump([str(path)]))
    path.write_text("<article>" + "<p>" * 50_000 + "deep" + "</p>" * 50_000 + "</article>")
    began = time.monotonic()
    assert [markup.text_of(one) for one in markup.elements(path, "article", 10**7)] == ["deep"]
    assert time.monotonic() - began < 20


# Mail

MBOX = """From a@x Mon Jan  1 00:00:00 2024
Message-ID: <1@x>
Date: Mon, 01 Jan 2024 10:00:00 +0000
Subject: Trains
From: A <a@x.org>

When does the train leave?
--\x20
A, station road 1

From b@x Mon Jan  1 00:00:00 2024
Message-ID: <9@x>
Date: Mon, 01 Jan 2024 09:00:00 +0000
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Content-Type: text/html; charset=utf-8

<html><body><p>Hello <b>all</b>.</p></body></html>

From c@x Mon Jan  1 00:00:00 2024
Message-ID: <3@x>
In-Reply-To: <2@x>
Date: Mon, 01 Jan 2024 12:00:00 +0000
Subject: Re: [list] Re: Trains

Thanks!

From b@x Mon Jan  1 00:00:00 2024
Message-ID: <2@x>
References: <1@x>
Date: Mon, 01 Jan 2024 11:00:00 +0000
Subject: Re: Trains

On Mon, 1 Jan 2024, A wrote:
> When does the train leave?

At noon.

From d@x Mon Jan  1 00:00:00 2024
Message-ID: <4@x>
Date: no date at all
Subject: Empty

> only a quote
"""


def test_a_thread_is_one_document_in_the_order_of_writing_without_quotes(tmp_path):
    (tmp_path / "list.mbox").write_text(MBOX)
    trains, hello, empty = read(Mailbox([f"{tmp_path}/*.mbox"]))
    assert trains["text"] == "Trains\n\nWhen does the train leave?\n\nAt noon.\n\nThanks!"
    assert trains["date"] == "2024-01-01T10:00:00+00:00"
    assert hello["text"] == "Grüße\n\nHello all." and empty == "empty"
    assert read(Mailbox([f"{tmp_path}/*.mbox"], max_document_bytes=250))[0] == "too_long"


# Papers

JATS = """<?xml version="1.0"?><!DOCTYPE article PUBLIC "-//NLM//DTD JATS//EN" "JATS.dtd">
<article xml:lang="en" xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>
<article-id pub-id-type="doi">10.1/x</article-id>
<title-group><article-title>On <italic>mice</italic></article-title></title-group>
<pub-date><year>2024</year><month>3</month></pub-date>
<permissions><license xlink:href="https://creativecommons.org/licenses/by/4.0/"><p>CC</p></license></permissions>
<abstract><p>We ran.</p></abstract></article-meta></front>
<body><sec><label>1</label><title>Methods</title><p>Mice ran <xref>[1]</xref> far
 <inline-formula><tex-math>$x^2$</tex-math></inline-formula>.</p>
<fig><caption><p>A mouse</p></caption></fig><list><list-item><p>item</p></list-item></list></sec></body>
<back><ref-list><ref>A. Author</ref></ref-list></back></article>"""


def test_an_article_is_title_abstract_and_sections(tmp_path):
    (tmp_path / "a.nxml.gz").write_bytes(gzip.compress(JATS.encode()))
    (article,) = read(JatsArticles([f"{tmp_path}/*.gz"]))
    assert article["text"] == "On mice\n\nWe ran.\n\nMethods\n\nMice ran far $x^2$.\n\nitem"
    assert article["url"] == "https://doi.org/10.1/x" and article["date"] == "2024-03" and article["language"] == "en"
    assert article["licence"] == "https://creativecommons.org/licenses/by/4.0/"


def test_latex_is_its_body_with_macros_written_out_and_parts_put_in(tmp_path):
    (tmp_path / "main.tex").write_text(
        "\\documentclass{a} % a comment\n\\newcommand{\\R}{\\mathbb{R}}\\def\\eps{\\varepsilon}\n"
        "\\newcommand{\\two}[1]{#1#1}\n"
        "\\title{On $\\eps$}\n\\begin{document}\n\\input{parts/one}\nIn $\\R$, 5\\% of \\Ref and \\two{x}. % gone\n"
        "\\input{../outside}\\begin{thebibliography}{9}\\bibitem{a} A.\\end{thebibliography}\n\\end{document}\nafter"
    )
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.tex").write_text("Part one for all $\\eps$.\n\\input{main}")
    paper, part = read(LatexSources([f"{tmp_path}/**/*.tex"]))
    title, one, rest = paper["text"].split("\n\n")[0], *paper["text"].split("\n\n", 1)[1].split("\n", 1)
    assert title == "\\title{On $\\eps$}" and one == "Part one for all $\\varepsilon$."
    assert rest.strip() == "In $\\mathbb{R}$, 5\\% of \\Ref and \\two{x}."
    assert part == "no_document" and "outside" not in paper["text"] and "gone" not in paper["text"]
    assert read(LatexSources([f"{tmp_path}/main.tex"], max_document_bytes=50)) == ["too_long"]


def test_macros_that_name_each_other_end(tmp_path):
    (tmp_path / "a.tex").write_text(
        "\\newcommand{\\a}{\\b\\b}\\newcommand{\\b}{\\a\\a}\\begin{document}\\a\\end{document}"
    )
    (paper,) = read(LatexSources([f"{tmp_path}/a.tex"]))
    assert len(paper["text"]) < 10_000


def test_markdown_loses_its_front_matter_and_keeps_what_that_says(tmp_path):
    (tmp_path / "a.md").write_text('---\ntitle: T\nlang: "de"\ndate: 2024-05-06\n---\n# Kopf\n\nText.\n')
    (tmp_path / "b.md").write_text("# Head\n\n---\nrule\n---\n")
    one, other = read(MarkdownFiles([f"{tmp_path}/*.md"]))
    assert one == {"text": "# Kopf\n\nText.\n", "language": "de", "date": "2024-05-06"}
    assert other == {"text": "# Head\n\n---\nrule\n---\n"}


# Books

BOOK = """\ufeffThe Project Gutenberg eBook of A Walk

Language: English
Release date: May 1, 2001 [eBook #5]

*** START OF THE PROJECT GUTENBERG EBOOK A WALK ***

CHAPTER I

It was a bright cold day in the spring of that year and the
farmers had not yet begun to plough the fields that lay along
the river.

    O rose, thou art sick,
    The invisible worm,

*** END OF THE PROJECT GUTENBERG EBOOK A WALK ***
Licence text.
"""


def test_a_book_is_what_stands_between_the_marks_with_its_paragraphs_joined(tmp_path):
    (tmp_path / "a.txt").write_text(BOOK)
    (tmp_path / "b.txt").write_text("Just a text.\n")
    book, plain = read(Books([f"{tmp_path}/*.txt"]))
    assert book["text"].startswith(
        "CHAPTER I\n\nIt was a bright cold day in the spring of that year and the farmers had"
    )
    assert "the river.\n\n    O rose, thou art sick,\n    The invisible worm," in book["text"]
    assert "Gutenberg" not in book["text"] and "Licence text" not in book["text"]
    assert (book["language"], book["date"]) == ("en", "May 1, 2001") and plain == {"text": "Just a text."}


# Source trees


def test_files_of_a_tree_have_language_and_licence_and_generated_ones_are_left_out(tmp_path):
    files = {
        "a.py": "# SPDX-License-Identifier: Apache-2.0\nprint(1)\n",
        "run.pl": "#!/usr/bin/env python3\nprint(2)\n",
        "b.h": "#include <vector>\nnamespace x {}\n",
        "c.h": "/* Permission is hereby granted,\n * free of charge, to any person */\nint f(void);\n",
        "gen.go": "// Code generated by protoc. DO NOT EDIT.\npackage x\n",
        "min.js": "x=1;" * 50_000,
        "notes.txt": "no code",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "loop").symlink_to(tmp_path)
    found = read(SourceTree(str(tmp_path)))
    told = [(d["path"], d["language"], d["licence"]) for d in found if isinstance(d, dict)]
    assert told == [("a.py", "python", "Apache-2.0"), ("b.h", "c++", ""), ("c.h", "c", "MIT"), ("run.pl", "python", "")]
    assert [d for d in found if isinstance(d, str)] == ["generated", "minified"]
    allowed = read(SourceTree(str(tmp_path), suffixes=[".py", ".h"], licences=["MIT", "Apache-2.0"]))
    assert [d if isinstance(d, str) else d["path"] for d in allowed] == ["a.py", "other_licence", "c.h"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "x.py").write_text("x = 1\n")
    (tmp_path / "deep" / "LICENSE").write_text("Redistribution and use in source and binary forms, with or without")
    (below,) = read(SourceTree(str(tmp_path / "deep"), suffixes=[".py"], licences=["BSD"]))
    assert below["licence"] == "BSD"
    with pytest.raises(ValueError, match="known are"):
        SourceTree(str(tmp_path), suffixes=[".exe"])


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("# Licensed under the Apache License, Version 2.0 (the", "Apache-2.0"),
        (" * GNU Lesser General Public\n * License as published", "LGPL"),
        ("GNU General Public License as published ... either version 3 of", "GPL-3.0"),
        ("/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */", "GPL-2.0-only OR MIT"),
        ("print('hello')", ""),
    ],
)
def test_licences_are_told_by_their_headers(head, licence):
    assert licence_of(head) == licence


def test_all_kinds_are_mixed_in_one_recipe_and_one_bad_file_ends_nothing(tmp_path):
    (tmp_path / "good.xml").write_text(dump(PAGE.format("A", 0, "", "Article words.")))
    (tmp_path / "bad.xml").write_text("<mediawiki><page>")
    (tmp_path / "list.mbox").write_text(MBOX)
    (tmp_path / "book.txt").write_text(BOOK)
    sources = [
        Source(reader=WikiDump([f"{tmp_path}/*.xml"]), name="wiki", domain="encyclopedia"),
        Source(reader=Mailbox([f"{tmp_path}/list.mbox"]), name="mail"),
        Source(reader=Books([f"{tmp_path}/book.txt"]), name="books", licence="unknown"),
    ]
    manifest = curate(output_dir=str(tmp_path / "out"), sources=sources, steps=[], shards=1)
    assert manifest["written"] == 1 + 2 + 1 and manifest["counts"]["reading: empty"] == 1
    assert len([name for name in manifest["counts"] if name.startswith("unreadable: bad.xml: bad.xml is no XML")]) == 1
