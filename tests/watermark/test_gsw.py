"""GSW on the small trained model: marked copies name their license by what they write, unmarked texts do not."""

from __future__ import annotations

import bisect
import hashlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Array, to_bf16, write_tensors
from safetensors.numpy import save_file
from scipy.stats import beta

from zhiyi_watermark import prf, stats
from zhiyi_watermark import text_gaussian as gsw
from zhiyi_watermark.attacks import weights as attacks
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.model_folder import load_model, load_tokenizer
from zhiyi_watermark.tensorfile import Checkpoint, TensorFile
from zhiyi_watermark.weights import TensorShape

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny-lm"
MODEL_KEY = hashlib.sha256(b"a model's key").digest()
GUILTY = 7
KEYS = {license: gsw.license_key(MODEL_KEY, license) for license in range(20)}
UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"


def load(folder: Path, dtype: Any = torch.float32) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def written(model: Any, rows: int, tokens: int, seed: int, temperature: float = 1.0) -> list[list[int]]:
    """Texts of the model after `The system`, which no detector sees."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    prompt = torch.tensor([tokenizer.encode("The system")] * rows)
    torch.manual_seed(seed)
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=True, top_k=50, temperature=temperature,
        max_new_tokens=tokens, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    found: list[list[int]] = out[:, prompt.shape[1] :].tolist()
    return found


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def spec() -> gsw.GswSpec:
    return gsw.plan(TINY, epsilon=0.3)  # the model is small: it bears a larger step than the default


@pytest.fixture(scope="module")
def base() -> Any:
    return load(TINY)


@pytest.fixture(scope="module")
def copy(spec: gsw.GswSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gsw") / "copy"
    gsw.mark(TINY, out, KEYS[GUILTY], spec)
    return out


@pytest.fixture(scope="module")
def marked_texts(copy: Path) -> list[list[int]]:
    return written(load(copy), 5, 200, 1)


@pytest.fixture(scope="module")
def marked(base: Any, marked_texts: list[list[int]], spec: gsw.GswSpec) -> gsw.Gradient:
    return gsw.gradient(base, marked_texts, spec)


@pytest.fixture(scope="module")
def unmarked(base: Any, spec: gsw.GswSpec) -> gsw.Gradient:
    return gsw.gradient(base, written(base, 3, 200, 2), spec)


# --- what is found ---


def test_a_marked_copys_texts_name_its_license(marked: gsw.Gradient, spec: gsw.GswSpec) -> None:
    found = gsw.detect(marked, spec, KEYS)
    assert (found.decision, found.license, found.also) == ("detected", GUILTY, ())
    assert (found.method, found.hypotheses, found.law) == ("gsw-2", 20, "exact")
    assert found.spec_hash == spec.spec_hash().hex()
    assert found.sum_q2 == int((marked.q.astype(np.int64) ** 2).sum())


def test_they_name_nobody_when_the_license_is_not_among_those_tried(
    marked: gsw.Gradient, spec: gsw.GswSpec
) -> None:
    others = {license: key for license, key in KEYS.items() if license != GUILTY}
    found = gsw.detect(marked, spec, others)
    assert found.license is None
    assert found.decision != "detected"


def test_texts_of_the_base_name_nobody(unmarked: gsw.Gradient, spec: gsw.GswSpec) -> None:
    found = gsw.detect(unmarked, spec, KEYS)
    assert (found.decision, found.license) == ("not_detected", None)


def test_every_hypothesis_is_counted(marked: gsw.Gradient, spec: gsw.GswSpec) -> None:
    once = gsw.detect(marked, spec, KEYS)
    more = gsw.detect(marked, spec, KEYS, models=3, grind_bits=5)
    assert more.hypotheses == 3 * 32 * once.hypotheses
    assert more.log2_p == once.log2_p
    assert more.log2_p_global == pytest.approx(once.log2_p_global + math.log2(96), abs=1e-5)
    case = gsw.detect(marked, spec, KEYS, threshold=stats.CONVICT, grind_bits=stats.GRIND_CORRECTION_BITS)
    assert case.decision == "inconclusive"  # a thousand tokens trace, they do not convict
    assert case.license is None


def test_unmarked_texts_have_fair_p_values(unmarked: gsw.Gradient, spec: gsw.GswSpec) -> None:
    keys = [gsw.license_key(MODEL_KEY, 1000 + i) for i in range(1500)]
    tail_of, _ = gsw.law_of(unmarked)
    found = sorted(gsw.totals(unmarked, spec, keys).tolist())
    for level in (Fraction(1, 100), Fraction(1, 10)):
        hits = len(keys) - bisect.bisect_left(found, True, key=lambda t, p=level: tail_of(t).at_most(p))
        low, high = beta.ppf((5e-5, 1 - 5e-5), (hits, hits + 1), (len(keys) - hits + 1, len(keys) - hits))
        assert low <= float(level) <= high


def test_two_copies_averaged_name_both(base: Any, copy: Path, spec: gsw.GswSpec, tmp_path: Path) -> None:
    """Each pattern is halved, so each names its license with four times the tokens; here the step is larger."""
    strong = replace(spec, epsilon=0.6)
    averaged = load(TINY)
    for license in (3, 4):
        gsw.mark(TINY, tmp_path / str(license), KEYS[license], strong)
    parts = [load(tmp_path / str(license)).state_dict() for license in (3, 4)]
    averaged.load_state_dict({name: (value + parts[1][name]) / 2 for name, value in parts[0].items()})
    found = gsw.detect(gsw.gradient(base, written(averaged, 6, 200, 3), strong), strong, KEYS)
    assert {found.license, *found.also} == {3, 4}


@pytest.mark.parametrize("attack", ["prune", "int8", "int4"])
def test_an_attacked_copys_texts_still_name_its_license(
    base: Any, copy: Path, spec: gsw.GswSpec, tmp_path: Path, attack: str
) -> None:
    """A fifth of the weights pruned, and rounding to 8 and to 4 bits."""
    out = tmp_path / "attacked"
    if attack == "prune":
        attacks.prune(copy, out, 0.2)
    else:
        attacks.quantise(copy, out, int(attack[3:]), group=32)
    found = gsw.detect(gsw.gradient(base, written(load(out), 5, 200, 1), spec), spec, KEYS)
    assert (found.decision, found.license, found.also) == ("detected", GUILTY, ())


def z_of(gradient: gsw.Gradient, spec: gsw.GswSpec) -> float:
    """The guilty license's T over the root of the sum of q^2: 0 +- 1 without a mark."""
    return float(
        gsw.totals(gradient, spec, [KEYS[GUILTY]])[0] / math.sqrt((gradient.q.astype(float) ** 2).sum())
    )


def test_fine_tuning_a_little_leaves_the_mark_and_much_of_it_does_not(
    base: Any, copy: Path, spec: gsw.GswSpec, tmp_path: Path
) -> None:
    """A limit, and so said in docs/marks.md: training on other texts undoes what the pattern does to the outputs long
    before it undoes the pattern in the weights."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    text = tokenizer.encode((TINY / "piece.txt").read_text(encoding="utf-8"))
    names = [t.name for t in spec.tensors]
    legs = [
        attacks.Leg(math.inf, 1e-4, tmp_path / "little", 15),
        attacks.Leg(math.inf, 2e-3, tmp_path / "much", 40),
    ]
    attacks.finetune(copy, legs, text, watched=names, seed=1)
    little = gsw.gradient(base, written(load(tmp_path / "little"), 5, 200, 1), spec)
    assert gsw.detect(little, spec, KEYS).license == GUILTY
    much = gsw.gradient(base, written(load(tmp_path / "much"), 5, 200, 1), spec)
    assert gsw.detect(much, spec, KEYS).license is None
    assert z_of(much, spec) < z_of(little, spec) - 3


@pytest.fixture(scope="module")
def teacher(
    spec: gsw.GswSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, gsw.GswSpec, list[int]]:
    """A copy with a larger step, so that students need few lessons; and what it wrote for them."""
    strong = replace(spec, epsilon=0.6)
    out = tmp_path_factory.mktemp("gsw-teacher") / "copy"
    gsw.mark(TINY, out, KEYS[GUILTY], strong)
    return out, strong, [token for text in written(load(out), 40, 200, 5) for token in text]


def test_the_base_taught_by_a_copys_texts_names_that_copy(
    base: Any, teacher: tuple[Path, gsw.GswSpec, list[int]], tmp_path: Path
) -> None:
    """It never had the pattern in its weights."""
    _, strong, lessons = teacher
    legs = [attacks.Leg(math.inf, 1e-3, tmp_path / "taught", 30)]
    attacks.finetune(TINY, legs, lessons, watched=[strong.tensors[0].name], seed=1, batch=2)
    found = gsw.detect(
        gsw.gradient(base, written(load(tmp_path / "taught"), 15, 200, 1), strong), strong, KEYS
    )
    assert (found.decision, found.license, found.also) == ("detected", GUILTY, ())


def test_a_student_with_new_weights_leans_to_its_teachers_license(
    base: Any, teacher: tuple[Path, gsw.GswSpec, list[int]], tmp_path: Path
) -> None:
    """After so few lessons too little to name it, but more than 99 of 100 innocent licenses would have."""
    folder, strong, lessons = teacher
    attacks.distil(
        folder, tmp_path / "student", {"num_hidden_layers": 1}, lessons,
        seed=1, steps=150, lr=5e-3, batch=4, length=32,
    )  # fmt: skip
    found = gsw.gradient(base, written(load(tmp_path / "student"), 15, 200, 1), strong)
    assert z_of(found, strong) > 2.33
    assert gsw.detect(found, strong, KEYS).license in (None, GUILTY)


# --- the gradient ---


@pytest.mark.parametrize("top_k", [0, 50])
def test_the_total_is_the_slope_of_the_likelihood_along_the_pattern(
    base: Any, marked_texts: list[list[int]], spec: gsw.GswSpec, top_k: int
) -> None:
    """Central differences of log p at temperature .7, of the base's likeliest tokens where the sampler draws only from
    those, along a license's pattern, up to one common unit."""
    cool = replace(spec, temperature=0.7, top_k=top_k)
    text = marked_texts[0][:64]
    drawn = torch.tensor(text[1:])
    with torch.no_grad():
        wide = base(torch.tensor([text])).logits[0, :-1]
    possible = torch.zeros_like(wide, dtype=torch.bool)
    possible.scatter_(1, wide.topk(top_k or wide.shape[1], dim=1).indices, True)
    counted = possible.gather(1, drawn[:, None])[:, 0]  # the copy may have drawn what the base could not
    keys = [gsw.license_key(MODEL_KEY, i) for i in range(100, 106)]
    gradient = gsw.gradient(base, [text], cool)
    found = gsw.totals(gradient, cool, keys)
    slopes = []
    for key in keys:
        sides = []
        for sign in (1, -1):
            moved = load(TINY)
            parameters = dict(moved.named_parameters())
            with torch.no_grad():
                for tensor, number, low, high in gsw._blocks(cool.tensors):
                    bits = np.unpackbits(gsw._stream(key, tensor, number, high - low), count=high - low)
                    pattern = torch.from_numpy(2.0 * bits - 1).float().reshape(tensor.shape)
                    parameter = parameters[tensor.name]
                    parameter += sign * 0.01 * parameter.std(correction=0) * pattern
                logits = moved(torch.tensor([text])).logits[0, :-1].double() / 0.7
            chosen = torch.log_softmax(logits.where(possible, -torch.inf), -1).gather(1, drawn[:, None])[:, 0]
            sides.append(float(chosen[counted].sum()))
        slopes.append(sides[0] - sides[1])
    unit = (found @ slopes) / (found @ found)
    assert unit > 0
    rounding = math.sqrt(gradient.q.size / 12)  # standard deviation of T from rounding q
    assert np.abs(found - np.array(slopes) / unit).max() < 4 * rounding < 0.4 * np.abs(found).max()


def test_the_callers_model_is_left_as_it_was(marked_texts: list[list[int]], spec: gsw.GswSpec) -> None:
    model = load(TINY).train()
    flags = {}
    for i, (name, parameter) in enumerate(model.named_parameters()):
        parameter.requires_grad_(i % 2 == 0)
        flags[name] = i % 2 == 0
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gsw.gradient(model, [marked_texts[0][:20]], spec)
    assert model.training
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_folder_and_a_loaded_model_give_one_gradient(
    base: Any, marked_texts: list[list[int]], spec: gsw.GswSpec
) -> None:
    text = marked_texts[0][:40]
    ours, theirs = gsw.gradient(base, [text], spec), gsw.gradient(TINY, [text], spec)
    assert gsw.agreement(ours, theirs) == 1
    assert ours.texts_hash == theirs.texts_hash


def test_a_bf16_model_sees_the_mark_too(
    marked: gsw.Gradient, marked_texts: list[list[int]], spec: gsw.GswSpec
) -> None:
    coarse = gsw.gradient(load(TINY, torch.bfloat16), marked_texts, spec)
    assert gsw.detect(coarse, spec, KEYS).license == GUILTY
    assert gsw.agreement(marked, coarse) > Fraction(4, 5)


def test_two_threads_agree_with_one(base: Any, marked_texts: list[list[int]], spec: gsw.GswSpec) -> None:
    one = gsw.gradient(base, marked_texts[:1], spec)
    torch.set_num_threads(2)
    try:
        two = gsw.gradient(base, marked_texts[:1], spec)
    finally:
        torch.set_num_threads(1)
    assert gsw.detect_shared(one, two, spec, KEYS) == gsw.detect(one, spec, KEYS)


def test_a_text_given_twice_counts_once_and_texts_add_up(
    base: Any, marked_texts: list[list[int]], spec: gsw.GswSpec
) -> None:
    a, b = marked_texts[0][:30], marked_texts[1][:30]
    once, twice = gsw.gradient(base, [a, b], spec), gsw.gradient(base, [a, b, a, tuple(b)], spec)
    assert np.array_equal(once.q, twice.q)
    assert (once.tokens, once.texts_hash) == (58, twice.texts_hash)
    assert gsw.gradient(base, [b, a], spec).texts_hash != once.texts_hash


def test_long_texts_are_cut_and_every_token_but_the_first_is_scored(
    base: Any, marked_texts: list[list[int]], spec: gsw.GswSpec
) -> None:
    short = replace(spec, window=16)
    for length in (2, 15, 16, 17, 31, 32, 33):
        assert gsw.gradient(base, [marked_texts[0][:length]], short).tokens == length - 1


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ([], UnavailableError),
        ([[]], UnavailableError),
        ([[5], [6]], UnavailableError),
        ([[5, 4096]], SpecError),
        ([[5, -1]], SpecError),
        ([[[5, 6], [7, 8]]], SpecError),
        ([[5, 1.5]], SpecError),
        (["text"], SpecError),
        ([[5, 1 << 70]], SpecError),
        ([[5] * (gsw.MAX_TOKENS + 1)], SpecError),
    ],
)
def test_texts_that_can_not_be_scored_are_refused(
    base: Any, spec: gsw.GswSpec, texts: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        gsw.gradient(base, texts, spec)


def test_other_weights_than_the_base_are_refused(
    copy: Path, marked_texts: list[list[int]], spec: gsw.GswSpec
) -> None:
    with pytest.raises(UnavailableError, match="SHA-256"):
        gsw.gradient(load(copy), marked_texts, spec)
    with pytest.raises(UnavailableError, match="SHA-256"):
        gsw.gradient(load(TINY, torch.float16), marked_texts, spec)  # bf16 does not fit fp16
    lacking = replace(
        spec, tensors=(*spec.tensors, TensorShape("model.layers.9.mlp.up_proj.weight", (512, 192)))
    )
    with pytest.raises(UnavailableError, match="0 tensors"):
        gsw.gradient(load(TINY), marked_texts, lacking)
    turned = replace(spec, tensors=tuple(TensorShape(n, d[::-1]) for n, d in spec.tensors))
    with pytest.raises(UnavailableError, match="shape"):
        gsw.gradient(load(TINY), marked_texts, turned)


def test_texts_are_read_with_the_registered_tokenizer_only(spec: gsw.GswSpec, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    (ids,) = gsw.encode(TINY, ["The ﬁrewall\u200b stops"], spec)
    assert tokenizer.decode(ids) == "The firewall stops"
    shutil.copytree(TINY, tmp_path / "other")
    changed = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    changed["model"]["vocab"]["zz"] = changed["model"]["vocab"].pop(next(reversed(changed["model"]["vocab"])))
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(UnavailableError, match=r"tokenizer\.json has SHA-256"):
        gsw.encode(tmp_path / "other", ["text"], spec)
    (tmp_path / "other" / "tokenizer.json").unlink()
    with pytest.raises(UnavailableError, match="missing"):
        gsw.encode(tmp_path / "other", ["text"], spec)


def broken(folder: Path, name: str, content: str | None) -> Path:
    shutil.copytree(TINY, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content, encoding="latin-1")
    return folder


CONFIG = json.loads((TINY / "config.json").read_text())
DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "\xff\xfe"),
        (
            "tokenizer.json",
            '{"added_tokens": [], "model": {"type": "BPE"}}',
        ),  # a bare Exception of tokenizers
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"tokenizer_class": 3}'),
        ("config.json", DEEP),
    ],
    ids=range(8),
)
def test_a_broken_tokenizer_is_one_clear_error(tmp_path: Path, name: str, content: str | None) -> None:
    with pytest.raises(UnavailableError, match=r"no tokenizer can be loaded from .*; give the folder"):
        load_tokenizer(broken(tmp_path / "model", name, content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "[]"),
        ("config.json", "{}"),
        ("config.json", DEEP),
        ("config.json", json.dumps(CONFIG | {"hidden_size": "x"})),
        ("config.json", json.dumps(CONFIG | {"hidden_size": CONFIG["hidden_size"] * 2})),
        ("config.json", json.dumps(CONFIG | {"hidden_act": "nope"})),
        ("config.json", json.dumps(CONFIG | {"num_hidden_layers": CONFIG["num_hidden_layers"] + 1})),
        ("generation_config.json", "[]"),
        ("model.safetensors", None),
        ("model.safetensors", "\x80\x04 pickle"),
    ],
    ids=range(10),
)
def test_a_broken_model_is_one_clear_error(tmp_path: Path, name: str, content: str | None) -> None:
    with pytest.raises(UnavailableError, match=r"no language model can be loaded from .*; give the folder"):
        load_model(broken(tmp_path / "model", name, content))


def test_folders_without_a_model_are_named(tmp_path: Path) -> None:
    for load_it in (load_tokenizer, load_model):
        with pytest.raises(UnavailableError, match="no folder"):
            load_it(tmp_path / "none")
    with pytest.raises(UnavailableError, match=r"no config\.json"):
        load_model(tmp_path)


def test_a_base_is_loaded_once_for_all_texts(
    marked_texts: list[list[int]], spec: gsw.GswSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    made: list[int] = []

    def load_it(folder: Path) -> Any:
        loaded.append(folder)
        return load(folder)

    plain = gsw.gradient
    monkeypatch.setattr(gsw, "load_model", load_it)
    monkeypatch.setattr(gsw, "gradient", lambda *given: made.append(1) or plain(*given))
    base = gsw.Base(TINY)
    first, again, other = (
        base.gradient([text[:30]], spec) for text in (marked_texts[0], marked_texts[0], marked_texts[1])
    )
    assert loaded == [TINY]
    assert first is again
    assert not np.array_equal(first.q, other.q)
    assert len(made) == 2


# --- sharing it ---


def test_a_gradient_survives_its_file_and_a_changed_file_does_not(
    marked: gsw.Gradient, spec: gsw.GswSpec, tmp_path: Path
) -> None:
    path = tmp_path / "q.safetensors"
    marked.save(path)
    again = gsw.Gradient.load(path, spec)
    assert np.array_equal(again.q, marked.q)
    assert again.digest() == marked.digest()
    assert gsw.detect(again, spec, KEYS) == gsw.detect(marked, spec, KEYS)
    raw = bytearray(path.read_bytes())
    (start,) = (entry.start for entry in TensorFile(path).entries if entry.name == "q")
    raw[start + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CarrierError, match="hash"):
        gsw.Gradient.load(path, spec)


def test_other_files_are_no_gradient(marked: gsw.Gradient, spec: gsw.GswSpec, tmp_path: Path) -> None:
    good, path = tmp_path / "good.safetensors", tmp_path / "q.safetensors"
    marked.save(good)

    def refused(match: str, of: gsw.GswSpec = spec) -> None:
        with pytest.raises(CarrierError, match=match):
            gsw.Gradient.load(path, of)

    refused("cannot be read")  # missing
    path.mkdir()
    refused("is no plain file")
    path.rmdir()
    whole = good.read_bytes()
    for cut in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused("header|cut")
    path.write_bytes(b"\x80\x04pickle")
    refused("pickle")
    with path.open("wb") as file:
        np.savez(file, q=np.array([{}], dtype=object))
    refused("pickle or a zip archive")
    write_tensors(path, {"q": np.zeros(4, dtype=np.int8), "about": np.zeros(4, dtype=np.int8)})
    refused("other tensors")
    replace(marked, q=marked.q[:-1]).save(path)
    refused(f"{spec.weights - 1} weights, the spec has {spec.weights}")
    marked.save(path)
    refused("of the spec", replace(spec, temperature=0.7))
    for changed in ({"tokens": "1"}, {"tokens": True}, {"texts_hash": ["a"]}):
        replace(marked, **changed).save(path)
        refused("other types")
    replace(marked, q=np.full_like(marked.q, gsw.LEVELS + 1)).save(path)
    refused("too large")
    about = np.frombuffer(b"[" * 4000, dtype=np.uint8)
    save_file({"about": about, "q": marked.q}, path)
    refused("too deep|Expecting value")  # libraries may have raised the limit of recursion


def with_license_3(q: gsw.Gradient, spec: gsw.GswSpec) -> gsw.Gradient:
    """Within one unit everywhere, and yet with an overwhelming T of license 3."""
    signs = np.concatenate([
        2 * np.unpackbits(gsw._stream(KEYS[3], t, number, high - low), count=high - low).astype(np.int8) - 1
        for t, number, low, high in gsw._blocks(spec.tensors)
    ])  # fmt: skip
    forged = replace(q, q=np.clip(q.q + signs, -gsw.LEVELS, gsw.LEVELS))
    assert gsw.agreement(q, forged) == 1
    return forged


def test_who_adds_a_license_to_the_shared_gradient_is_found_out(
    unmarked: gsw.Gradient, marked: gsw.Gradient, spec: gsw.GswSpec
) -> None:
    """Closeness alone would let it pass, as would the license alone where another is guilty besides."""
    forged = with_license_3(unmarked, spec)
    assert gsw.detect(forged, spec, KEYS, threshold=stats.CONVICT).license == 3
    with pytest.raises(CarrierError, match="do not sign"):
        gsw.detect_shared(forged, unmarked, spec, KEYS)
    accomplice = with_license_3(marked, spec)
    assert {3, GUILTY} <= {
        gsw.detect(accomplice, spec, KEYS).license,
        *gsw.detect(accomplice, spec, KEYS).also,
    }
    with pytest.raises(CarrierError, match="do not sign"):
        gsw.detect_shared(accomplice, marked, spec, KEYS)


def test_a_shared_gradient_that_differs_too_often_is_refused(
    marked: gsw.Gradient, unmarked: gsw.Gradient, spec: gsw.GswSpec
) -> None:
    q = marked.q.copy()
    most = q.size // 100
    q[:most] = np.where(q[:most] > 0, q[:most] - 2, q[:most] + 2)
    assert gsw.detect_shared(replace(marked, q=q), marked, spec, KEYS).license == GUILTY
    q[most + 1] += 2 if q[most + 1] <= 0 else -2
    with pytest.raises(CarrierError, match="agrees"):
        gsw.detect_shared(replace(marked, q=q), marked, spec, KEYS)
    with pytest.raises(UnavailableError, match="different texts"):
        gsw.detect_shared(unmarked, marked, spec, KEYS)


def test_what_two_operators_gradients_say_is_told_apart(
    unmarked: gsw.Gradient, marked: gsw.Gradient, spec: gsw.GswSpec
) -> None:
    same = gsw.compare_shared(marked, marked, spec, KEYS)
    assert (same.agreement, set(same.same.values())) == (1, {True})
    assert same.accepted() == same.own
    forged = gsw.compare_shared(with_license_3(unmarked, spec), unmarked, spec, KEYS)
    assert (forged.agreement, set(forged.same.values())) == (1, {False})
    accomplice = gsw.compare_shared(with_license_3(marked, spec), marked, spec, KEYS)
    assert (accomplice.same["decision"], accomplice.same["license"]) == (True, False)
    for one in (forged, accomplice):
        with pytest.raises(CarrierError, match="do not sign"):
            one.accepted()


# --- totals ---


def test_totals_are_sums_over_signs_that_are_used_once() -> None:
    """Two tensors, one longer than a block of the stream: every key's T is the plain sum."""
    tensors = (TensorShape("a.up_proj.weight", (1100, 1000)), TensorShape("b.up_proj.weight", (3, 7)))
    made = gsw.GswSpec(tensors, "0" * 64, "0" * 64)
    q = np.random.default_rng(0).standard_t(1, made.weights).clip(-2047, 2047).astype(np.int16)
    keys = [KEYS[1], KEYS[2]]
    signs = np.stack([
        np.concatenate([
            prf.signs(prf.derive_key(key, "gsw signs", name.encode(), number), count)
            for name, number, count in (("a.up_proj.weight", 0, 1 << 20),
                                        ("a.up_proj.weight", 1, 1_100_000 - (1 << 20)), ("b.up_proj.weight", 0, 21))
        ])
        for key in keys
    ])  # fmt: skip
    assert int(np.abs(q[: 1 << 16]).sum()) < 1 << 24  # summed in float32, and in float64:
    q[1 << 17 : 1 << 18] = 2047 - (np.arange(1 << 17) & 1)
    found = gsw.totals(gsw.Gradient(q, made.spec_hash().hex(), "", 1), made, keys)
    assert found.tolist() == (signs.astype(np.int64) @ q.astype(np.int64)).tolist()
    assert abs(int((signs[0].astype(np.int64) * signs[1]).sum())) < 6 * math.sqrt(made.weights)


def test_a_golden_verdict_from_fixed_integers() -> None:
    """Any machine and release says this of these integers: signs, totals, law, decision, digest."""
    tensors = (TensorShape("a.up_proj.weight", (64, 48)), TensorShape("b.up_proj.weight", (3, 7)))
    made = gsw.GswSpec(tensors, "0" * 64, "1" * 64)
    place = np.arange(made.weights)
    q = (place * place * 7919 % 23 - 11).astype(np.int16)
    of_a = prf.signs(prf.derive_key(KEYS[2], "gsw signs", b"a.up_proj.weight", 0), 64 * 48)
    q[: 64 * 48] += 2 * of_a.astype(np.int16)
    gradient = gsw.Gradient(q, made.spec_hash().hex(), "2" * 64, 500)
    keys = {license: KEYS[license] for license in (1, 2, 3)}
    found = gsw.detect(gradient, made, keys)
    assert made.spec_hash().hex() == "d9082e110a7e73b90735de0742b99e460802d35e9633c2e74ebd0e417afc3dee"
    assert gsw.totals(gradient, made, list(keys.values())).tolist() == [-61, 6379, 481]
    said = (
        found.decision,
        found.license,
        found.also,
        found.law,
        found.n,
        found.T,
        found.sum_q2,
        found.bucket,
    )
    assert said == ("detected", 2, (), "bound", 3091, 6379, 158367, 40)
    assert found.digest(MODEL_KEY).hex() == "cd24192d96eec2c6fb17fcbb8e44fe6b2ba932fdc4d51b8c844cc32279920aaf"


def test_bad_keys_and_foreign_gradients_are_refused(marked: gsw.Gradient, spec: gsw.GswSpec) -> None:
    with pytest.raises(SpecError, match="0 licenses"):
        gsw.detect(marked, spec, {})
    with pytest.raises(SpecError, match="one key"):
        gsw.detect(marked, spec, {1: KEYS[1], 2: KEYS[1]})
    with pytest.raises(SpecError, match="32 bytes"):
        gsw.detect(marked, spec, {1: b"short"})
    with pytest.raises(SpecError, match="another specification"):
        gsw.detect(marked, replace(spec, temperature=0.7), KEYS)
    with pytest.raises(SpecError, match="another specification"):
        gsw.detect(replace(marked, q=marked.q[1:]), spec, KEYS)


# --- marking ---


def bundle(folder: Path, tensors: Mapping[str, Array], *, shards: int = 1) -> Path:
    """A folder like a model's: shards, config and tokenizer files."""
    folder.mkdir()
    names = list(tensors)
    for i in range(shards):
        write_tensors(folder / f"model-{i}.safetensors", {n: tensors[n] for n in names[i::shards]})
    (folder / "config.json").write_text('{"max_position_embeddings": 300}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "extra").mkdir()
    (folder / "extra" / "note.txt").write_text("kept")
    return folder


def small(dtype: str) -> dict[str, Array]:
    rng = np.random.default_rng(5)
    up = rng.normal(0, 0.05, (64, 48)).astype(np.float32)
    up[0, :3] = (0.0, np.nan, np.inf)
    down = rng.normal(0, 0.2, (48, 64)).astype(np.float32)
    norm = np.ones(48, dtype=np.float32)
    made = {DOWN: down, UP: up, "model.norm.weight": norm, "model.embed_tokens.weight": down}
    if dtype == "bf16":
        return {name: to_bf16(value) for name, value in made.items()}
    return {name: value.astype(dtype) for name, value in made.items()}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bf16"])
def test_a_copy_differs_by_one_step_in_every_declared_weight(tmp_path: Path, dtype: str) -> None:
    source = bundle(tmp_path / "base", small(dtype))
    made = gsw.plan(source, epsilon=0.05)
    assert [t.name for t in made.tensors] == [DOWN, UP]
    assert made.window == 300
    seen: list[tuple[int, int]] = []
    report = gsw.mark(source, tmp_path / "copy", KEYS[0], made, lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]
    assert report.positions == made.weights - 3  # a zero, a NaN, an infinity
    assert report.spec_hash == made.spec_hash().hex()
    with Checkpoint(source) as old, Checkpoint(tmp_path / "copy") as new:
        for (name, shape), size in ((t, math.prod(t.shape)) for t in made.tensors):
            before, after = old.floats(name, shape), new.floats(name, shape)
            live = np.isfinite(before) & (before != 0)
            assert np.array_equal(before[~live], after[~live], equal_nan=True)
            sign = prf.signs(prf.derive_key(KEYS[0], "gsw signs", name.encode(), 0), size)
            step = 0.05 * float(before[np.isfinite(before)].std())
            rounding = np.abs(before) * {"float32": 2e-7, "float16": 1e-3, "bf16": 8e-3}[dtype] + 0.005 * step
            assert (np.abs(after[live] - before[live] - sign[live] * step) <= rounding[live]).all()
        for name in ("model.norm.weight", "model.embed_tokens.weight"):
            assert old.raw(name) == new.raw(name)
    for name in ("config.json", "tokenizer.json", "extra/note.txt"):
        assert (tmp_path / "copy" / name).read_bytes() == (source / name).read_bytes()


def test_shards_and_a_second_run_give_the_same_weights(tmp_path: Path) -> None:
    whole = bundle(tmp_path / "whole", small("bf16"))
    parts = bundle(tmp_path / "parts", small("bf16"), shards=3)
    made = gsw.plan(whole)
    assert gsw.plan(parts) == made
    for source, out in ((whole, "a"), (whole, "b"), (parts, "c")):
        gsw.mark(source, tmp_path / out, KEYS[0], made)
    with Checkpoint(tmp_path / "a") as a, Checkpoint(tmp_path / "b") as b, Checkpoint(tmp_path / "c") as c:
        for name in (UP, DOWN, "model.norm.weight"):
            assert a.raw(name) == b.raw(name) == c.raw(name)
    assert not list(tmp_path.glob(".zhiyi-mark-*"))


def test_what_can_not_be_marked_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = bundle(tmp_path / "base", small("bf16"))
    made, key, out = gsw.plan(source), KEYS[0], tmp_path / "copy"

    def refused(error: type[Exception], match: str, **changed: Any) -> None:
        given = {"base": source, "out": out, "key": key, "spec": made} | changed
        with pytest.raises(error, match=match):
            gsw.mark(**given)
        assert not out.exists()
        assert not list(tmp_path.glob(".zhiyi-mark-*"))

    refused(SpecError, "32 bytes", key=b"k")
    refused(SpecError, "no folder", base=source / "model-0.safetensors")
    refused(SpecError, "exists", out=source)
    refused(SpecError, "inside", out=source / "copy")
    refused(UnavailableError, "SHA-256", spec=replace(made, base_hash="1" * 64))
    refused(
        UnavailableError, "missing", spec=replace(made, tensors=(TensorShape("no.up_proj.weight", (4, 4)),))
    )
    refused(UnavailableError, "shape", spec=replace(made, tensors=(TensorShape(UP, (48, 64)),)))
    for name in ("pytorch_model.bin", "extra/model.gguf", "extra/model.safetensors"):
        (source / name).write_bytes(b"unmarked")
        refused(CarrierError, "unmarked")
        (source / name).unlink()
    (source / "link.json").symlink_to(source / "config.json")
    refused(CarrierError, "plain file")
    (source / "link.json").unlink()
    torn = (source / "model-0.safetensors").read_bytes()[:-8]
    (source / "model-0.safetensors").write_bytes(torn)
    refused(CarrierError, "cut or padded")


def test_plans_need_a_language_models_folder(tmp_path: Path) -> None:
    source = bundle(tmp_path / "base", {"model.norm.weight": np.ones(8, dtype=np.float32)})
    with pytest.raises(SpecError, match="no tensor"):
        gsw.plan(source)
    source = bundle(tmp_path / "other", small("bf16"))
    for text in ("[]", "[" * 5000 + "]" * 5000, '{"max_position_embeddings": true}', "\x80"):
        (source / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(UnavailableError, match=r"config\.json"):
            gsw.plan(source)
    (source / "tokenizer.json").unlink()
    (source / "config.json").write_text("{}")
    with pytest.raises(UnavailableError, match=r"tokenizer\.json"):
        gsw.plan(source)
    with pytest.raises(UnavailableError):
        gsw.plan(tmp_path / "nothing")


def test_a_spec_reads_back_and_its_hash_covers_all_of_it(spec: gsw.GswSpec) -> None:
    assert gsw.GswSpec.from_json(spec.to_json()) == spec
    changes: tuple[dict[str, Any], ...] = (
        {"tensors": spec.tensors[1:]}, {"base_hash": "1" * 64}, {"tokenizer_hash": "1" * 64}, {"epsilon": 0.1},
        {"temperature": 0.7}, {"window": 99}, {"top_k": 0},
    )  # fmt: skip
    hashes = {spec.spec_hash(), *(replace(spec, **change).spec_hash() for change in changes)}
    assert len(hashes) == len(changes) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": ()},
        {"tensors": (TensorShape("a", (2, 0)),)},
        {"tensors": (TensorShape("a", (2, 2)), TensorShape("a", (2, 2)))},
        {"epsilon": 0.0},
        {"epsilon": math.nan},
        {"temperature": 0.0},
        {"window": 1},
        {"top_k": -1},
        {"base_hash": "xyz"},
        {"tokenizer_hash": ""},
    ],
)
def test_specs_out_of_range_are_refused(spec: gsw.GswSpec, change: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        replace(spec, **change)


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": [["a", ["2", 2]]]},
        {"tensors": [["a", [2.0, 2]]]},
        {"tensors": [["\ud800", [2, 2]]]},
        {"tensors": {"a": [2, 2]}},
        {"epsilon": "0.1"},
        {"epsilon": 1},
        {"temperature": None},
        {"window": 64.0},
        {"window": True},
        {"top_k": 50.0},
        {"base_hash": 0},
        {"more": 1},
    ],
)
def test_specs_of_other_types_are_refused_not_converted(spec: gsw.GswSpec, change: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        gsw.GswSpec.from_json(json.dumps(json.loads(spec.to_json()) | change))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"tensors": 3}',
        '{"tensors": [["a"]]}',
        "null",
        '{"tensors":' * 1200 + "1" + "}" * 1200,
    ],
)
def test_texts_that_are_no_spec_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        gsw.GswSpec.from_json(text)


def test_keys_of_licenses_and_digests_differ() -> None:
    keys = {gsw.license_key(MODEL_KEY, 1), gsw.license_key(MODEL_KEY, 2), gsw.license_key(bytes(32), 1)}
    assert len(keys | {gsw.digest_key(MODEL_KEY)}) == 4


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, zhiyi_watermark.text_gaussian; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
