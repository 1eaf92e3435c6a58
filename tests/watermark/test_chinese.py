"""A Chinese text that is written under a mark is found again, also after attacks; a human one is nobody's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from zhiyi_watermark.attacks import text as attacks
from zhiyi_watermark.payload import Short, user_of
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import Writer, canonical_text
from zhiyi_watermark.text_zerobit import ZeroBit

torch = pytest.importorskip("torch")

KEY = hashlib.sha256("一个模型的密钥".encode()).digest()
HUMAN = (
    "水印是一种把信息藏在文本里的方法，检测者需要密钥。“没有密钥的人”看不出任何区别！春天来了，山上的雪慢慢融化，河水比冬天涨高了许多。"
    "村口的老人们坐在树下喝茶，谈论今年的收成和孩子们的学业。镇上的图书馆每周三开门，借书的人不少，《红楼梦》总是最先被借走。"
    "昨天下午，火车晚点了四十分钟，站台上挤满旅客；有人打电话，有人吃面包，还有人干脆坐在行李箱上睡着了。"
    "工程师检查完桥梁以后写道：“钢索没有问题，但是第七号桥墩需要加固。”市政府决定从九月起限制载重汽车通行，直到修理结束。"
    "这座城市的夜市闻名全国：烤鱼、豆腐、米线与糖葫芦应有尽有，价格也便宜。外地游客往往逛到深夜才肯回旅馆休息。"
)


class Characters:
    """One token a character; 0 is any that a human text of the case does not have."""

    def __init__(self) -> None:
        self.known = sorted(set(canonical_text(HUMAN)))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        numbers = {character: number for number, character in enumerate(self.known, 1)}
        return [numbers.get(character, 0) for character in text]


def written(writer: Writer, tokenizer: Characters, tokens: int = 500) -> str:
    """As it would be published: Chinese punctuation."""
    draw = torch.Generator().manual_seed(3)
    ids: list[int] = []
    for _ in range(tokens):
        logits = torch.randn(len(tokenizer.known) + 1, generator=draw)
        logits[0] = -100.0
        values, those = writer(ids, logits).topk(50)
        ids.append(int(those[torch.multinomial(torch.softmax(values, -1), 1, generator=draw)]))
    said = "".join(tokenizer.known[number - 1] for number in ids)
    return said.translate(str.maketrans(",:;!", "，：；！"))


ATTACKS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "a tenth of the words deleted": lambda text: attacks.delete_words(text, 0.1, seed=1),
    "full width": attacks.full_width,
    "invisible characters": lambda text: attacks.zero_width(text, 0.5, seed=1),
    "traditional punctuation": attacks.traditional_punctuation,
    "a quarter of a human text": lambda text: attacks.paste(text, HUMAN * 9, 0.25, seed=1),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_chinese_text_names_its_user_after_an_attack(attack: str) -> None:
    tokenizer, mark = Characters(), BinPlus(KEY, BinPlusConfig(delta=3.0))
    found = mark.detect_text(ATTACKS[attack](written(mark.writer(Short(7)), tokenizer)), tokenizer, 50)
    assert (found.decision, found.payload and user_of(found.payload)) == ("detected", 7)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_chinese_text_shows_whose_key_wrote_it_after_an_attack(attack: str) -> None:
    tokenizer, mark = Characters(), ZeroBit(KEY)
    text = ATTACKS[attack](written(mark.writer(), tokenizer))
    assert mark.detect_text(text, tokenizer).decision == "detected"
    other = ZeroBit(bytes(32))
    assert other.detect_text(text, tokenizer).decision != "detected"


def test_a_chinese_text_of_people_is_nobodys() -> None:
    tokenizer = Characters()
    assert ZeroBit(KEY).detect_text(HUMAN, tokenizer).decision != "detected"
    found = BinPlus(KEY).detect_text(HUMAN, tokenizer, 50)
    assert (found.decision != "detected", found.payload) == (True, None)
