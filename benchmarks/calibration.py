"""Null calibration of the marks: are the p-values of unmarked texts, weights and pictures what they say?

    python benchmarks/calibration.py            # 10^6 (key, object) pairs a method, fifteen CPU minutes;
                                                # writes docs/benchmarks/calibration.json, .md and .svg
    python benchmarks/calibration.py --quick    # 10^4 pairs, writes nothing
    python benchmarks/calibration.py --only dss,kgs  # these methods alone, writes nothing

A method takes part by one function in METHODS and a line in SERIES. The function yields blocks: totals T of many keys
on unmarked objects, and the tail that the detector itself would report for each T. Counted is how often a tail is at
or below a nominal level, decided by zhiyi_watermark.stats in exact arithmetic. Beside it: innocent licenses on marked
objects, at bit level (right) and at chip level (the mistake), and what transformers' WatermarkDetector reports on the
same counts.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from report import FOLDER, Row, clopper_pearson, environment, proportion, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

from fetch_corpora import CORPORA, paragraphs  # noqa: E402
from fetch_model import FetchError, ensure_model  # noqa: E402
from image_series import held_out  # noqa: E402
from zhiyi_watermark import image_generated, image_weights, prf, stats, weights  # noqa: E402
from zhiyi_watermark import text_gaussian as gsw  # noqa: E402
from zhiyi_watermark.image_finished import Dss  # noqa: E402
from zhiyi_watermark.payload import Long, Short, user_of  # noqa: E402
from zhiyi_watermark.pictures import Picture  # noqa: E402
from zhiyi_watermark.text_multibit import BinPlus  # noqa: E402
from zhiyi_watermark.text_stream import canonical_text, grams  # noqa: E402
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, Profile, ZeroBit  # noqa: E402

Int64 = npt.NDArray[np.int64]
Tail = Callable[[int], stats.Tail]

ROOT_KEY: Final = hashlib.sha256(b"zhiyi calibration").digest()
LEVELS: Final = {f"1e{k}": Fraction(1, 10**k) for k in (2, 3, 4, 5)}
GRID: Final = [Fraction(10 ** (-k / 8)) for k in range(4, 57)]  # nominal levels of the plot, .32 to 1e-7
PAIRS: Final = 128  # distinct (context, token) pairs of a text: 8,064 votes
USERS: Final = 1 << 16
LICENSES: Final = 10_000


@dataclass(frozen=True, eq=False)
class Block:
    """Totals on unmarked objects that share one law."""

    tail: Tail
    totals: Int64  # (pairs,)


@dataclass
class Count:
    """How many pairs had p <= each level."""

    pairs: int = 0
    hits: dict[Fraction, int] = field(default_factory=dict)

    def add(self, block: Block) -> None:
        """Counts a block; the tail is asked for a few totals only, because it falls with T."""
        values, counts = np.unique(block.totals, return_counts=True)
        above = [*np.cumsum(counts[::-1])[::-1].tolist(), 0]
        at = 0
        for level in sorted({*LEVELS.values(), *GRID}, reverse=True):
            passes = partial(_passes, block.tail, level)
            at = bisect.bisect_left(values.tolist(), True, lo=at, key=passes)
            self.hits[level] = self.hits.get(level, 0) + above[at]
        self.pairs += int(block.totals.size)


def _passes(tail: Tail, level: Fraction, total: int) -> bool:
    return tail(total).at_most(level)


# --- the objects --------------------------------------------------------------------------------------------


def human_tokens(language: str) -> list[int]:
    """Human-written prose in SmolLM2's tokens. Raises FetchError when the texts or the tokenizer can't be had."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ensure_model())
    tokens: list[int] = []
    for text in paragraphs(language):
        tokens += tokenizer.encode(canonical_text(text + "\n\n"), add_special_tokens=False)
    return tokens


def texts_of(tokens: Sequence[int], count: int) -> Int64:
    """Stretches of prose as the detector sees them: the (context, token) rows that did not occur before.

    A row is in one text only, so that under one key all texts are independent.  # (count, PAIRS, 3)
    Raises FetchError when there are not so many.
    """
    rows = np.lib.stride_tricks.sliding_window_view(np.array(tokens, dtype=np.int64), 3)
    first, _ = stats.pooled(rows, np.ones(len(rows), dtype=np.int64), 1)
    if len(first) < count * PAIRS:
        raise FetchError(f"{len(first) // PAIRS} texts of {PAIRS} pairs are there, {count} are wanted")
    texts: Int64 = rows[first[: count * PAIRS]].reshape(count, PAIRS, 3)
    return texts


class Unmarked(NamedTuple):
    """A tensor that carries no mark, in a file or folder of safetensors."""

    what: str
    path: Path
    name: str
    shape: tuple[int, ...]


def random_tensors(folder: Path, count: int) -> list[Unmarked]:
    """Files of random weights, written here."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(2)
    side = (512, 512)
    draws: list[tuple[str, Callable[[], npt.NDArray[np.float64]]]] = [
        ("Gaussian", lambda: rng.normal(0, 0.05, side)),
        ("Student t of 3 degrees", lambda: 0.05 * rng.standard_t(3, side)),
        ("uniform", lambda: rng.uniform(-1, 1, side)),
        ("Gaussian with 70 % pruned", lambda: rng.normal(0, 1, side) * (rng.random(side) > 0.7)),
    ]
    out = []
    for i in range(count):
        what, draw = draws[i % len(draws)]
        path = folder / f"random{i}.safetensors"
        save_file({"layer.down_proj.weight": draw().astype(np.float32)}, path)
        out.append(Unmarked(what, path, "layer.down_proj.weight", side))
    return out


def model_tensors() -> list[Unmarked]:
    """Layers of SmolLM2-135M-Instruct. Raises FetchError when it can't be had."""
    model = ensure_model()
    name = "model.layers.{}.mlp.down_proj.weight"
    return [Unmarked("SmolLM2-135M-Instruct", model, name.format(i), (576, 1536)) for i in range(0, 30, 2)]


def spec_of(tensor: str, shape: tuple[int, ...]) -> weights.WfpSpec:
    """A small fingerprint in one tensor."""
    return weights.WfpSpec(
        (weights.TensorShape(tensor, shape),), code_bits=512, weights_per_bit=256, shares=2, weights_per_share=2048
    )  # fmt: skip


@dataclass(frozen=True)
class Objects:
    """Everything unmarked that the methods are tried on."""

    texts: dict[str, Int64]  # by language.  # (texts, PAIRS, 3)
    tensors: list[Unmarked]
    suspects: int = 40  # files made of the tensors, for marks that look at a difference
    pictures: Sequence[Picture] = ()  # photographs


# --- the methods --------------------------------------------------------------------------------------------


def binplus(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """BIN+ on every language's texts."""
    for language, texts in objects.texts.items():
        for block in binplus_votes(texts, -(-pairs // len(objects.texts))):
            yield f"binplus_{language}", block


def binplus_votes(texts: Int64, pairs: int) -> Iterator[Block]:
    """BIN+, hypothesis (a): matches of all votes with one user's codeword, each pass over the texts by a fresh key."""
    packed = [row.tobytes() for row in texts.reshape(-1, 3).astype("<u4")]
    for i in range(-(-pairs // len(texts))):
        mark = BinPlus(prf.derive_key(ROOT_KEY, "binplus", i))
        word = mark.code.encode(Short(i % USERS))
        matches = (
            matching_bits(mark.draws.of_grams(packed), word).reshape(texts.shape[:2]).sum(axis=1)
        )  # (texts,)
        yield Block(_votes_tail, matches)


@cache
def _votes_tail(matches: int) -> stats.Tail:
    return stats.binomial_tail(matches, PAIRS * 63)


def matching_bits(digests: npt.NDArray[np.uint8], word: npt.NDArray[np.uint8]) -> Int64:
    """How many of the first 63 bits of each 8-byte digest equal the word's.  # (digests, 8) -> (digests,)"""
    code = np.frombuffer(np.packbits(np.append(word, 0)).tobytes(), dtype=">u8")[0]
    given = digests.view(">u8")[:, 0].astype(np.uint64)
    x = ~(given ^ np.uint64(code)) & np.uint64(0xFFFF_FFFF_FFFF_FFFE)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555_5555_5555_5555))
    x = (x & np.uint64(0x3333_3333_3333_3333)) + ((x >> np.uint64(2)) & np.uint64(0x3333_3333_3333_3333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F_0F0F_0F0F_0F0F)
    with np.errstate(over="ignore"):
        return ((x * np.uint64(0x0101_0101_0101_0101)) >> np.uint64(56)).astype(np.int64)


def zero_bit(profile: Profile, objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """A zero-bit profile on every language's texts, each time by a fresh key."""
    tails = cache(lambda size: cache(partial(profile.tail, count=size)))
    for language, texts in objects.texts.items():
        label = f"{profile.name}_{language}"
        keys = -(-pairs // (len(objects.texts) * len(texts)))
        for i, rows in enumerate(texts):
            packed = grams([[*rows[0, :-1].tolist(), *rows[:, -1].tolist()]], profile.context + 1).distinct
            totals = np.empty(keys, dtype=np.int64)
            for k in range(keys):
                mark = ZeroBit(prf.derive_key(ROOT_KEY, label, i, k), profile)
                totals[k] = profile.scores(mark.draws.of_grams(packed)).sum()
            yield label, Block(tails(len(packed)), totals)


def kgw(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """Green lists after each token."""
    yield from zero_bit(KGW, objects, pairs)


def unigram(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """One green list a key."""
    yield from zero_bit(UNIGRAM, objects, pairs)


def tournament(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """30 layers of signs."""
    yield from zero_bit(TOURNAMENT, objects, pairs)


def wfp_trace(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """WFP's trace mark, hypothesis (b): Tardos codewords of licenses that were never used, blind."""
    laws = 100
    for i in range(laws):
        _, path, tensor, shape = objects.tensors[i % len(objects.tensors)]
        kit = weights.TraceKit.derive(prf.derive_key(ROOT_KEY, "trace", i), spec_of(tensor, shape))
        sums, _, _ = weights._trace_sums(path, kit, None)
        scored = weights.LicenseScores.of(kit.trace_key, sums.quantised(weights.BIT_LEVELS).q)
        yield "wfp_trace", Block(scored.law.tail, scored.totals(range(-(-pairs // laws))))


def confirm_objects(tensors: Sequence[Unmarked], count: int) -> list[Int64]:
    """q of one share's chips in suspects that were never marked: fine-tuned, rounded, unrelated, hostile.  # (n,)"""
    from zhiyi_watermark.tensorfile import Checkpoint

    rng = np.random.default_rng(3)
    out: list[Int64] = []
    for i in range(count):
        _, path, tensor, shape = tensors[i % len(tensors)]
        spec = spec_of(tensor, shape)
        with Checkpoint(path) as file:
            base = file.floats(tensor, shape)
        step = weights._spread(base) * np.float32(spec.epsilon)
        match i // len(tensors) % 4:
            case 0:
                suspect = base + rng.normal(0, 2, base.shape).astype(np.float32) * step
            case 1:
                grid = np.float32(np.abs(base).max() / 127)
                suspect = np.rint(base / grid) * grid
            case 2:
                suspect = base[rng.permutation(base.size)]
            case _:
                suspect = base + step * np.where(base > 0, np.float32(3), np.float32(1))
        q = weights._difference(suspect, base, shape, spec.epsilon)
        block, _, _ = weights._choose_share(prf.derive_key(ROOT_KEY, "share", i), spec, 0).of(0, spec.blocks)
        out.append(weights._as_blocks(q)[block].reshape(-1).astype(np.int64))
    return out


def wfp_confirm(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """WFP's confirm mark, hypothesis (a): a share's signs on fixed chips, by the exact law and by the bound."""
    suspects = confirm_objects(objects.tensors, objects.suspects)
    for i, q in enumerate(suspects):
        totals = keyed_totals(
            q, -(-pairs // len(suspects)), lambda k, i=i: prf.derive_key(ROOT_KEY, "wfp signs", i, k)
        )
        yield from both_laws("wfp_confirm", q, totals)


def keyed_totals(q: Int64, keys: int, key_of: Callable[[int], bytes]) -> Int64:
    """T of q with the signs of every key, |q| <= 15 and at most 2^16 of them.  # (n,) -> (keys,)

    Every float32 partial sum is an integer under 2^24, so the product is exact.
    """
    totals = np.empty(keys, dtype=np.int64)
    for at in range(0, keys, 1000):
        some = range(at, min(at + 1000, keys))
        signs = np.stack([prf.signs(key_of(k), len(q)) for k in some])  # (some, n)
        totals[at : at + len(some)] = (signs.astype(np.float32) @ q.astype(np.float32)).astype(np.int64)
    return totals


def both_laws(label: str, q: Int64, totals: Int64) -> Iterator[tuple[str, Block]]:
    """Totals of fair signs by their exact law and by the closed bound."""
    law = stats.two_point_law(q, -q, np.ones_like(q), 2)
    yield label, Block(law.tail, totals)
    yield f"{label}_bound", Block(partial(stats.bound_tail, sum_q2=int((q * q).sum())), totals)


TINY: Final = ROOT / "tests" / "models" / "tiny-lm"


def gradients(count: int) -> tuple[gsw.GswSpec, list[gsw.Gradient]]:
    """q of human-written English texts at the weights of the small test model: of one of its matrices, to be quick."""
    import torch
    from transformers import AutoModelForCausalLM

    from zhiyi_watermark.tensorfile import Checkpoint

    torch.set_num_threads(1)
    whole = gsw.plan(TINY)
    chosen = tuple(t for t in whole.tensors if "layers.1.self_attn" in t.name)
    with Checkpoint(TINY) as file:
        spec = replace(whole, tensors=chosen, base_hash=gsw.base_hash(chosen, file.floats))
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    prose = [text for text in paragraphs("en") if len(text) > 600][:count]
    return spec, [gsw.gradient(model, [ids], spec) for ids in gsw.encode(TINY, prose, spec)]


def gsw_licenses(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """GSW, hypothesis (a): licenses that no text was made with, on the gradient of human-written texts."""
    spec, found = gradients(min(20, objects.suspects))
    model_key = prf.derive_key(ROOT_KEY, "gsw")
    each = -(-pairs // len(found))
    for i, gradient in enumerate(found):
        keys = [gsw.license_key(model_key, i * each + k) for k in range(each)]
        yield "gsw", Block(gsw.law_of(gradient)[0], gsw.totals(gradient, spec, keys))


def dss_chips(picture: Picture, key: bytes) -> list[Int64]:
    """q of the payload's chips of a picture, times a message's word: as the sync pattern fits best, and as it stands.

    # [(payload chips,)]
    """
    mark = Dss(key)
    mine = mark.layout >= 0
    word = mark.code.signs(Long(1, 1)).astype(np.int64)[mark.layout[mine]]
    readings = mark.chips([picture])
    return [readings[i][mine] * word for i in (0, -1)]


def dss(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """DSS, hypothesis (a): photographs searched with one key, and payload signs that the search never saw."""
    found = [
        q for i, p in enumerate(objects.pictures) for q in dss_chips(p, prf.derive_key(ROOT_KEY, "dss", i))
    ]
    for i, q in enumerate(found):
        totals = keyed_totals(
            q, -(-pairs // len(found)), lambda k, i=i: prf.derive_key(ROOT_KEY, "dss signs", i, k)
        )
        yield from both_laws("dss", q, totals)


TINY_IMAGE: Final = ROOT / "tests" / "models" / "tiny-image"
TINY_LKD: Final = ROOT / "tests" / "models" / "tiny-image-lkd" / "extractor.safetensors"
INVERSION: Final = 10  # steps: the law holds for any integers


def inversions(photos: Sequence[Picture]) -> tuple[image_generated.KgsSpec, list[image_generated.Noise]]:
    """Integers of unmarked pictures, inverted with the small test model: as many that it made as photographs."""
    import torch

    from train_image_model import load_pipeline

    torch.set_num_threads(1)
    pipeline: Any = load_pipeline(TINY_IMAGE)
    spec = image_generated.plan(pipeline, steps=INVERSION)
    rng = np.random.default_rng(5)
    drawn = rng.standard_normal((len(photos), *spec.shape), dtype=np.float32)
    images = pipeline(
        prompt=["a picture of an owl"] * len(photos), latents=torch.from_numpy(drawn), output_type="np",
        num_inference_steps=INVERSION, guidance_scale=1.0,
    ).images  # fmt: skip
    made = [Picture(rgb) for rgb in np.clip(np.rint(np.asarray(images) * 255), 0, 255).astype(np.uint8)]
    mark, model = image_generated.Kgs(ROOT_KEY, spec), image_generated.Inverter(pipeline, spec)
    return spec, [model.noise(picture, mark, ()) for picture in (*photos, *made)]


def kgs_chips(
    noise: image_generated.Noise, spec: image_generated.KgsSpec, key: bytes, nonce: int
) -> tuple[Int64, bytes]:
    """q of the payload's chips in a key's order, times a message's word, and the key of the nonce's signs."""
    mark = image_generated.Kgs(key, spec)
    word = np.repeat(mark.code.signs(Long(1, 1)), mark._chips_a_bit).astype(np.int64)
    return noise.q[0].reshape(-1)[mark._places[1]] * word, prf.derive_key(key, "kgs chips", nonce)


def kgs(objects: Objects, pairs: int) -> Iterator[tuple[str, Block]]:
    """KGS on the integers of unmarked pictures. Hypothesis (a): every pair a fresh key's signs under one nonce.
    Hypothesis (b): a key of each picture's chooses its nonce, every pair is one of other messages' words."""
    spec, noises = inversions(objects.pictures[: objects.suspects // 2])
    for i, noise in enumerate(noises):
        q, _ = kgs_chips(noise, spec, prf.derive_key(ROOT_KEY, "kgs", i), 0)
        totals = keyed_totals(
            q, -(-pairs // len(noises)),
            lambda k, i=i: prf.derive_key(
                prf.derive_key(ROOT_KEY, "kgs", i, k), "kgs chips", k % image_generated.NONCES
            ),
        )  # fmt: skip
        yield from both_laws("kgs", q, totals)
        each = -(-pairs // len(noises))
        mark = image_generated.Kgs(prf.derive_key(ROOT_KEY, "kgs words", i), spec)
        bits = mark.chosen(noise).sums
        sums = stats.BitSums(bits).quantised(image_generated.WEIGHTS).q
        words = np.stack([mark.code.signs(Long(k, k)) for k in range(1, each + 1)]).astype(np.int64)
        independent = mark.code.independent(bits)
        for name, places in (("kgs_word", np.arange(len(sums))), ("kgs_listed", independent)):
            part = sums[places]
            law = stats.two_point_law(part, -part, np.ones_like(part), 2)
            yield name, Block(law.tail, words[:, places] @ part)


def lkd(objects: Objects, pairs: int, path: Path = TINY_LKD) -> Iterator[tuple[str, Block]]:
    """LKD, hypothesis (b): words of licenses that decoded none of the photographs. Nothing without a trained
    extractor."""
    if not path.is_file():
        return
    extractor = image_weights.Extractor.load(path)
    each = -(-pairs // len(objects.pictures))
    for i, picture in enumerate(objects.pictures):
        q = extractor.read(picture).q.astype(np.int64)
        key = prf.derive_key(ROOT_KEY, "lkd", i)
        signs = image_weights.words(key, range(each), extractor.bits, extractor.net_hash())
        law = stats.two_point_law(q, -q, np.ones_like(q), 2)
        yield "lkd", Block(law.tail, signs.astype(np.int64) @ q)


class Series(NamedTuple):
    """What the rows of a label are."""

    what: str
    exact: bool  # its law is no mere bound and has p near every level, so the rate should be the nominal one


METHODS: Final = (binplus, kgw, unigram, tournament, wfp_trace, wfp_confirm, gsw_licenses, dss, kgs, lkd)
_FEW: Final = f"binomial law of at most {PAIRS} coins, whose values lie up to a factor of 2 apart"
SERIES: Final = {
    "kgw_en": Series(f"KGW green lists on English texts, {_FEW}", False),
    "kgw_zh": Series(f"KGW green lists on Chinese texts, {_FEW}", False),
    "unigram_en": Series(f"Unigram green list on English texts, {_FEW}", False),
    "unigram_zh": Series(f"Unigram green list on Chinese texts, {_FEW}", False),
    "tournament_en": Series("tournament signs on English texts, exact law", True),
    "tournament_zh": Series("tournament signs on Chinese texts, exact law", True),
    "binplus_en": Series("BIN+ votes on English texts, binomial law", True),
    "binplus_zh": Series("BIN+ votes on Chinese texts, binomial law", True),
    "wfp_trace": Series("WFP trace mark, two-point law of innocent codewords", True),
    "wfp_confirm": Series("WFP confirm share, exact law", True),
    "gsw": Series("GSW, exact law of a license's signs on a text's gradient", True),
    "dss": Series("DSS payload chips of photographs, exact law", True),
    "kgs": Series("KGS payload chips of unmarked pictures' noise, exact law", True),
    "kgs_word": Series("KGS words of messages on unmarked pictures' bits, exact law", True),
    "kgs_listed": Series("KGS words on the 64 independent bits of which most was seen, exact law", True),
    "lkd": Series(
        "LKD words of other licenses on photographs, exact law of 64 signs, whose values lie apart", False
    ),
    "wfp_confirm_bound": Series("WFP confirm share, closed bound", False),
    "dss_bound": Series("DSS payload chips of photographs, closed bound", False),
    "kgs_bound": Series("KGS payload chips of unmarked pictures' noise, closed bound", False),
}


# --- innocents on marked objects ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Innocents:
    """Codewords of licenses or users that an object was not marked for."""

    tests: int
    hits: int  # p_global < 1e-6 at bit level, or a wrong user named
    chip_tests: int
    chip_hits: int  # p < 1e-6 had they been scored at chip level
    objects: int
    named: int  # objects that named the right one


def innocent_users(texts: int, tokens: int = 500) -> Innocents:
    """BIN+: texts of a tiny random model, each marked for one user; every other user is registered."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(  # type: ignore[no-untyped-call]  # transformers
        LlamaConfig(
            vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=1024, bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.lm_head.weight.mul_(15)  # a random head is nearly flat
    mark = BinPlus(prf.derive_key(ROOT_KEY, "marked"))
    users = [(i * 1009) % USERS for i in range(texts)]
    prompt = torch.tensor([[5, 6, 7, 8]]).expand(texts, -1)
    written = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=50, max_new_tokens=tokens,
        logits_processor=[mark.processor([Short(u) for u in users])],
    )[:, 4:].tolist()  # fmt: skip
    words = np.stack([mark.code.encode(Short(u)) for u in range(LICENSES)]).astype(np.int64) * 2 - 1
    hits = named = chip_hits = chip_tests = 0
    for text, user in zip(written, users, strict=True):
        payload = mark.detect(text, USERS).payload
        named += payload is not None and user_of(payload) == user
        hits += mark.detect(text, frozenset(range(USERS)) - {user}).payload is not None
        votes = mark.draws.signs(mark.draws.of_grams(grams([text], 3).distinct))
        n = votes.size
        totals = np.delete(words, [user] if user < LICENSES else [], axis=0) @ votes.sum(
            axis=0, dtype=np.int64
        )
        least = bisect.bisect_left(
            range(n // 2, n), True, key=partial(_passes, partial(stats.binomial_tail, n=n), stats.TRACE)
        )
        chip_tests += len(totals)
        chip_hits += int(((n + totals) // 2 >= n // 2 + least).sum())
    return Innocents(texts * (USERS - 1), hits, chip_tests, chip_hits, texts, named)


def innocent_licenses(tensors: Sequence[Unmarked], folder: Path, tests: int) -> Innocents:
    """WFP: marked copies, and licenses that they were not made for, 10^4 registered ones at a time."""
    hits = named = chip_hits = made = 0
    files = [t for t in tensors if t.path.is_file() and "pruned" not in t.what]
    rounds = -(-tests // (LICENSES * len(files)))
    for i, (_, path, tensor, shape) in enumerate(files):
        kit = weights.TraceKit.derive(prf.derive_key(ROOT_KEY, "marked", i), spec_of(tensor, shape))
        copy, guilty = folder / f"marked{i}.safetensors", 7
        seeds = [prf.derive_key(ROOT_KEY, "seed", i, k) for k in range(kit.spec.shares)]
        weights.mark(path, copy, kit.spec, kit.trace_key, guilty, seeds)
        sums, _, sum_q2 = weights._trace_sums(copy, kit, path)
        scored = weights.LicenseScores.of(kit.trace_key, sums.quantised(weights.BIT_LEVELS).q)
        named += scored.law.tail(int(scored.totals([guilty])[0])).at_most(stats.TRACE, LICENSES)
        words = weights._codewords(kit.trace_key, range(100, 100 + LICENSES), scored.parts).astype(np.int64)
        least = math.isqrt(stats.TWO_LN2_NUM * 20 * sum_q2 // stats.TWO_LN2_DEN) + 1
        chip_hits += int((words @ sums.q >= least).sum())
        for k in range(rounds):
            totals = scored.totals(range(100 + k * LICENSES, 100 + (k + 1) * LICENSES))
            hits += sum(scored.law.tail(int(t)).at_most(stats.TRACE, LICENSES) for t in np.sort(totals)[-20:])
            made += LICENSES
    return Innocents(made, hits, LICENSES * len(files), chip_hits, len(files), named)


# --- transformers' detector ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reported:
    """What WatermarkDetector says of a text, and the exact tail of its distinct bigrams."""

    what: str
    n: int  # scored, by its own count
    green: int
    z: float
    reported: float
    distinct: int  # bigrams that differ, each one draw of its lists
    exact: float


class Peer:
    """transformers' WatermarkDetector, as it is, with its green lists."""

    def __init__(self, gamma: Fraction, vocabulary: int, key: int = 15485863) -> None:
        from transformers import LlamaConfig, WatermarkDetector, WatermarkingConfig

        self.gamma, self.vocabulary = gamma, vocabulary
        model = LlamaConfig(vocab_size=vocabulary, bos_token_id=vocabulary - 1)
        config = WatermarkingConfig(greenlist_ratio=float(gamma), hashing_key=key, context_width=1)
        self.detector: Any = WatermarkDetector(model, "cpu", config)
        self.lists: dict[int, frozenset[int]] = {}
        self.merging: Any = WatermarkDetector(model, "cpu", config, ignore_repeated_ngrams=True)

    def report(self, what: str, tokens: Sequence[int], *, merge: bool = False) -> Reported:
        """One text, through the class itself."""
        import torch

        found = (self.merging if merge else self.detector)(torch.tensor([list(tokens)]), return_dict=True)
        n, green = int(found.num_tokens_scored[0]), int(found.num_green_tokens[0])
        bigrams = set(pairwise(tokens))
        exact = stats.binomial_tail(sum(self.is_green(a, b) for a, b in bigrams), len(bigrams), self.gamma).p
        assert exact is not None
        z, p = float(found.z_score[0]), float(found.p_value[0])
        return Reported(what, n, green, z, p, len(bigrams), float(exact))

    def is_green(self, before: int, token: int) -> bool:
        """Whether the detector's list after `before` has the token."""
        import torch

        if before not in self.lists:
            listed = self.detector.processor._get_greenlist_ids(torch.tensor([before]))
            self.lists[before] = frozenset(listed.tolist())
        return token in self.lists[before]

    def text(self, n: int, green: int) -> list[int]:
        """A text of n distinct bigrams of which so many are green in the detector's own lists."""
        rng = np.random.default_rng(n * 1000 + green)
        tokens = [1]
        wanted = [True] * green + [False] * (n - green)
        rng.shuffle(wanted)
        used = {(0, 0)}
        for is_green in wanted:
            while True:
                token = int(rng.integers(0, self.vocabulary - 1))
                if self.is_green(tokens[-1], token) is is_green and (tokens[-1], token) not in used:
                    break
            used.add((tokens[-1], token))
            tokens.append(token)
        return tokens


def peer_table() -> list[Reported]:
    """Reported against exact p at chosen counts, and a text that repeats itself."""
    quarter, half = Peer(Fraction(1, 4), 2000), Peer(Fraction(1, 2), 2000)
    out = [quarter.report("gamma 1/4", quarter.text(96, green)) for green in (26, 28, 32, 36, 40, 45, 50, 60)]
    out += [half.report("gamma 1/2", half.text(200, green)) for green in (104, 110, 117, 124, 134, 145)]
    once = quarter.text(30, 13)
    often = once[1:] * 5
    out.append(quarter.report("30 bigrams once", once))
    out.append(quarter.report("the same, five times", often))
    out.append(quarter.report("the same, `ignore_repeated_ngrams=True`", often, merge=True))
    return out


def peer_false_positives(texts: Sequence[Sequence[int]], keys: int) -> dict[str, tuple[int, int]]:
    """(hits, pairs) of the peer at its default threshold and two levels, of exact tails over the same texts."""
    dense: dict[int, int] = {}
    coded = [[dense.setdefault(t, len(dense)) for t in text] for text in texts]
    hits = {"z > 3 (its default)": 0, "its p <= 1e-2": 0, "its p <= 1e-3": 0, "exact p of distinct pairs <= 1e-2": 0,
            "exact p of distinct pairs <= 1e-3": 0}  # fmt: skip
    for key in range(keys):
        peer = Peer(Fraction(1, 4), len(dense) + 1, key=15485863 + key)
        for text in coded:
            found = peer.report("", text)
            hits["z > 3 (its default)"] += found.z > 3
            hits["its p <= 1e-2"] += found.reported <= 1e-2
            hits["its p <= 1e-3"] += found.reported <= 1e-3
            hits["exact p of distinct pairs <= 1e-2"] += found.exact <= 1e-2
            hits["exact p of distinct pairs <= 1e-3"] += found.exact <= 1e-3
    return {name: (count, keys * len(coded)) for name, count in hits.items()}


# --- the report ---------------------------------------------------------------------------------------------


def rates(counts: dict[str, Count]) -> list[Row]:
    """A row for each label and nominal level, and the extremes at 1e-4 of the exact laws, if there is one."""
    rows = [
        proportion(
            f"{label}_fpr_{name}",
            f"{SERIES[label].what}: p <= {float(level):.0e}",
            count.hits[level],
            count.pairs,
        )
        for label, count in counts.items()
        for name, level in LEVELS.items()
    ]
    level = LEVELS["1e4"]
    exact = sorted(
        (count.hits[level] / count.pairs, label) for label, count in counts.items() if SERIES[label].exact
    )
    if not exact:
        return rows
    for id_, (rate, label), target, sense in (
        ("fpr_1e4_low", exact[0], 0.5, ">="),
        ("fpr_1e4_high", exact[-1], 1.5, "<="),
    ):
        count = counts[label]
        low, high = clopper_pearson(count.hits[level], count.pairs)
        scale = float(level)
        what = f"empirical over nominal rate at 1e-4, {'least' if sense == '>=' else 'largest'} of exact laws: {label}"
        rows.append(
            Row(id_, what, rate / scale, "", count.pairs, target, sense, None, (low / scale, high / scale))  # type: ignore[arg-type]  # the two literals
        )
    return rows


def plot(counts: dict[str, Count]) -> Path:
    """docs/benchmarks/calibration.svg: quantiles of -log10 p against those of a fair p, with 95 % intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "calibration"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 5.4))
    axes.plot([0, 7], [0, 7], color="black", linewidth=0.8, label="a fair p")
    for name, count in counts.items():
        points = [(level, count.hits[level]) for level in GRID if count.hits[level] > 0]
        x = [-math.log10(hits / count.pairs) for _, hits in points]
        y = [-math.log10(level) for level, _ in points]
        bands = [clopper_pearson(hits, count.pairs) for _, hits in points]
        (line,) = axes.plot(x, y, marker=".", markersize=3, linewidth=0.8, label=name)
        axes.fill_betweenx(
            y, [-math.log10(high) for _, high in bands], [-math.log10(low) for low, _ in bands],
            color=line.get_color(), alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.set_xlabel("-log10 of the share of unmarked pairs with a p as small")
    axes.set_ylabel("-log10 p as reported")
    axes.set_xlim(0, 7)
    axes.set_ylim(0, 7)
    axes.legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    path = FOLDER / "calibration.svg"
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path


def notes(table: Sequence[Reported], false: dict[str, tuple[int, int]]) -> str:
    """What the table's rows mean, the plot, and the peer's figures."""
    lines = [
        "![Quantiles of p on unmarked objects](calibration.svg)",
        "",
        "A curve on the diagonal is exact, below it conservative; above it, innocents would be accused more often",
        "than stated. Bands are 95 % Clopper-Pearson intervals. Every p counted is the one that the detector reports,",
        "and every comparison with a level is made in exact rationals. Texts are stretches of human-written prose",
        f"(Debian handbook) with {PAIRS} (context, token) pairs that did not occur before, so that all (key, text)",
        "pairs are independent; weights are random ones and layers of SmolLM2-135M-Instruct. GSW looks at the",
        "gradient of such prose at one matrix of the small test model. DSS looks at photographs, each searched with",
        "one key's sync pattern and scored with the payload signs of others, as it fits best and as it stands; KGS at",
        f"photographs and pictures of the small test model that carry no mark, inverted in {INVERSION} steps, and at",
        "the bits that a key's best nonce reads there, scored with the words of messages (`kgs_word`, `kgs_listed`);",
        "LKD at what its extractor reads in photographs, 64 signs whose values lie apart.",
        "",
        "`wfp_confirm_bound` is the closed bound that decides a case: a contract can check it in integers, and it",
        "never exceeds the nominal rate; what that costs shows against `wfp_confirm`, the exact law of these totals.",
        "So it is for `dss_bound`, which the detector of finished pictures reports, and `dss`, and for `kgs_bound`,",
        "which KGS reports where it names nobody, and `kgs`. A name by KGS has an exact law: that of `kgs_listed`",
        "where each message is tried, that of `kgs_word` where there are too many.",
        "",
        "`*_chip_level_share` is the share of innocent codewords on *marked* objects that a detector would accuse at",
        "p <= 1e-6 if it scored licenses against the chips of the model's key. The detectors do not: a license is",
        "scored by its own secret bits alone (WFP), or must be decoded with a right MAC (BIN+). BIN+ texts are of a",
        "tiny random model here, since the codes are tested and not the prose.",
        "",
        "## p-values of transformers' WatermarkDetector",
        "",
        "The class itself, run on texts with chosen counts in its own green lists; exact is the binomial tail of the",
        "distinct bigrams, each of which is one draw of the lists. Its p is `0.5 exp(-2 z^2 / pi)` for z > 0: neither",
        "the normal tail nor the binomial one, and 0 where a float ends. `ignore_repeated_ngrams=True` changes",
        "nothing: the n-grams are counted as tensors, which are told apart by identity.",
        "",
        "| text | scored | green | z | reported p | distinct | exact p | reported / exact |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        lines.append(
            f"| {row.what} | {row.n} | {row.green} | {row.z:.2f} | {row.reported:.3g} | {row.distinct} | "
            f"{row.exact:.3g} | {row.reported / row.exact:.3g} |"
        )
    lines += ["", "On unmarked human texts (English, gamma 1/4, one preceding token):", ""]
    lines += ["| rule | share of (key, text) pairs | pairs |", "|---|---|---|"]
    for name, (hits, pairs) in false.items():
        low, high = clopper_pearson(hits, pairs)
        lines.append(f"| {name} | {hits / pairs:.4f} [{low:.4f}, {high:.4f}] | {pairs} |")
    return "\n".join(lines)


def show(rows: Sequence[Row]) -> None:
    """Prints rows, and whether their targets are met."""
    for row in rows:
        print(
            f"{row.id:28} {row.value:.6g} {row.interval or ''} n={row.n} {'' if row.met is None else row.met}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="10^4 pairs a method; writes nothing")
    known = {method.__name__: method for method in METHODS}
    parser.add_argument(
        "--only", default="", metavar="NAME,...", help=f"of {', '.join(known)}; writes nothing"
    )
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    if unknown := sorted(set(only) - set(known)):
        sys.exit(f"error: no method {', '.join(unknown)}; there are {', '.join(known)}")
    pairs, texts, photos = (10_000, 100, 2) if options.quick else (1_000_000, 500, 23)

    def said(what: str) -> None:
        print(what, file=sys.stderr, flush=True)

    try:
        texted = not only or any(method in only for method in ("binplus", "kgw", "unigram", "tournament"))
        prose = {language: human_tokens(language) for language in ("en", "zh") if texted}
        written = {language: texts_of(tokens, texts) for language, tokens in prose.items()}
        layers = [] if only and not any(method.startswith("wfp") for method in only) else model_tensors()
        pictures = [Picture(photo.picture) for photo in held_out()[:photos]]
    except FetchError as error:
        sys.exit(f"error: {error}")
    counts: dict[str, Count] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tensors = random_tensors(folder, 8) + layers
        objects = Objects(written, tensors, pictures=pictures)
        for method in only or known:
            said(f"unmarked objects: {method}")
            for label, block in known[method](objects, pairs):
                counts.setdefault(label, Count()).add(block)
        if "lkd" in (only or known) and "lkd" not in counts:
            said(f"lkd is left out: {TINY_LKD.relative_to(ROOT)} is not there")
        if only:
            show(rates(counts))
            return 0
        said("innocent licenses on marked weights")
        licenses = innocent_licenses(tensors, folder, pairs)
    said("innocent users of marked texts")
    users = innocent_users(4 if options.quick else 40)
    said("transformers' detector")
    table = peer_table()
    starts = range(0, (10 if options.quick else 500) * PAIRS, PAIRS)
    false = peer_false_positives([prose["en"][at : at + PAIRS] for at in starts], 1 if options.quick else 6)

    rows = [
        *rates(counts),
        proportion("innocent_license_hits", "BIN+ texts marked for another user: wrong users named, p_global < 1e-6",
                   users.hits, users.tests, target=1e-6, sense="<="),
        proportion("wfp_innocent_license_hits", "weights marked for another license: codewords with p_global < 1e-6",
                   licenses.hits, licenses.tests, target=1e-6, sense="<="),
        proportion("binplus_named", "marked texts that named their user in the same run", users.named, users.objects),
        proportion("wfp_named", "marked weights that named their license in the same run", licenses.named,
                   licenses.objects),
        proportion("binplus_chip_level_share", "innocent codewords at p <= 1e-6, were they scored at chip level",
                   users.chip_hits, users.chip_tests),
        proportion("wfp_chip_level_share", "innocent codewords at p <= 1e-6, were they scored at chip level",
                   licenses.chip_hits, licenses.chip_tests),
    ]  # fmt: skip
    show(rows)
    for reported in table:
        print(reported)
    print(false)
    if options.quick:
        return 0
    handbook = CORPORA["debian-handbook"]
    found = environment(
        numpy=np.__version__, texts=f"{handbook.package} {handbook.version}, sha256 {handbook.sha256[:16]}…",
        unmarked_weights=", ".join(sorted({t.what for t in tensors})),
    )  # fmt: skip
    write("calibration", "make bench-calibration", rows, environment=found, notes=notes(table, false))
    plot(counts)
    return 0 if all(row.met is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
