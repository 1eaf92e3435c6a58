"""The fetched texts: a package is pinned, read without being installed, and missing ones are said so."""

from __future__ import annotations

import hashlib
import io
import lzma
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from fetch_corpora import CORPORA, STAMP, Corpus, ensure_corpus, handbook, members
from fetch_model import FetchError

ENGLISH = "Both tools are built on top of the same library and are thus very close, but the default differs."
CHINESE = (
    "这里介绍的两种工具都建立在同一个程序库之上，因此非常接近，但默认的行为有所不同，请读者在使用之前留意。"
)
PAGE = f"""<html><head><title>no</title></head><body><h2>A title is no prose, however long it may get to be in
the end, so that nobody takes it for a paragraph of the book</h2>
<div class="para">{ENGLISH.replace("library", "<code>library</code>")}</div><pre>rm -rf / is code and stays out of
the text, although this line is long enough to be a paragraph of its own</pre><div class="para">short</div>
<div class="para">{CHINESE}<div class="note">outside</div></div><div class="para">{ENGLISH}</div></body></html>"""


def package(files: dict[str, str]) -> bytes:
    """A .deb with these files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo("." + name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    out = b"!<arch>\n"
    parts = {"debian-binary": b"2.0", "data.tar.xz": lzma.compress(tar.getvalue())}
    for name, body in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}".encode() + b"`\n" + body
        out += b"\n" * (len(body) % 2)
    return out


DEB = package(
    {"/usr/share/doc/x/en-US/a.html": PAGE, "/usr/share/doc/x/zh-CN/a.html": PAGE, "/etc/other": "no"}
)


def make_corpus(sha256: str) -> Corpus:
    return CORPORA["debian-handbook"]._replace(
        name="book",
        package="no-such-package-of-zhiyi",
        pool="book.deb",
        sha256=sha256,
        prefix="/usr/share/doc/",
    )


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A mirror in a folder, on a machine without apt."""
    monkeypatch.setenv("ZHIYI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fetch_corpora.shutil.which", lambda _: None)
    (tmp_path / "book.deb").write_bytes(DEB)
    return tmp_path.as_uri()


def test_a_package_is_read_without_being_installed() -> None:
    found = members(DEB, "/usr/share/doc/")
    assert sorted(found) == ["/usr/share/doc/x/en-US/a.html", "/usr/share/doc/x/zh-CN/a.html"]
    for wrong in (b"", b"!<arch>\n", DEB[:200], b"PK" + DEB, DEB.replace(b"data.tar.xz", b"data.tar.gz")):
        with pytest.raises(FetchError, match="not a Debian package"):
            members(wrong, "/")


def test_prose_is_kept_once_and_code_is_left_out() -> None:
    found = handbook(members(DEB, "/usr/share/doc/"))
    assert found["zh.txt"].decode() == CHINESE + "\n"
    assert found["en.txt"].decode() == ENGLISH + "\n"


def test_a_corpus_is_fetched_once(mirror: str) -> None:
    corpus = make_corpus(hashlib.sha256(DEB).hexdigest())
    folder = ensure_corpus(corpus, ("file:///nowhere", mirror))
    assert sorted(p.name for p in folder.iterdir()) == ["en.txt", "zh.txt", STAMP]
    assert corpus.sha256 in (folder / STAMP).read_text()
    assert ensure_corpus(corpus, ()) == folder
    assert [p.name for p in folder.parent.iterdir()] == ["book"]


def test_another_file_than_the_pinned_one_is_refused(mirror: str) -> None:
    with pytest.raises(FetchError, match="pinned is"):
        ensure_corpus(make_corpus("0" * 64), (mirror,))


def test_a_machine_without_apt_and_network_is_told_what_to_do(mirror: str) -> None:
    with pytest.raises(FetchError, match="Check the network"):
        ensure_corpus(make_corpus("0" * 64), ("file:///nowhere",))
