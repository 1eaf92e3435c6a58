"""The cloud scene: users, marked answers, log, anchors, and the trace back - with a tiny random language model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from chain_stage import World
from flask.testing import FlaskClient

from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound
from zhiyi.usage_log import UsageLog, output_hash
from zhiyi_oracle.api_users import MAX_NUMBER, ApiUsers
from zhiyi_oracle.provider.anchor import anchor_pending, usage_topic
from zhiyi_oracle.provider.answer import MAX_PROMPT_CHARACTERS, Provider
from zhiyi_oracle.provider.server import create_app
from zhiyi_oracle.tracer.trace_text import check_on_chain, open_leaf, trace_text
from zhiyi_watermark.payload import Short
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import Processor

KEY = bytes(range(32))
MARK = BinPlus(KEY, BinPlusConfig(delta=3.0, top_k=64, horizon=400))
WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "rstvwz"]  # 240 of them


class WordTokenizer:
    """One token a word."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [WORDS.index(word) for word in text.split() if word in WORDS]


class UniformWords:
    """A language model without opinions: every next word is equally likely, but for the mark."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch = torch
        self.prompts: list[str] = []

    def generate(
        self, prompt: str, processor: Processor, *, top_k: int, max_new_tokens: int, seed: int | None
    ) -> str:
        torch = self._torch
        self.prompts.append(prompt)
        draw = torch.Generator().manual_seed(seed or 1)
        ids = torch.zeros((1, 1), dtype=torch.long)
        for _ in range(max_new_tokens):
            noise = 1e-3 * torch.rand((1, len(WORDS)), generator=draw)
            scores = processor(ids, noise)  # type: ignore[arg-type]  # plain tensors do
            chosen = torch.multinomial(torch.softmax(scores, -1), 1, generator=draw)
            ids = torch.cat([ids, chosen], dim=1)
        return " ".join(WORDS[i] for i in ids[0, 1:].tolist())


@dataclass
class Cloud:
    users: ApiUsers
    log: UsageLog
    provider: Provider
    generator: UniformWords


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    home = tmp_path / "provider"
    users = ApiUsers(home)
    generator = UniformWords()
    with UsageLog(home / "log") as log:
        yield Cloud(
            users,
            log,
            Provider(
                generator=generator,
                mark=MARK,
                log=log,
                model_id=3,
                producer="00119",
                clock=lambda: 1_700_000_000,
            ),
            generator,
        )
    users.close()


def test_an_answer_is_labelled_and_its_leaf_is_in_the_log(cloud: Cloud) -> None:
    user, _ = cloud.users.add("ana")
    answer = cloud.provider.answer(user, "hello", max_new_tokens=20)
    leaf = cloud.log.leaf(answer.leaf_number)
    assert leaf.output_hash == answer.output_hash == output_hash(answer.text)
    assert (leaf.user_number, leaf.user_commitment, leaf.model_id) == (user.number, user.commitment, 3)
    assert answer.aigc.model_dump() == {"label": "1", "content_producer": "00119", "produce_id": "3-0"}
    assert "ana" not in answer.model_dump_json()


@pytest.mark.parametrize(
    ("prompt", "tokens"), [("", 5), ("x" * (MAX_PROMPT_CHARACTERS + 1), 5), ("x", 0), ("x", 1025)]
)
def test_prompts_and_lengths_out_of_range_are_refused(cloud: Cloud, prompt: str, tokens: int) -> None:
    user, _ = cloud.users.add("ana")
    with pytest.raises(BadInput):
        cloud.provider.answer(user, prompt, max_new_tokens=tokens)
    assert len(cloud.log) == 0


def test_the_short_payload_is_what_a_provider_carries(cloud: Cloud) -> None:
    long = BinPlus(KEY, BinPlusConfig(long=True))
    with pytest.raises(ConfigError, match="short payload"):
        Provider(
            generator=cloud.generator, mark=long, log=cloud.log, model_id=1, producer="", clock=lambda: 0
        )


def test_a_text_leads_to_its_user_and_its_anchored_leaf(cloud: Cloud, world: World) -> None:
    creator = world.as_("creator")
    users = [cloud.users.add(name)[0] for name in ("ana", "bo", "cy")]
    answers = [cloud.provider.answer(u, "tell", max_new_tokens=400, seed=u.number) for u in users]
    first = anchor_pending(creator, cloud.log, 3)
    assert first is not None
    assert anchor_pending(creator, cloud.log, 3) is None
    for user, answer in zip(users, answers, strict=True):
        trace, detection = trace_text(answer.text, MARK, WordTokenizer(), cloud.users, cloud.log)
        assert trace.found
        assert trace.user_number == user.number
        assert detection.decision == "detected"
        assert trace.exact is not None
        assert (trace.exact.number, trace.exact.user) == (answer.leaf_number, user.name)
        assert trace.exact.anchor_tx == first.tx_hash
        assert check_on_chain(creator, creator.account, usage_topic(3), trace.exact) > 0
    shortened = " ".join(answers[1].text.split()[40:])
    trace, _ = trace_text(shortened, MARK, WordTokenizer(), cloud.users, cloud.log)
    assert trace.user_number == users[1].number
    assert trace.exact is None
    assert trace.leaves_of_user == 1


def write(cloud: Cloud, mark: BinPlus, user: int) -> str:
    return cloud.generator.generate(
        "x", mark.processor(Short(user)), top_k=mark.config.top_k, max_new_tokens=400, seed=5
    )


def test_an_unmarked_text_names_nobody(cloud: Cloud) -> None:
    cloud.users.add("ana")
    text = write(cloud, BinPlus(b"\7" * 32, MARK.config), 1)
    trace, detection = trace_text(text, MARK, WordTokenizer(), cloud.users, cloud.log)
    assert not trace.found
    assert detection.decision != "detected"


def test_a_payload_of_a_number_never_given_out_names_nobody(cloud: Cloud) -> None:
    cloud.users.add("ana")
    text = write(cloud, MARK, 77)
    assert not trace_text(text, MARK, WordTokenizer(), cloud.users, cloud.log)[0].found


def test_a_crash_between_chain_and_log_anchors_no_batch_twice(
    cloud: Cloud, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    creator = world.as_("creator")
    user, _ = cloud.users.add("ana")
    cloud.provider.answer(user, "x", max_new_tokens=5)
    before = len(creator.evidence.anchors(creator.account, usage_topic(3)))

    class Crash(BaseException):
        pass

    def crash(*args: object, **kwargs: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(UsageLog, "mark_anchored", crash)
        with pytest.raises(Crash):
            anchor_pending(creator, cloud.log, 3)
    done = anchor_pending(creator, cloud.log, 3)
    assert done is not None
    anchors = creator.evidence.anchors(creator.account, usage_topic(3))
    assert len(anchors) == before + 1
    assert anchors[-1].tx_hash == done.tx_hash


def test_a_leaf_opens_to_no_other_user_and_no_other_root(cloud: Cloud, world: World) -> None:
    creator = world.as_("creator")
    user, _ = cloud.users.add("ana")
    number = cloud.provider.answer(user, "x", max_new_tokens=5).leaf_number
    with pytest.raises(NotFound, match="not in an anchored batch"):
        open_leaf(number, cloud.users, cloud.log)
    anchor_pending(creator, cloud.log, 3)
    leaf = open_leaf(number, cloud.users, cloud.log)
    leaf.verify(leaf.proof.root)
    with pytest.raises(IntegrityError, match="commitment"):
        leaf.model_copy(update={"user": "bo"}).verify(leaf.proof.root)
    with pytest.raises(IntegrityError):
        leaf.verify(b"\1" * 32)
    with pytest.raises(NotFound):
        check_on_chain(creator, world.as_("stranger").account, usage_topic(3), leaf)


def test_numbers_are_never_given_twice(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    first, token = cloud.users.add("ana")
    cloud.users.deactivate("ana")
    assert cloud.users.by_token(token) is None
    second, _ = cloud.users.add("bo")
    assert second.number == first.number + 1
    assert cloud.users.numbers() == {first.number, second.number}
    with pytest.raises(BadInput, match="exists already"):
        cloud.users.add("ana")
    monkeypatch.setattr("zhiyi_oracle.api_users.MAX_NUMBER", second.number)
    with pytest.raises(BadInput, match="another model key"):
        cloud.users.add("cy")
    assert MAX_NUMBER == 65_535


# -- page


@pytest.fixture
def page(cloud: Cloud) -> FlaskClient:
    return create_app(cloud.provider, cloud.users, cloud.log).test_client()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_page_answers_users_only(cloud: Cloud, page: FlaskClient, world: World) -> None:
    _, token = cloud.users.add("ana")
    _, other = cloud.users.add("bo")
    body = json.dumps({"prompt": "hi", "max_new_tokens": 8})
    for headers in ({}, bearer("wrong"), {"Authorization": f"Basic {token}"}, bearer("x" * 300)):
        assert page.post("/v1/answer", data=body, headers=headers).status_code == httpx.codes.UNAUTHORIZED
    answer = page.post("/v1/answer", data=body, headers=bearer(token))
    assert answer.status_code == httpx.codes.OK
    number = answer.json["leaf_number"]  # type: ignore[index]
    assert page.get(f"/v1/proofs/{number}", headers=bearer(token)).status_code == httpx.codes.NOT_FOUND
    anchor_pending(world.as_("creator"), cloud.log, 3)
    assert page.get(f"/v1/proofs/{number}", headers=bearer(other)).status_code == httpx.codes.NOT_FOUND
    proof = page.get(f"/v1/proofs/{number}", headers=bearer(token))
    assert proof.json["leaf"]["user_number"] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"prompt": ""}', b'{"prompt": "x", "max_new_tokens": "8"}', b'{"prompt": "x", "y": 1}'],
)
def test_the_page_refuses_malformed_requests(cloud: Cloud, page: FlaskClient, body: bytes) -> None:
    _, token = cloud.users.add("ana")
    assert page.post("/v1/answer", data=body, headers=bearer(token)).status_code == httpx.codes.BAD_REQUEST


def test_the_page_refuses_a_body_that_is_too_large(cloud: Cloud, page: FlaskClient) -> None:
    _, token = cloud.users.add("ana")
    answer = page.post("/v1/answer", data=b" " * 70_000, headers=bearer(token))
    assert answer.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
