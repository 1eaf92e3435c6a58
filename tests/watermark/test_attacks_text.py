"""The attacks on texts do what they say, by a seed alone, in scripts with and without spaces."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zhiyi_watermark.attacks import text as attacks
from zhiyi_watermark.attacks.text import WordNet, words, words_changed
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.text_stream import canonical_text

ENGLISH = (
    "The old dog's bark, though loud, frightened nobody: it was well-known in every street of the town. " * 5
)
CHINESE = "水印是一种把信息藏在文本里的方法，检测者需要密钥。“没有密钥的人”看不出任何区别！" * 5


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, "", "   \n", "...", "one", "a Å 水印 mixed 文本 text"])
def test_a_text_is_its_pieces(text: str) -> None:
    assert attacks._cut(text).join() == text


def test_words_are_runs_of_letters_and_pairs_of_characters() -> None:
    assert words("The dog's well-known, 3.5 m_x!") == ["The", "dog's", "well-known", "3", "5", "m", "x"]
    assert words("水印是方法，ok了") == ["水印", "是方", "法", "ok", "了"]


SEEDED: dict[str, Callable[[str, int], str]] = {
    "delete": lambda t, s: attacks.delete_words(t, 0.2, seed=s),
    "swap": lambda t, s: attacks.swap_words(t, 0.2, seed=s),
    "insert": lambda t, s: attacks.insert_words(t, 0.2, seed=s),
    "truncate": lambda t, s: attacks.truncate(t, 0.5, seed=s),
    "paste": lambda t, s: attacks.paste(t, ENGLISH * 9, 0.25, seed=s),
    "homoglyphs": lambda t, s: attacks.homoglyphs(t, 0.3, seed=s),
    "zero width": lambda t, s: attacks.zero_width(t, 0.3, seed=s),
    "spaces": lambda t, s: attacks.change_spaces(t, 0.3, seed=s),
}


@pytest.mark.parametrize("name", SEEDED)
def test_an_attack_is_a_function_of_its_seed(name: str) -> None:
    attack = SEEDED[name]
    assert attack(ENGLISH, 1) == attack(ENGLISH, 1)
    assert attack(ENGLISH, 1) != attack(ENGLISH, 2)
    assert attack(ENGLISH, 1) != ENGLISH
    assert isinstance(attack("", 1), str)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_deleting_takes_that_share_of_the_words(text: str, share: float) -> None:
    before, after = words(text), attacks.delete_words(text, share, seed=3)
    if text is ENGLISH:
        assert len(words(after)) == len(before) - round(share * len(before))
        assert words_changed(text, after) == pytest.approx(share, abs=0.01)
    else:  # pairs are cut anew behind a gap
        assert len(after) == pytest.approx(len(text) * (1 - share * 0.9), rel=0.05)
    assert "  " not in after
    assert " ," not in after


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_swapping_keeps_every_word_and_mark(text: str) -> None:
    swapped = attacks.swap_words(text, 0.3, seed=3)
    assert sorted(swapped) == sorted(text)
    moved = sum(a != b for a, b in zip(attacks._cut(text).words, attacks._cut(swapped).words, strict=False))
    if text is ENGLISH:
        assert moved / len(words(text)) == pytest.approx(0.3, abs=0.06)


def test_inserted_words_come_from_the_vocabulary_and_nothing_is_lost() -> None:
    after = attacks.insert_words(ENGLISH, 0.1, seed=3, vocabulary=["zebra"])
    assert words(after).count("zebra") == round(0.1 * len(words(ENGLISH)))
    assert [w for w in words(after) if w != "zebra"] == words(ENGLISH)
    assert attacks.insert_words(CHINESE, 0.1, seed=3, vocabulary=["斑马"]).replace("斑马", "") == CHINESE


def test_truncating_keeps_one_stretch() -> None:
    first = attacks.truncate(ENGLISH, 0.5)
    assert ENGLISH.startswith(first)
    assert len(words(first)) == round(len(words(ENGLISH)) / 2)
    anywhere = attacks.truncate(ENGLISH, 0.5, seed=8)
    assert anywhere in ENGLISH
    assert anywhere != first
    assert attacks.truncate(ENGLISH, 1) == ENGLISH
    assert attacks.truncate(ENGLISH, 0) == ""


def test_a_pasted_text_is_whole_and_a_quarter_of_the_words() -> None:
    host = "Human prose goes on and on without any aim at all. " * 60
    made = attacks.paste(ENGLISH, host, 0.25, seed=5)
    assert ENGLISH.strip() in made
    assert len(words(ENGLISH)) / len(words(made)) == pytest.approx(0.25, abs=0.01)
    with pytest.raises(SpecError, match="human text"):
        attacks.paste(ENGLISH, "too short", 0.25, seed=5)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_of_one_is_refused(share: float) -> None:
    for attack in (attacks.delete_words, attacks.swap_words, attacks.insert_words, attacks.homoglyphs):
        with pytest.raises(SpecError, match="share"):
            attack("some text", share, seed=0)  # type: ignore[operator]  # all take a seed
    with pytest.raises(SpecError, match="share"):
        attacks.paste("text", "host", 0, seed=0)


# --- characters ---


@pytest.mark.parametrize("share", [0.1, 0.5, 1])
def test_unicode_tricks_are_undone_by_the_canonical_form(share: float) -> None:
    alike = attacks.homoglyphs(ENGLISH, share, seed=1)
    assert len(alike) == len(ENGLISH)
    if share == 1:
        assert not set("aceopxy") & set(alike)
    hidden = attacks.zero_width(attacks.full_width(alike), share, seed=2)
    for same in (alike, attacks.full_width(ENGLISH), attacks.zero_width(ENGLISH, share, seed=1), hidden):
        assert same != ENGLISH
        assert canonical_text(same) == canonical_text(ENGLISH) == ENGLISH


def test_case_spaces_and_punctuation_change_only_themselves() -> None:
    assert attacks.change_case("aB", "lower") == "ab"
    assert attacks.change_case("aB", "upper") == "AB"
    assert attacks.change_case("aB", "swap") == "Ab"
    spaced = attacks.change_spaces(ENGLISH, 1, seed=2)
    assert re.sub(r"\s", "", spaced) == re.sub(r"\s", "", ENGLISH)
    assert not re.search(r"(?<!\s) (?!\s)", spaced)
    turned = attacks.traditional_punctuation(CHINESE)
    assert "「没有密钥的人」" in turned
    assert len(turned) == len(CHINESE)


# --- synonyms ---


def write_wordnet(folder: Path) -> Path:
    """A database of four synsets in WordNet's own format."""
    synsets = {
        "noun": [["dog", "hound", "domestic_dog"], ["street", "road"], ["in", "inch"]],
        "verb": [["frighten", "scare", "affright"], ["try", "study", "seek"]],
        "adj": [["loud", "noisy(a)"]],
        "adv": [["well", "good"]],
    }
    for part, found in synsets.items():
        data, index = b"  1 a license line\n", ["  1 a license line"]
        for lemmas in found:
            names = " ".join(f"{lemma} 0" for lemma in lemmas)
            for lemma in lemmas:
                index.append(f"{lemma.removesuffix('(a)')} {part[0]} 1 2 @ ~ 1 3 {len(data):08d}  ")
            line = (
                f"{len(data):08d} 03 {part[0]} {len(lemmas):02x} {names} 001 @ 00000000 n 0000 | a gloss  \n"
            )
            data += line.encode()
        (folder / f"data.{part}").write_bytes(data)
        (folder / f"{part}.exc").write_text("sought seek\n" if part == "verb" else "")
        (folder / f"index.{part}").write_text("\n".join(index) + "\n")
    return folder


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    return WordNet(write_wordnet(tmp_path))


def test_synonyms_have_the_words_own_inflection(wordnet: WordNet) -> None:
    assert wordnet.synonyms("dog") == ("hound",)
    assert wordnet.synonyms("Dogs") == ("hounds",)
    assert wordnet.synonyms("frightened") == ("affrighted", "scared")
    assert wordnet.synonyms("scaring") == ("affrighting", "frightening")
    assert wordnet.synonyms("try") == ("seek", "study")
    assert wordnet.synonyms("tries") == ("studies",)  # no "seeked"
    assert wordnet.synonyms("tried") == ("studied",)
    assert wordnet.synonyms("loud") == ("noisy",)
    for none in ("in", "well", "zebra", "dog's", "水印", "ohm3"):
        assert wordnet.synonyms(none) == ()


def test_substitution_takes_that_share_while_there_are_synonyms(wordnet: WordNet) -> None:
    some = attacks.substitute_synonyms(ENGLISH, 0.1, wordnet, seed=4)
    assert words_changed(ENGLISH, some) == pytest.approx(0.1, abs=0.011)
    assert some == attacks.substitute_synonyms(ENGLISH, 0.1, wordnet, seed=4)
    every = attacks.substitute_synonyms("Loud DOGS frightened a zebra.", 1, wordnet, seed=4)
    assert re.fullmatch(r"Noisy HOUNDS (scared|affrighted) a zebra\.", every)


def test_a_folder_without_wordnet_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="WordNet"):
        WordNet(tmp_path)


# --- models ---


class Letters:
    """A tokenizer of single characters, with one that cannot be written."""

    pad_token_id = 0
    eos_token_id = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(c) % 60 + 1 for c in text]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "".join(chr(64 + i) for i in token_ids if i)


def test_retokenising_is_what_a_detector_sees() -> None:
    assert attacks.retokenise([0, 1, 2], Letters()) == Letters().encode("AB", add_special_tokens=False)


def test_a_paraphrase_is_a_function_of_its_seed_and_leaves_torch_alone() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(  # type: ignore[no-untyped-call]  # transformers
        LlamaConfig(
            vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=512, bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )
    )  # fmt: skip
    texts = ["One sentence. Another one! A third?", "", "Alone."]
    state = torch.random.get_rng_state()
    made = [
        attacks.paraphrase(texts, model, Letters(), seed=s, batch=2, chunk_words=3, prompt="{}")
        for s in (1, 1, 2)
    ]
    assert torch.equal(state, torch.random.get_rng_state())
    assert made[0] == made[1] != made[2]
    assert len(made[0]) == 3
    assert made[0][1] == ""
    assert made[0][0].count(" ") >= 1  # written piece by piece


def test_pieces_to_paraphrase_are_whole_sentences() -> None:
    assert attacks._sentences("One two. Three four! Five six seven eight", 4) == [
        "One two. Three four!", "Five six seven eight",
    ]  # fmt: skip
    assert attacks._sentences("第一句话。第二句话！", 3) == ["第一句话。", "第二句话！"]


# --- measures ---


def test_the_share_of_changed_words() -> None:
    assert words_changed("a b c d", "a b c d") == 0
    assert words_changed("a b c d", "A, b. C d!") == 0
    assert words_changed("a b c d", "a x c d") == 0.25
    assert words_changed("a b c d", "d c b a") == 0.75
    assert words_changed("a b", "") == 1
    assert words_changed("", "") == 0
    assert words_changed("a " * 500, "b " * 500) == 1


def test_chrf_by_hand() -> None:
    # "abcd" against "abcx", orders 1 to 4: precision = recall = (3/4 + 2/3 + 1/2 + 0) / 4
    assert attacks.chrf("abcd", "abcx") == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 4)
    # "ab" against "abab": order 1 P 1 R 1/2, order 2 P 1 R 1/3; beta 2 weighs recall
    recall = (1 / 2 + 1 / 3) / 2
    assert attacks.chrf("a b", "abab") == pytest.approx(5 * recall / (4 + recall))
    assert attacks.chrf("same text", "same text") == pytest.approx(1)
    assert attacks.chrf("abc", "xyz") == 0
    assert attacks.chrf("", "") == 1
    assert attacks.chrf("", "abc") == 0
