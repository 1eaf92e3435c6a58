"""The text marks and their peers on one model and the same prompts: strength, detection, attacks.

    python benchmarks/text_bench.py                      # all figures, from the kept texts: docs/benchmarks/text.*
    python benchmarks/text_bench.py --quick              # the same from a few texts each; writes nothing
    python benchmarks/text_bench.py --list               # which texts are kept and which are missing
    python benchmarks/text_bench.py --generate [--only SERIES,...] [--minutes M]    # makes what is missing
    python benchmarks/text_bench.py --match [--only METHOD,...]   # peers' strength, by step-wise perplexity
    python benchmarks/text_bench.py --score [--minutes M]     # GSW's detector on the texts of marked models
    python benchmarks/text_bench.py --regenerate N       # makes N kept texts again; fails if a token differs

Texts are made in batches of fixed composition and kept in benchmarks/texts/ (see texts.py). The figures never need the
model. Generation takes hours of a CPU in all; it can be stopped at any time and goes on at the first missing batch.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import torch

import text_series
from fetch_model import FetchError
from report import ROOT, environment, write
from text_figures import PEERS_PYTHON, TARGETS, Figures, Kept, carried, human_texts, plot
from text_model import Llama, stream
from text_model import write as write_texts
from text_series import MAIN, MATCHED, SERIES, STRENGTHS, Plan, Prompts, Series, current, load_prompts
from text_weights import score_missing
from texts import LIMIT, Store, Text

MATCH_ROUNDS: Final = 5
MATCH_TOKENS: Final = 150
MATCH_WITHIN: Final = 0.05  # parts of the target


def say(what: str) -> None:
    """To people, not into files."""
    print(what, file=sys.stderr, flush=True)


# --- generation ---------------------------------------------------------------------------------------------


class Progress:
    """Says how far a batch is, and remembers how long a token takes."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}  # a token of a batch, by its rows

    def expected(self, series: Series) -> float:
        """Seconds that a batch will take; 0 before the first."""
        return self.seconds.get(series.rows, max(self.seconds.values(), default=0.0)) * series.tokens

    def batch(
        self,
        model: Llama,
        prompts: Prompts,
        series: Series,
        plan: Plan,
        indices: Sequence[int],
        left: int,
    ) -> list[Text]:
        """Makes a batch. left: batches of the series, this one included."""
        started = time.monotonic()

        def tick(step: int) -> None:
            if (step + 1) % 100 == 0:
                each = (time.monotonic() - started) / (step + 1)
                rest = each * (left * series.tokens - step - 1) / 60
                where = f"{series.name} {indices[0]}-{indices[-1]}: {step + 1}/{series.tokens} tokens"
                say(f"  {where}, {len(indices) / each:.0f} a second; the series ends in {rest:.0f} min")

        texts = make(model, prompts, series, plan, indices, tick)
        self.seconds[series.rows] = (time.monotonic() - started) / series.tokens
        return texts


def make(
    model: Llama,
    prompts: Prompts,
    series: Series,
    plan: Plan,
    indices: Sequence[int],
    tick: Callable[[int], None] | None = None,
) -> list[Text]:
    """The texts of one batch."""
    streams = [stream(plan.keys[i]) for i in indices]
    mark = series.mark(indices)
    tokens, costs = write_texts(model, plan.asked(indices), series.sampling(prompts), streams, mark, tick)
    return [
        Text(plan.keys[i], i, series.written(row, prompts), round(float(cost), 6))
        for i, row, cost in zip(indices, tokens.tolist(), costs, strict=True)
    ]


@lru_cache(maxsize=1)
def loaded(folder: Path) -> Llama:
    """The model in a folder."""
    return Llama(folder)


def missing(store: Store, series: Series, plan: Plan) -> list[list[int]]:
    """The batches of which a text is not kept."""
    kept = store.current(series.name, plan.keys)
    return [batch for batch in plan.batches if any(i not in kept for i in batch)]


def generate(store: Store, prompts: Prompts, wanted: Sequence[Series], minutes: float) -> int:
    """Makes missing texts, series after series, until the time is over. Returns how many batches are still missing."""
    deadline = time.monotonic() + 60 * minutes
    progress = Progress()
    unmade = 0
    for series in wanted:
        if not series.ready:
            say(f"{series.name}: its strength is not known, run --match")
            continue
        if series.markllm and find_spec("markllm") is None:
            left = (deadline - time.monotonic()) / 60
            unmade += in_peers(["--generate", "--only", series.name, "--minutes", f"{left:.2f}"], series.name)
            continue
        plan = series.plan(prompts, store)
        todo = missing(store, series, plan)
        if not plan.batches:
            say(f"{series.name}: the texts that it starts from are missing")
            unmade += 1
        for at, batch in enumerate(todo):
            if time.monotonic() + progress.expected(series) > deadline:
                unmade += len(todo) - at
                say(f"{series.name}: {len(todo) - at} batches left for another time")
                break
            model = loaded(series.weights(prompts))
            store.add(series.name, progress.batch(model, prompts, series, plan, batch, len(todo) - at))
            say(f"{series.name}: kept {batch[0]}-{batch[-1]}")
    if store.size() > LIMIT:
        say(f"error: the kept texts have {store.size()} bytes, at most {LIMIT} may be committed")
    return unmade


def in_peers(arguments: Sequence[str], what: str) -> int:
    """Runs this script in MarkLLM's environment; 1 if it can't or fails, else 0."""
    if not PEERS_PYTHON.exists():
        say(f"{what}: run `make peers` first")
        return 1
    return int(subprocess.run([PEERS_PYTHON, __file__, *arguments], cwd=ROOT, check=False).returncode != 0)


def first_cost(prompts: Prompts, series: Series) -> float:
    """Nats a token over the first tokens of one batch."""
    tried = replace(series, name="match", count=series.rows, tokens=min(series.tokens, MATCH_TOKENS))
    keys = {i: f"match {series.method} {i}" for i in range(series.rows)}
    texts = make(loaded(prompts.folder), prompts, tried, Plan(keys, [], prompts.batch), list(keys))
    return sum(t.cost for t in texts) / sum(len(t.tokens) for t in texts)


def match(prompts: Prompts, methods: Sequence[str]) -> int:
    """Finds the strength at which a peer costs what the main series costs, and keeps it. Returns failures.

    Compared are first tokens: under a strong mark later ones repeat what was said, which costs nothing, and more of
    them the stronger the mark. The cost grows about as the square of the strength, so each try is the last one times
    the root of what is missing.
    """
    target = first_cost(prompts, SERIES[MAIN])
    failed = 0
    for method in methods:
        series = next(
            s for s in SERIES.values() if s.method == method and s.parameters.get("delta") == MATCHED
        )
        if series.markllm and find_spec("markllm") is None:
            failed += in_peers(["--match", "--only", method], method)
            continue
        costs: dict[float, float] = {}  # nats a token by strength
        delta = 1.5
        for _ in range(MATCH_ROUNDS):
            costs[delta] = first_cost(prompts, replace(series, parameters={"delta": delta}))
            say(
                f"{method}: delta {delta:g} costs {math.expm1(costs[delta]):.4f}, wanted {math.expm1(target):.4f}"
            )
            if abs(costs[delta] / target - 1) < MATCH_WITHIN:
                break
            delta = round(delta * min(2.5, max(0.4, math.sqrt(target / max(costs[delta], 1e-4)))), 3)
        best = min(costs, key=lambda d: abs(costs[d] - target))
        found = {"increase": round(math.expm1(costs[best]), 5), "wanted": round(math.expm1(target), 5)}
        keep_strength(method, {"delta": best, **found})
    return failed


def keep_strength(method: str, row: Mapping[str, float]) -> None:
    """Puts a strength into texts/strengths.json."""
    known = json.loads(STRENGTHS.read_text()) if STRENGTHS.exists() else {}
    known[method] = dict(row)
    STRENGTHS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    text_series.strengths.cache_clear()


def regenerate(store: Store, prompts: Prompts, wanted: Sequence[Series], count: int) -> list[str]:
    """Makes `count` kept texts again, with their batches. Returns a line for each text that differs."""
    kept = [
        (series, text.index)
        for series in wanted
        if series.ready and not (series.markllm and find_spec("markllm") is None)
        for text in current(series, prompts, store)
    ]
    chosen = random.Random().sample(kept, min(count, len(kept)))
    faults: list[str] = []
    done: set[str] = set()
    for series, index in chosen:
        plan = series.plan(prompts, store)
        if plan.keys[index] in done:
            continue
        batch = next(batch for batch in plan.batches if index in batch)
        done |= {plan.keys[i] for i in batch}
        model = loaded(series.weights(prompts))
        found = store.current(series.name, plan.keys)
        again = make(model, prompts, series, plan, batch)
        faults += differences(series.name, [found[i] for i in batch if i in found], again)
        say(f"{series.name} {batch[0]}-{batch[-1]}: made again")
    return faults


def differences(name: str, kept: Sequence[Text], again: Sequence[Text]) -> list[str]:
    """A line for each kept text that came out otherwise."""
    made = {text.index: text for text in again}
    out = []
    for text in kept:
        other = made[text.index].tokens
        if text.tokens != other:
            at = next(
                (i for i, (a, b) in enumerate(zip(text.tokens, other, strict=False)) if a != b), len(other)
            )
            out.append(f"{name} {text.index}: the kept text differs from token {at} on")
    return out


# --- figures ------------------------------------------------------------------------------------------------

NOTES: Final = """
![Detection by length, after attacks, by strength, and against quality left](text.svg)

All texts answer the same prompts (an instruction to continue the first 32 tokens of a human paragraph), by
SmolLM2-135M-Instruct in bf16, sampled at T=1 from the 50 likeliest tokens unless a row says otherwise; the end of text
is never drawn, so that texts have full length. Step-wise perplexity is exp(mean(E_marked[-ln p] - E_plain[-ln p])) - 1
over the steps, p the plain distribution after temperature and top-k at the same context. Peers with a strength (all but
SynthID and EXP) run at the one that came nearest to what BIN+ costs (benchmarks/texts/strengths.json), MPAC and
MarkLLM's Unigram over the first 150 tokens: over longer texts the search ends at strengths whose texts repeat
themselves, as what repeats costs nothing (`*_distinct`, beside `plain_distinct`, is the share of pairs of neighbors
that are distinct). Kept ids are decoded and every detector encodes the text anew. `*_tpr1fpr_*` is the share found at
a threshold that 1 % of the human texts exceed; the other rates are by the detector's own p. Human texts are 500 in
English and 500 in Chinese; for SWEET, whose detector runs the model, 100 of each, and marked texts of 200 tokens alone.
Paraphrases are by the model itself, of 60 texts of four series; those with fewer than 40 % of the words changed do not
count (`paraphrase_*_counted`), and `paraphrase_*_chrf` tells how near the others are to their texts. `gsw_tpr_1000` is
at the strength within 5 % of perplexity, `gsw_e0.057_*` at one a little above it. Bits are the code's (63) before
correction for BIN+ and the message's (32) for MPAC, which has no code; messages count where every bit is right and, for
BIN+, the detector accepts it.
"""


def derive(store: Store, prompts: Prompts, quick: bool) -> int:
    """Rows and plot. Returns the exit status: 1 if a target was missed or not measured."""
    jobs = os.cpu_count() or 1
    with ProcessPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        figures = Figures(Kept(store, prompts, 8 if quick else None), pool)
        figures.derive()
    rows = [*figures.rows, *carried()]
    for row in rows:
        verdict = "" if row.met is None else "met" if row.met else f"MISSED, {row.sense} {row.target:g}"
        print(f"{row.id:32} {row.value:.4f} n={row.n} {verdict}")
    for line in figures.missing:
        print(f"missing: {line}")
    if not quick and figures.rows:
        found = environment(texts=f"{store.size()} bytes of kept texts", model="SmolLM2-135M-Instruct, bf16")
        write("text", "make bench-text", rows, environment=found, notes=NOTES)
        plot(figures.curves)
    return int(any(row.met is False for row in rows) or not {row.id for row in rows}.issuperset(TARGETS))


def report_kept(store: Store, prompts: Prompts, wanted: Sequence[Series]) -> None:
    """Which texts are there."""
    for series in wanted:
        if not series.ready:
            print(f"{series.name:28} strength not known")
            continue
        plan = series.plan(prompts, store)
        held, kept = store.read(series.name), store.current(series.name, plan.keys)
        stale = len(held) - len(kept)
        other = f", {stale} of other code or model" if stale else ""
        print(f"{series.name:28} {len(kept)} of {len(plan.keys) or series.count}{other}")
    print(f"{store.size()} bytes of {LIMIT}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a few texts of each series; writes nothing")
    parser.add_argument("--list", action="store_true", help="which texts are kept")
    parser.add_argument("--generate", action="store_true", help="make the missing texts")
    parser.add_argument("--match", action="store_true", help="find the peers' strengths")
    parser.add_argument(
        "--score", action="store_true", help="score texts of models with marked weights (GSW)"
    )
    parser.add_argument("--regenerate", type=int, metavar="N", help="make N kept texts again and compare")
    parser.add_argument(
        "--only", default="", help="names of series (--match: of methods), with commas between"
    )
    parser.add_argument("--minutes", type=float, default=1e6, help="stop before a batch that would end later")
    parser.add_argument("--threads", type=int, default=1, help="of torch, while generating")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    store = Store()
    only = [name for name in options.only.split(",") if name]
    matched = sorted({s.method for s in SERIES.values() if s.parameters.get("delta") == MATCHED})
    known = matched if options.match else list(SERIES)
    if unknown := sorted(set(only) - set(known)):
        sys.exit(f"error: no {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        prompts = load_prompts()
    except FetchError as error:
        sys.exit(f"error: {error}")
    wanted = [SERIES[name] for name in SERIES if not only or name in only]
    if options.match:
        return match(prompts, only or matched)
    if options.generate:
        return int(generate(store, prompts, wanted, options.minutes) > 0)
    if options.regenerate is not None:
        faults = regenerate(store, prompts, wanted, options.regenerate)
        print("\n".join(faults) or "every token is the same")
        return int(bool(faults))
    if options.score:
        return int(score_missing(store, prompts, options.minutes, partial(human_texts, "en")) > 0)
    if options.list:
        report_kept(store, prompts, wanted)
        return 0
    return derive(store, prompts, options.quick)


if __name__ == "__main__":
    sys.exit(main())
