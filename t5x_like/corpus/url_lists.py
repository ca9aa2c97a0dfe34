"""Documents from addresses that lists of categories name: a folder as UT1 of Toulouse University has it.

  FOLDER/adult/domains   example.com          that host and every host below it (www.example.com), no other ending alike
  FOLDER/adult/urls      example.com/~page    that address and what lies below it (/~page/x, /~page?x), not /~pages

RefinedWeb (arXiv:2306.01116, appendix G.1) and RedPajama judge by these lists before they look at any text. Addresses
are compared in lower case, without scheme, user, port and `www.`, hosts in the letters of DNS (xn--). A list is held as
64-bit hashes, 8 bytes an entry: with 10**7 entries a page matches by chance with a probability of about 1e-11.
"""

import contextlib
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import xxhash

from t5x_like.corpus.documents import column, drop

_SCHEME = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//|^")
_USER_AND_PORT = re.compile(r"^.*@|:\d*$")
_NUMBER = re.compile(r"[\d.]+|\[.*\]")
_ENDS = re.compile(r"(?=[/?#])|$")  # where an address may end that another one begins with
_MOST_ENDS = 32  # longer addresses are compared by their beginnings


@dataclasses.dataclass(frozen=True, kw_only=True)
class UrlCategories:
    """Drops a document whose address is in the list of a category; the first of several is its reason.

    categories   folders below `folder`, each with a file `domains` or `urls` or both
    allow        hosts that are no reason, nor those below them
    A document without an address stays.
    """

    folder: str
    categories: Sequence[str]
    allow: Sequence[str] = ()

    def __post_init__(self):
        lists = [path for name in ("domains", "urls") for path in pathlib.Path(self.folder).glob(f"*/{name}")]
        known = sorted({path.parent.name for path in lists})
        if not known:
            raise FileNotFoundError(
                f"{self.folder} holds no list: name a folder with CATEGORY/domains and CATEGORY/urls"
            )
        if not self.categories:
            raise ValueError(f"categories are empty: choose from {', '.join(known)}")
        if unknown := [name for name in self.categories if name not in known]:
            raise ValueError(f"categories {unknown}: {self.folder} has {', '.join(known)}")
        if other := [host for host in self.allow if parts_of(host) != (host, "")]:
            raise ValueError(f"allow {other[0]!r} is no host as it is compared: write {parts_of(other[0])[0]!r}")

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return drop(batch, [self.reason(url) for url in column(batch, "url")])

    def reason(self, url: str) -> str | None:
        host, rest = parts_of(url)
        if not host or not set(hosts_above(host)).isdisjoint(self.allow):
            return None
        hosts, addresses = hashes_of(hosts_above(host)), hashes_of(beginnings(host.removeprefix("www.") + rest))
        for category in self.categories:
            domains, urls = lists_of(self.folder, category)
            if is_any_in(domains, hosts) or is_any_in(urls, addresses):
                return f"address in {category}"
        return None


def parts_of(url: str) -> tuple[str, str]:
    """(host, what follows it), as they are compared; ("", "") for what is no address."""
    address = _SCHEME.sub("", url.strip().lower(), count=1)
    host, rest = address[: (end := _ENDS.search(address).start())], address[end:]
    host = _USER_AND_PORT.sub("", host).rstrip(".")
    if not host.isascii():
        with contextlib.suppress(UnicodeError):  # a host that DNS cannot hold is in no list
            host = host.encode("idna").decode()
    return host, rest


def hosts_above(host: str) -> list[str]:
    """The host and those that it lies below: a.b.org, b.org, org; an address in numbers lies below none."""
    labels = host.split(".")
    return [host] if _NUMBER.fullmatch(host) else [".".join(labels[i:]) for i in range(len(labels))]


def beginnings(address: str) -> list[str]:
    """Of host and path, ended at a slash, a question mark or a number sign; with no slash at the end."""
    ends = [match.start() for match, _ in zip(_ENDS.finditer(address), range(_MOST_ENDS), strict=False)]
    return [address[:end].rstrip("/") for end in ends]


def hashes_of(names: Sequence[str]) -> np.ndarray:
    return np.array([xxhash.xxh3_64_intdigest(name.encode()) for name in names], np.uint64)


def is_any_in(ordered: np.ndarray, wanted: np.ndarray) -> bool:
    if not len(ordered):
        return False
    return bool((ordered[np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)] == wanted).any())


@functools.lru_cache(maxsize=64)
def lists_of(folder: str, category: str) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the domains and of the urls, ascending."""
    where = pathlib.Path(folder, category)
    domains = (parts_of(line)[0] for line in lines_of(where / "domains"))
    urls = (host.removeprefix("www.") + rest.rstrip("/") for host, rest in map(parts_of, lines_of(where / "urls")))
    return tuple(np.unique(hashes_of([name for name in names if name])) for names in (domains, urls))


def lines_of(path: pathlib.Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line.strip() for line in file if not line.startswith("#"))
