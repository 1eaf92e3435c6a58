"""5. The cloud scene: the creator serves the model; answers carry their user, the log is anchored."""

from __future__ import annotations

import json

from story.world import World
from zhiyi.types import to_hex
from zhiyi.usage_log import UsageLog
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.language_model import TransformersGenerator
from zhiyi_oracle.provider.anchor import anchor_pending, usage_topic
from zhiyi_oracle.provider.answer import Answer, Provider
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import tokenizer_hash

TEMPERATURE = 1.0
TOKENS = 448
MARK = BinPlusConfig(delta=1.0, temperature=TEMPERATURE, horizon=TOKENS)
ASKED = (
    ("ana", "Explain what a harbour office does, and who works there.", 64, 11),
    ("bo", "Write a long story about a lighthouse keeper, her dog and a winter storm.", TOKENS, 7),
    ("bo", "Write a detailed travel report about three weeks in the mountains.", TOKENS, 8),
)


def mark_of(world: World) -> BinPlus:
    """The provider's text mark, under the model's watermark key."""
    return BinPlus((world.folder("creator") / "model.key").read_bytes(), MARK, tokenizer_hash(world.model))


def play(world: World) -> None:
    """Three prompts of two users; one anchored batch."""
    home = world.folder("provider")
    home.chmod(0o700)
    users = ApiUsers(home / "users")
    known = {name: users.add(name)[0] for name in ("ana", "bo", "cleo")}
    (home / "numbers.json").write_text(json.dumps(sorted(users.numbers())))
    generator = TransformersGenerator(world.model, temperature=TEMPERATURE, threads=1)
    answers: list[Answer] = []
    with UsageLog(home / "log") as log:
        provider = Provider(
            generator=generator,
            mark=mark_of(world),
            log=log,
            model_id=world.facts["model_id"],
            producer="demo provider",
            clock=world.node.now,
        )
        with world.bar("the model answers three prompts") as progress:
            for done, (name, prompt, tokens, seed) in enumerate(ASKED):
                answers.append(provider.answer(known[name], prompt, max_new_tokens=tokens, seed=seed))
                progress(done + 1, len(ASKED))
        creator = world.as_("creator")
        anchored = anchor_pending(creator, log, world.facts["model_id"])
        assert anchored is not None, "three leaves were waiting to be anchored"
        world.sent(
            f"{anchored.count} answers logged, their root {to_hex(anchored.root)[:18]}… anchored",
            creator.chain.result(anchored.tx_hash),
        )
    users.close()
    topic = usage_topic(world.facts["model_id"])
    assert creator.evidence.anchors(creator.account, topic)[-1].root == anchored.root
    for number, answer in enumerate(answers):
        (home / f"answer-{number}.txt").write_text(answer.text, encoding="utf-8")
        world.say(
            f"user {answer.user_number} got {len(answer.text.split())} words with label {answer.aigc.label}"
        )
