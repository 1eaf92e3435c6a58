"""Speed of the text marks and of fingerprint detection, each beside what it is compared with, on one core.

    python benchmarks/text_speed.py            # about ten CPU minutes; writes docs/benchmarks/text_speed.json and .md
    python benchmarks/text_speed.py --quick    # a minute, few tokens and rounds; writes nothing

Generating is transformers' generate() of SmolLM2-135M-Instruct in float32 with one thread, every variant once a round
in turn, and a ratio is the median over the rounds of plain / marked CPU seconds for as many tokens. Beside our marks
stand transformers' own. Detecting is CPU seconds as well, from the text as found or from token ids; the fingerprint's
against one SHA-256 pass over the same file, in turn, in this process.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from report import Row, environment, write

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

from fetch_corpora import paragraphs  # noqa: E402
from fetch_model import FetchError, ensure_model  # noqa: E402
from zhiyi_watermark import prf, weights  # noqa: E402
from zhiyi_watermark.payload import Long, Short  # noqa: E402
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig  # noqa: E402
from zhiyi_watermark.text_stream import canonical_text  # noqa: E402
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, ZeroBit  # noqa: E402

KEY: Final = hashlib.sha256(b"text speed").digest()
TOKENS: Final = 500  # of the texts that are detected
LICENSES: Final = 10_000
PROMPT: Final = "Write an article about the history of libraries."


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every run, each once a round, after one round that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(rounds + 1):
        for name, run in runs.items():
            spent = seconds(run)
            if i:
                found[name].append(spent)
    return found


def ratio(found: dict[str, list[float]], over: str, name: str) -> float:
    """Median over the rounds of one run's seconds over another's."""
    return statistics.median(a / b for a, b in zip(found[over], found[name], strict=True))


# --- generating ---------------------------------------------------------------------------------------------


def generating(folder: Path, tokens: int, rounds: int) -> list[Row]:
    """generate_ratio of BIN+, and the same of the others."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        SynthIDTextWatermarkingConfig,
        WatermarkingConfig,
    )

    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    prompt = tokenizer(PROMPT, return_tensors="pt")

    def generate(**mark: Any) -> None:
        torch.manual_seed(1)
        out = model.generate(
            **prompt, do_sample=True, top_k=50, min_new_tokens=tokens, max_new_tokens=tokens,
            pad_token_id=tokenizer.eos_token_id, **mark,
        )  # fmt: skip
        if out.shape[1] != prompt["input_ids"].shape[1] + tokens:
            raise RuntimeError(f"{out.shape[1]} tokens came out, not {tokens} after the prompt")

    ours: dict[str, Callable[[], Any]] = {
        "generate_ratio": lambda: BinPlus(KEY).processor(Short(7)),
        "generate_ratio_long": lambda: BinPlus(KEY, BinPlusConfig(long=True)).processor(Long(7, 7)),
        "generate_ratio_kgw": lambda: ZeroBit(KEY, KGW).processor(),
        "generate_ratio_unigram": lambda: ZeroBit(KEY, UNIGRAM).processor(),
        "generate_ratio_tournament": lambda: ZeroBit(KEY, TOURNAMENT).processor(),
    }
    peers = {
        "transformers' KGW": WatermarkingConfig(),
        "transformers' SynthID": SynthIDTextWatermarkingConfig(ngram_len=5, keys=list(range(1, 31))),
    }
    runs: dict[str, Callable[[], object]] = {"plain": generate}
    for name, make in ours.items():
        runs[name] = lambda make=make: generate(logits_processor=[make()])  # type: ignore[misc]  # bound early
    for name, config in peers.items():
        runs[name] = lambda config=config: generate(watermarking_config=config)  # type: ignore[misc]  # bound early
    found = in_turn(runs, rounds)
    beside = {"generate_ratio_kgw": "transformers' KGW", "generate_ratio_tournament": "transformers' SynthID"}
    what = {
        "generate_ratio": "BIN+, 32 bits",
        "generate_ratio_long": "BIN+, 64 bits",
        "generate_ratio_kgw": "KGW",
        "generate_ratio_unigram": "Unigram",
        "generate_ratio_tournament": "tournament of 30 layers",
    }
    rows = []
    for name in ours:
        peer = beside.get(name)
        against = (peer, ratio(found, "plain", peer)) if peer else None
        line = f"{what[name]}: marked / plain tokens per second, {tokens} tokens"
        rows.append(Row(name, line, ratio(found, "plain", name), "", rounds, 0.95, ">=", against))
    speed = tokens / statistics.median(found["plain"])
    rows.append(Row("generate_plain", "plain generation, one thread", speed, "tokens per CPU second", rounds))
    return rows


# --- detecting ----------------------------------------------------------------------------------------------


def written(mark: BinPlus, length: int) -> list[int]:
    """Token ids that carry user 7: each the best of four by the mark's votes."""
    code = 2 * mark.code.encode(Long(7, 7) if mark.config.long else Short(7)).astype(int) - 1
    offered = prf.integers(KEY, 4 * length, 49_152).reshape(length, 4).tolist()
    text: list[int] = [offered[0][0], offered[1][0]]
    for tokens in offered[2:]:
        votes = mark.draws.signs(mark.draws.of_tokens(text[-2:], tokens)) @ code
        text.append(tokens[int(votes.argmax())])
    return text


def detecting(folder: Path, rounds: int) -> list[Row]:
    """detect_500_ms, detect_10k_licenses_s, and the same of the other marks."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids: list[int] = []
    for paragraph in paragraphs("en"):
        ids += tokenizer.encode(canonical_text(paragraph + "\n\n"), add_special_tokens=False)
        if len(ids) >= TOKENS:
            break
    text = tokenizer.decode(ids[:TOKENS], clean_up_tokenization_spaces=False)
    short, long = BinPlus(KEY), BinPlus(KEY, BinPlusConfig(long=True))
    users = frozenset(range(LICENSES))
    carrying, carrying_long = written(short, TOKENS), written(long, TOKENS)
    named = [short.detect(carrying, users), long.detect(carrying_long, users)]
    if any(found.payload is None for found in named):
        raise RuntimeError("the marked texts of this benchmark are not detected, so their time says nothing")
    cases: list[tuple[str, str, Callable[[], object], float | None]] = [
        ("detect_500_ms", "BIN+, a human-written text: normalised, tokenized, one user",
         lambda: short.detect_text(text, tokenizer, 1), 20.0),
        ("detect_500_marked_ms", "BIN+, token ids of a marked text", lambda: short.detect(carrying, 8), 20.0),
        ("detect_500_long_ms", "BIN+ of 64 bits, token ids of a marked text",
         lambda: long.detect(carrying_long, 8), None),
        *(
            (f"detect_500_{p.name}_ms", f"{p.name}, a human-written text: normalised, tokenized",
             lambda p=p: ZeroBit(KEY, p).detect_text(text, tokenizer), 20.0)
            for p in (KGW, UNIGRAM, TOURNAMENT)
        ),
    ]  # fmt: skip
    rows = []
    for name, what, run, target in cases:
        spent = 1000 * statistics.median(in_turn({name: run}, 3 * rounds)[name])
        line = f"{what}; {TOKENS} tokens, one key"
        rows.append(Row(name, line, spent, "ms", 3 * rounds, target, "<=" if target else None))
    many = in_turn({"human": lambda: short.detect_text(text, tokenizer, users),
                    "marked": lambda: short.detect(carrying, users)}, rounds)  # fmt: skip
    slower = max(statistics.median(times) for times in many.values())
    what = f"BIN+, {LICENSES} registered users in one pass; {TOKENS} tokens, the slower of a marked and a human text"
    rows.append(Row("detect_10k_licenses_s", what, slower, "s", rounds, 1.0, "<="))
    return rows


def fingerprint(folder: Path, rounds: int) -> list[Row]:
    """wfp_stream_ratio: SHA-256 seconds over detection's, on the model's file with the fingerprinter's spec."""
    path = folder / "model.safetensors"
    spec = weights.plan(folder)
    kit = weights.TraceKit.derive(KEY, spec)
    seed = prf.derive_key(KEY, "share")

    def digest() -> None:
        state = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                state.update(block)

    found = in_turn(
        {
            "SHA-256": digest,
            "trace": lambda: weights.trace(path, kit, range(LICENSES)),
            "confirm": lambda: weights.confirm(path, path, spec, 0, seed),
        },
        rounds,
    )
    size = path.stat().st_size
    read = sum(2 * rows * columns for rows, columns in (t.shape for t in spec.tensors))
    speed = size / statistics.median(found["SHA-256"]) / 1e9
    over = ("SHA-256 of the file", speed)
    which = f"SHA-256 seconds of the {size / 1e6:.0f} MB file over those of"
    return [
        Row("wfp_stream_ratio", f"{which} a blind trace of {LICENSES} licenses, which reads {read / 1e6:.0f} MB",
            ratio(found, "SHA-256", "trace"), "", rounds, 0.5, ">="),
        Row("wfp_stream_ratio_confirm", f"{which} one share confirmed against the base",
            ratio(found, "SHA-256", "confirm"), "", rounds, 0.5, ">="),
        Row("sha256_speed", over[0], over[1], "GB per CPU second", rounds),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few tokens and rounds; writes nothing")
    options = parser.parse_args()
    tokens, rounds = (12, 1) if options.quick else (96, 7)
    try:
        folder = ensure_model()
        rows = detecting(folder, rounds) + fingerprint(folder, rounds) + generating(folder, tokens, rounds)
    except FetchError as error:
        sys.exit(f"error: {error}")
    for row in rows:
        met = {None: "", True: "met", False: "NOT MET"}[row.met]
        beside = f"{row.against[0]} {row.against[1]:.4g}" if row.against else ""
        print(f"{row.id:28} {row.value:10.4g} {row.unit:22} {met:8} {beside}")
    if options.quick:
        return 0
    write("text_speed", "make bench-text-speed", rows, environment=environment(threads="1"), notes=NOTES)
    return 0 if all(row.met is not False for row in rows) else 1


NOTES: Final = """
CPU seconds of one thread, medians; ratios are of neighbouring runs. A mark's cost at generation is that of hashing
the surviving 50 tokens and of one more top-k pass, the same for every model, so its share falls as models grow.
The peer in a ratio's row is transformers' own mark of that kind in the same rounds, as its ratio to plain.
"""

if __name__ == "__main__":
    sys.exit(main())
