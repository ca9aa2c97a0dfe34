"""Pages of WARC and WET files, whole and damaged."""

import collections
import gzip

from t5x_like.corpus.warc import HtmlFiles, Warc, Wet

PAGE = (
    "<html><head><title>t</title></head><body><nav><a href='/'>Home</a></nav><main><p>Grüße aus der Stadt, in der es "
    "gestern geregnet hat.</p><p>Second paragraph of the page with some more words.</p></main></body></html>"
)


def record(kind, content, *, http=None):
    body = content if http is None else f"HTTP/1.1 200 OK\r\nContent-Type: {http}\r\n\r\n".encode() + content
    media = "application/http; msgtype=response" if http else "text/plain"
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:0>\r\nWARC-Target-URI: http://a.org/x\r\n"
        f"WARC-Date: 2024-01-02T03:04:05Z\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + body + b"\r\n\r\n")


def read(reader):
    (path,) = reader.files()
    return list(reader.documents(path, collections.Counter()))


def test_pages_are_decoded_as_they_were_sent_and_other_kinds_are_left_out(tmp_path):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(
        record("response", PAGE.encode("latin-1"), http="text/html; charset=ISO-8859-1")
        + record("response", PAGE.encode(), http="text/html; charset=no-such-charset")
        + record("response", b"\x89PNG", http="image/png")
        + record("request", b"GET / HTTP/1.1\r\n\r\n")
        + record("response", b"x" * 3000, http="text/html")
    )
    one, other, image, long = read(Warc([str(path)], max_document_bytes=2000))
    assert one["text"].startswith("Grüße aus der Stadt") and "Home" not in one["text"]
    assert one["url"] == "http://a.org/x" and one["date"].startswith("2024-01-02T03:04:05")
    assert other["text"] == one["text"]
    assert (image, long) == ("not_html", "too_long")


def test_text_of_wet_files_is_taken_as_it_is(tmp_path):
    path = tmp_path / "a.wet.gz"
    path.write_bytes(record("conversion", "Grüße\nZeile".encode()) + record("conversion", b"bad \xff byte"))
    assert [page["text"] for page in read(Wet([str(path)]))] == ["Grüße\nZeile", "bad \ufffd byte"]


def test_html_files_are_read_with_the_charset_that_they_have(tmp_path):
    (tmp_path / "a.html").write_bytes(PAGE.encode("latin-1"))
    (page,) = read(HtmlFiles([f"{tmp_path}/*.html"]))
    assert page["text"].startswith("Grüße") and "Second paragraph" in page["text"]
    deep = "<div>" * 50_000 + "deep" + "</div>" * 50_000
    (tmp_path / "a.html").write_text(deep)
    assert read(HtmlFiles([f"{tmp_path}/*.html"])) == [{"text": ""}]  # at once
    assert read(HtmlFiles([f"{tmp_path}/*.html"], max_document_bytes=100)) == ["too_long"]
