"""The pages over an index filled by hand: what they say, and what hostile texts and addresses do to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from zhiyi.index import CaseRow, DocumentRow, EventRow, Index, LicenseRow, ModelRow, OrderRow
from zhiyi.index.tables import HeadRow, SubjectRow
from zhiyi.types import NATIVE, LicenseTerms, Preference, Preferences, Use
from zhiyi_frontend import PageConfig, create_app, show
from zhiyi_frontend.words import LANGUAGES, WORDS, word

NOW = 1_790_000_000
HASH = "0x" + "ab" * 32
OWNER, BUYER = "0x" + "11" * 20, "0x" + "22" * 20
LICENSE = 7 << 28 | 99
CASE = "0x" + "cd" * 32
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>‮⁦\x1b[2J{{ 7*7 }}{% raw %}"
PREFERENCES = Preferences(ai_training=Preference.NOT_ALLOWED, data_mining=Preference.CONSTRAINED)


def model_row(number: int = 7, **changes: Any) -> ModelRow:
    record = {
        "weightsRoot": HASH, "totalBytes": 270_000_000, "chunks": 301_340, "chunkSize": 896,
        "detectorHash": HASH, "traceKeyCommit": HASH, "rangeHash": HASH, "royaltyHash": HASH,
    }  # fmt: skip
    royalties = {
        "platformBps": 250,
        "collaborators": [{"account": BUYER, "bps": 1000}],
        "ancestors": [{"modelId": 3, "bps": 500}],
    }
    fields: dict[str, Any] = {
        "key": str(number), "model_id": number, "owner": OWNER, "weights_root": HASH, "record": record,
        "royalties": royalties, "preferences": PREFERENCES.pack(), "metadata_cid": "QmModel", "review": 1,
        "registrar": BUYER, "reason_hash": HASH, "reviewed_time": NOW - 50, "delisted_until": 0,
        "frozen_until": 0, "trace_key_commit": HASH, "gross": {NATIVE: str(15 * 10**17)}, "registered_block": 1,
        "registered_time": NOW - 100, "registered_tx": HASH,
    }  # fmt: skip
    return ModelRow(**(fields | changes))


def order_row(key: int = LICENSE, **changes: Any) -> OrderRow:
    fields: dict[str, Any] = {
        "key": str(key), "model_id": 7, "buyer": BUYER, "seller": OWNER, "fingerprinter": OWNER, "token": NATIVE,
        "price": 10**18, "bond": 2 * 10**18, "order": {}, "order_hash": HASH, "state": 4, "since": NOW - 10,
        "opened_block": 2, "opened_time": NOW - 20, "opened_tx": HASH,
    }  # fmt: skip
    return OrderRow(**(fields | changes))


def license_row(**changes: Any) -> LicenseRow:
    terms = LicenseTerms(commercial=True, disclosure_duty=True, uses=frozenset({Use.AI_INFERENCE}))
    fields: dict[str, Any] = {
        "key": str(LICENSE), "model_id": 7, "fingerprint": 99, "holder": BUYER, "terms": terms.pack(),
        "expires_at": 0, "record": {"copyRoot": HASH}, "end": 0, "suspended": False, "bond_slashed": 5 * 10**17,
        "issued_block": 3, "issued_time": NOW - 5, "issued_tx": HASH,
    }  # fmt: skip
    return LicenseRow(**(fields | changes))


def case_row(**changes: Any) -> CaseRow:
    fields: dict[str, Any] = {
        "key": CASE, "kind": 1, "model_id": 7, "license_key": str(LICENSE), "reporter": OWNER, "accused": BUYER,
        "bond": 10**17, "evidence_cid": "QmEvidence", "file": {"evidenceHash": HASH}, "state": 2, "decision": 1,
        "until": NOW + 100, "share_index": 3, "base_cid": "QmBase", "verdict": {"bucket": 40, "samples": 65_536},
        "signers": 0b101, "opened_block": 4, "opened_time": NOW - 3, "opened_tx": HASH,
    }  # fmt: skip
    return CaseRow(**(fields | changes))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    made = Index(f"sqlite:///{tmp_path / 'index.db'}")
    yield made
    made.close()


def fill(index: Index, *rows: Any) -> None:
    with Session(index.engine) as session, session.begin():
        session.merge(HeadRow(id=1, chain_id=1, deployment=HASH, number=42, hash=HASH, time=NOW))
        session.add_all(rows)


@pytest.fixture
def full(index: Index) -> Index:
    document = {
        "name": HOSTILE,
        "description": HOSTILE,
        "image": "javascript:alert(3)",
        "external_url": "https://evil.example",
    }
    event = EventRow(
        block_number=2,
        log_index=0,
        tx_hash=HASH,
        contract="LicenseEscrow",
        name="OrderOpened",
        time=NOW,
        args={},
    )
    fill(
        index,
        model_row(),
        order_row(),
        license_row(),
        case_row(),
        DocumentRow(cid="QmModel", value=document, problem="", tries=1, retry_at=0),
        event,
        SubjectRow(kind="order", key=str(LICENSE), block_number=2, log_index=0),
    )
    return index


@pytest.fixture
def client(full: Index) -> FlaskClient:
    return create_app(PageConfig(), index=full).test_client()


PAGES = (
    "/{}/",
    "/{}/models/7",
    "/{}/licenses/",
    f"/{{}}/licenses/{LICENSE}",
    "/{}/cases/",
    f"/{{}}/cases/{CASE}",
)


class Outline(HTMLParser):
    """Tags that are open at the end, ids, links, and whether anything could run."""

    VOID = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.active: list[str] = []
        self.language = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "html":
            self.language = values.get("lang") or ""
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag == "a":
            self.links.append(values.get("href") or "")
        if tag in ("script", "style", "iframe", "object", "embed", "form", "img", "svg"):
            self.active.append(tag)
        self.active += [name for name in values if name.startswith("on") or name == "style"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag


def outline(html: str) -> Outline:
    found = Outline()
    found.feed(html)
    assert found.open == []
    return found


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_well_formed_and_runs_nothing(client: FlaskClient, page: str, language: str) -> None:
    answer = client.get(page.format(language))
    assert answer.status_code == 200
    found = outline(answer.text)
    assert found.active == []
    assert found.language == {"zh": "zh-Hans", "en": "en"}[language]
    assert found.tags.count("h1") == 1
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith(("/", "#", "?")) for link in found.links)
    assert "javascript:" not in answer.text
    assert "evil.example" not in answer.text
    for character in ("\x1b", "‮", "⁦"):
        assert character not in answer.text


def test_a_hostile_name_is_shown_as_text(client: FlaskClient) -> None:
    html = client.get("/en/models/7").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7*7 }}" in html
    assert "<bdi>" in html


@pytest.mark.parametrize("page", [*PAGES, "/healthz", "/readyz", "/{}/models/99", "/nowhere"])
def test_every_answer_carries_the_security_headers_and_no_cookie(client: FlaskClient, page: str) -> None:
    answer = client.get(page.format("en"))
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert "Set-Cookie" not in answer.headers


def test_every_link_of_the_site_leads_somewhere(client: FlaskClient, full: Index) -> None:
    fill(full, model_row(3, weights_root="0x" + "03" * 32))
    todo, seen = ["/"], set()
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        answer = client.get(page, follow_redirects=True)
        assert answer.status_code == 200, page
        todo += [link for link in outline(answer.text).links if link.startswith("/")]
    assert len(seen) >= 2 * len(PAGES)


def test_the_model_page_tells_what_the_chain_says(client: FlaskClient) -> None:
    html = client.get("/en/models/7").text
    for expected in (
        "approved",
        OWNER,
        HASH,
        "257.5 MiB",
        "301340 chunks",
        "1.5 ETH",
        "2.5 %",
        "10 %",
        "5 %",
        "listed",
    ):
        assert expected in html, expected
    assert "not allowed" in html
    # constrained without a license reference counts as not allowed (ERC-7517)
    row = re.search(r"data mining</th>(.*?)</tr>", html, re.S)
    assert row is not None
    assert row.group(1).count("not allowed") == 1
    assert "constrained" in row.group(1)


def test_metadata_that_contradicts_the_chain_is_flagged(client: FlaskClient, full: Index) -> None:
    assert "the chain rules" in client.get("/en/models/7").text
    assert "the chain rules" in client.get("/en/").text
    right = {
        "name": "Right",
        "dataMiningPreference": {"aiTraining": "notAllowed", "dataMining": "constrained"},
    }
    with Session(full.engine) as session, session.begin():
        session.merge(DocumentRow(cid="QmModel", value=right, problem="", tries=2, retry_at=0))
    assert "the chain rules" not in client.get("/en/models/7").text


def test_states_are_told_by_the_time_of_the_last_block(index: Index) -> None:
    fill(index, model_row(frozen_until=NOW + 1), license_row(expires_at=NOW - 1), order_row())
    client = create_app(PageConfig(), index=index).test_client()
    assert "frozen until" in client.get("/en/models/7").text
    assert "expired" in client.get("/en/licenses/").text
    assert "已到期" in client.get(f"/zh/licenses/{LICENSE}").text


def test_an_order_without_a_license_has_a_page(index: Index) -> None:
    fill(index, model_row(), order_row(state=5, refund_reason=2, refund=3 * 10**18))
    html = create_app(PageConfig(), index=index).test_client().get(f"/en/licenses/{LICENSE}").text
    assert "refunded: a chunk was wrong" in html


def test_the_case_page_tells_the_verdict(client: FlaskClient) -> None:
    html = client.get(f"/en/cases/{CASE}").text
    for expected in (
        "leak of weights",
        "verdict posted",
        "guilty",
        "40 (",
        "65536",
        "Seats that signed</dt><dd>2",
        "0.1 ETH",
    ):
        assert expected in html, expected
    assert "权重泄露" in client.get(f"/zh/cases/{CASE}").text


@pytest.mark.parametrize(
    "page",
    [
        "/en/models/99",
        "/en/models/0",
        f"/en/models/{2**64}",
        f"/en/models/{10**39}",
        "/en/licenses/1",
        "/en/cases/0x12",
        "/en/cases/" + "0x" + "00" * 32,
        "/en/cases/%00",
        "/fr/",
        "/static/../config.py",
        "/static/%2e%2e/config.py",
        "/en/models/7/x",
    ],
)
def test_what_is_not_there_is_a_404(client: FlaskClient, page: str) -> None:
    assert client.get(page).status_code == 404


@pytest.mark.parametrize(
    "page",
    [
        "/en/models/abc",
        "/en/models/-1",
        "/en/models/" + "9" * 41,
        "/en/models/٣",
        "/en/?below=x",
        "/en/?review=1.5",
        "/en/licenses/?from=-1",
        "/en/licenses/?from=99999999999",
        "/en/cases/?from=",
    ],
)
def test_what_is_no_number_is_a_400(client: FlaskClient, page: str) -> None:
    assert client.get(page).status_code == 400


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
def test_nothing_can_be_changed(client: FlaskClient, method: str) -> None:
    for page in PAGES:
        assert getattr(client, method)(page.format("en")).status_code == 405


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("en-US,en;q=0.9", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("fr", "zh"), ("", "zh")],
)
def test_the_start_leads_to_the_readers_language(client: FlaskClient, accepted: str, language: str) -> None:
    answer = client.get("/", headers={"Accept-Language": accepted})
    assert (answer.status_code, answer.headers["Location"]) == (302, f"/{language}/")
    assert answer.headers["Vary"] == "Accept-Language"


def test_lists_are_paged(index: Index) -> None:
    fill(index, *(model_row(n, weights_root=f"0x{n:064x}") for n in range(1, 8)))
    client = create_app(PageConfig(page_rows=3), index=index).test_client()
    shown = []
    page = "/en/?review=1"
    for _ in range(3):
        html = client.get(page).text
        shown += [int(n) for n in re.findall(r'<td><a href="/en/models/(\d+)">', html)]
        more = re.search(r'rel="next" href="([^"]+)"', html)
        page = more.group(1).replace("&amp;", "&") if more else ""
    assert shown == [7, 6, 5, 4, 3, 2, 1]
    assert page == ""


def test_an_empty_index_says_so_and_is_not_ready(index: Index) -> None:
    client = create_app(PageConfig(), index=index).test_client()
    assert "not been synced" in client.get("/en/").text
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


class Late:
    late = True


def test_a_late_index_is_told(full: Index) -> None:
    client = create_app(PageConfig(), index=full, follower=Late()).test_client()
    assert "behind the chain" in client.get("/en/").text
    assert client.get("/readyz").status_code == 503


def test_an_index_that_cannot_be_read_is_a_503(full: Index, tmp_path: Path) -> None:
    client = create_app(PageConfig(), index=full).test_client()
    with full.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE models")
    answer = client.get("/en/")
    assert answer.status_code == 503
    assert "models" not in answer.text.split("<main")[1].split("</main>")[0]


def test_a_name_the_page_does_not_answer_under_is_refused(full: Index) -> None:
    client = create_app(PageConfig(hosts=("zhiyi.example",)), index=full).test_client()
    assert client.get("/healthz", headers={"Host": "zhiyi.example"}).status_code == 200
    assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


def test_every_word_is_there_in_both_languages_and_used() -> None:
    folder = Path(show.__file__).parent
    said = "".join(path.read_text() for path in [*folder.rglob("*.html"), *folder.glob("*.py")])
    for key, (zh, en) in WORDS.items():
        assert zh, key
        assert en, key
        stem = re.sub(r"_\d+$", "", key)
        assert f"'{key}'" in said or f'"{key}"' in said or f"'{stem}'" in said or f"'{stem}_'" in said, key
    for key in re.findall(r"\bt\('([a-z_0-9]+)'\)", said):
        assert word("en", key)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 ETH"),
        (1, "0.000000000000000001 ETH"),
        (10**18, "1 ETH"),
        (15 * 10**17, "1.5 ETH"),
        (2**96, "79228162514.264337593543950336 ETH"),
    ],
)
def test_amounts_are_exact(value: int, said: str) -> None:
    assert show.amount(value, NATIVE, "ETH") == said


def test_amounts_of_tokens_name_the_token() -> None:
    assert show.amount(5, OWNER, "ETH") == f"5 × {OWNER}"


@pytest.mark.parametrize("seconds", [0, NOW, 2**40 - 1, 10**18, -(10**18)])
def test_any_time_can_be_shown(seconds: int) -> None:
    assert show.moment(seconds)


def test_texts_lose_what_could_mislead() -> None:
    assert show.text("a‮b\x00c\u200bd\ud800", 80) == "abcd"
    assert show.text("x" * 100, 10) == "x" * 10 + "…"
    assert show.text(None, 10) == show.text(7, 10) == ""
    assert show.text("智易链 👍", 20) == "智易链 👍"
