"""GSW against those who change a marked copy before it writes: whom the texts still name.

On tests/models/tiny-lm, whose copies write and train in seconds on a CPU. Copies of several licenses are attacked
whole; each then writes texts after prompts from held-out human text. The detector has what a verifier has: the texts
as strings and the base's weights, neither the attacked copy nor the prompts. Five texts of 200 tokens are one case.

A student is what learns from a copy's outputs: new weights that learn its next-token distributions on texts that it
wrote, or the base, fine-tuned on those texts alone. Neither ever had the pattern in its weights.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from report import Kept, Row, proportion
from zhiyi_watermark import prf, shared, stats
from zhiyi_watermark import text_gaussian as gsw
from zhiyi_watermark import text_stream as stream
from zhiyi_watermark.attacks import weights as attacks

ROOT_KEY: Final = hashlib.sha256(b"zhiyi weights benchmark, gsw").digest()
LICENSES: Final = 20  # registered; all are tried on every case
EPSILON: Final = 0.2  # the small model bears a larger step than the default; the table has its perplexity
TEXTS: Final = 5  # of a case
TOKENS: Final = 200  # of a text
PROMPT: Final = 16  # tokens before a text, of held-out text; the detector does not see them
WINDOW: Final = 256  # tokens whose perplexity is measured together
RATE: Final = 1e-4  # of fine-tuning


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    copies: int  # licenses
    cases: int  # of a copy
    tunings: tuple[int, int, int]  # steps of fine-tuning, one run with three stops
    lessons: int  # texts that a student learns from
    student: int  # steps of a student with new weights
    taught: int  # steps of the base on a copy's texts
    held_out: int  # tokens of the perplexity


FULL: Final = Size(2, 6, (10, 100, 1000), 200, 300, 300, 4096)
QUICK: Final = Size(1, 1, (1, 2, 3), 4, 2, 2, 512)


class Bench:
    """A model, its marked copies, texts to train and to measure on, and a folder for what is made of it."""

    def __init__(
        self, folder: Path, train: Sequence[int], held_out: Sequence[int], size: Size, shelf: Path
    ) -> None:
        """train and held_out: tokens. The work folder is below shelf, a new one for other code, model or size."""
        self.folder, self.train, self.held_out, self.size = folder, train, held_out, size
        self.spec = gsw.plan(folder, epsilon=EPSILON)
        self.verifier = gsw.Base(folder)
        self.keys = {i: gsw.license_key(ROOT_KEY, i) for i in range(1, LICENSES + 1)}
        self.names = [t.name for t in self.spec.tensors]
        self.work = shelf / f"gsw-{self._tag()}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.kept = Kept(self.work / "results.json")

    def _tag(self) -> str:
        state = hashlib.sha256(self.spec.spec_hash() + repr((self.size, EPSILON, LICENSES)).encode())
        modules = (gsw, stats, prf, shared, stream, attacks, sys.modules[__name__])
        for path in (*(Path(str(m.__file__)) for m in modules), *sorted(self.folder.glob("*.safetensors"))):
            state.update(hashlib.sha256(path.read_bytes()).digest())
        state.update(np.array([*self.train, -1, *self.held_out]).tobytes())
        return state.hexdigest()[:16]

    def copy(self, number: int) -> Path:
        """The marked copy of license number + 1."""
        out = self.work / f"copy-{number}"
        if not out.exists():
            gsw.mark(self.folder, out, self.keys[number + 1], self.spec)
        return out

    def tuned(self, stop: int, number: int) -> Path:
        """A copy, fine-tuned on human text up to one of the stops."""
        self.changes(number)
        return self._stops(number)[stop]

    def changes(self, number: int) -> list[float]:
        """Fine-tunes a copy if that was not done; the relative change of the marked tensors at each stop."""

        def make() -> list[float]:
            outs = self._stops(number)
            for out in outs:
                shutil.rmtree(out, ignore_errors=True)
            legs = [attacks.Leg(math.inf, RATE, *stop) for stop in zip(outs, self.size.tunings, strict=True)]
            made = attacks.finetune(self.copy(number), legs, self.train, watched=self.names, seed=number)
            return [stage.relative_change for stage in made]

        found: list[float] = self.kept.get(f"changes {number}", make)
        return found

    def _stops(self, number: int) -> list[Path]:
        return [self.work / f"tuned-{steps}-{number}" for steps in self.size.tunings]

    def _lessons(self, number: int) -> list[int]:
        """What a copy wrote for its students, tokens in a row."""

        def make() -> list[int]:
            texts = written(self.copy(number), self.train, self.size.lessons, seed=100 + number)
            return [token for text in texts for token in text]

        found: list[int] = Kept(self.work / f"lessons-{number}.json").get("tokens", make)
        return found

    def student(self, number: int) -> Path:
        """New weights of the same shapes that learn a copy's distributions on its texts."""
        out = self.work / f"student-{number}"
        if not out.exists():
            attacks.distil(
                self.copy(number), out, {}, self._lessons(number), seed=number, steps=self.size.student
            )
        return out

    def taught(self, number: int) -> Path:
        """The base, fine-tuned on a copy's texts."""
        out = self.work / f"taught-{number}"
        if not out.exists():
            leg = attacks.Leg(math.inf, RATE, out, self.size.taught)
            attacks.finetune(self.folder, [leg], self._lessons(number), watched=self.names, seed=number)
        return out


def written(folder: Path, prompts: Sequence[int], count: int, seed: int) -> list[list[int]]:
    """Texts of a model in tokens, each after a stretch of `prompts` drawn by the seed, which is left out."""
    import torch

    torch.set_num_threads(1)
    model = attacks._load(folder).eval()
    starts = np.random.default_rng(seed).integers(0, len(prompts) - PROMPT, count)
    asked = torch.tensor([list(prompts[s : s + PROMPT]) for s in starts])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model.generate(
            asked, attention_mask=torch.ones_like(asked), do_sample=True, top_k=50, temperature=1.0,
            max_new_tokens=TOKENS, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
    found: list[list[int]] = out[:, PROMPT:].tolist()
    return found


# --- the attacks --------------------------------------------------------------------------------------------


class Attack(NamedTuple):
    """One strength of one attack; apply(bench, number, out) gives the attacked copy's folder, `out` or one kept."""

    id: str
    what: str
    apply: Callable[[Bench, int, Path], Path]
    guilty: int = 1  # copies in it


def _projections(name: str) -> bool:
    return "_proj." in name


def _plain(attack: Callable[..., None], **options: Any) -> Callable[[Bench, int, Path], Path]:
    def apply(bench: Bench, number: int, out: Path) -> Path:
        attack(bench.copy(number), out, where=_projections, **options)
        return out

    return apply


def _reshuffled(bench: Bench, number: int, out: Path) -> Path:
    attacks.reshuffle(bench.copy(number), out, attacks.Heads.of(bench.folder), seed=1, residual=True)
    return out


def _averaged(bench: Bench, number: int, out: Path) -> Path:
    attacks.collude([bench.copy(number), bench.copy(number + 1)], out, "average", where=_projections)
    return out


def _tuned(stop: int) -> Callable[[Bench, int, Path], Path]:
    return lambda bench, number, out: bench.tuned(stop, number)


def attacks_of(size: Size) -> tuple[Attack, ...]:
    """All of them; rows are named by the steps of that size."""
    return (
        Attack("none", "as it was issued", lambda bench, number, out: bench.copy(number)),
        *(Attack(f"prune{p}", f"{p} % pruned", _plain(attacks.prune, share=p / 100)) for p in (20, 50, 70)),
        Attack("int8", "int8 by rows", _plain(attacks.quantise, bits=8)),
        Attack("int4", "int4 by 32", _plain(attacks.quantise, bits=4, group=32)),
        Attack("lora15", "low-rank update, 15 %, rank 8", _plain(attacks.merge_lora, relative=0.15, seed=1)),
        Attack("permute", "units, heads and channels reordered and scaled", _reshuffled),
        Attack("average2", "average of two copies", _averaged, guilty=2),
        *(
            Attack(f"finetune{steps}", f"fine-tuned, {steps} steps", _tuned(stop))
            for stop, steps in enumerate(size.tunings)
        ),
        Attack("taught", "base fine-tuned on a copy's texts", lambda bench, number, out: bench.taught(number)),
        Attack("student", "student with new weights", lambda bench, number, out: bench.student(number)),
    )  # fmt: skip


# --- reading the texts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What the detector says of texts; JSON."""

    tokens: int
    z: float  # T of the copy's own license over the root of sum q^2
    log10_p: float  # p_global of that license over all registered ones
    right: bool  # a license of a copy in it is named at p_global <= 1e-6, and no other
    innocent: int  # other licenses named


def read(bench: Bench, texts: Sequence[str], number: int, guilty: int = 1) -> Reading:
    """The detector on texts of an attacked copy, from the texts and the base alone. guilty: copies in it, from
    number on."""
    found = bench.verifier.gradient(bench.verifier.encode(texts, bench.spec), bench.spec)
    own = int(gsw.totals(found, bench.spec, [bench.keys[number + 1]])[0])
    tail_of, sum_q2 = gsw.law_of(found)
    said = gsw.detect(found, bench.spec, bench.keys)
    named = set() if said.license is None else {said.license, *said.also}
    others = named - set(range(number + 1, number + 1 + guilty))
    return Reading(
        found.tokens, own / math.sqrt(sum_q2), tail_of(own).log2_p_global(LICENSES) * math.log10(2),
        bool(named) and not others, len(others),
    )  # fmt: skip


@dataclass(frozen=True)
class Line:
    """An attack on several copies."""

    attack: Attack
    cases: list[Reading]  # of about TEXTS * TOKENS tokens
    together: list[Reading]  # all texts of a copy at once
    nll: float  # nats a token of held-out text, mean over the copies


def measured(bench: Bench, attack: Attack, number: int) -> dict[str, Any]:
    """One copy attacked, as JSON: its cases, all of its texts at once, and its perplexity."""
    out = bench.work / f"attacked-{attack.id}-{number}"
    shutil.rmtree(out, ignore_errors=True)
    folder = attack.apply(bench, number, out)
    size = bench.size
    ids = written(folder, bench.held_out, size.cases * TEXTS, seed=number)
    texts = [
        bench.verifier.tokenizer.decode(text).replace("\0", "") for text in ids
    ]  # a raw student may write NUL
    cases = [read(bench, texts[i : i + TEXTS], number, attack.guilty) for i in range(0, len(texts), TEXTS)]
    together = read(bench, texts, number, attack.guilty)
    left = _nll(folder, bench.held_out[: size.held_out])
    shutil.rmtree(out, ignore_errors=True)
    return {"cases": [asdict(case) for case in cases], "together": asdict(together), "nll": left}


def _nll(folder: Path, tokens: Sequence[int]) -> float:
    """Nats a token, windows that start anew."""
    import torch

    model = attacks._load(folder).eval()
    rows = torch.tensor(list(tokens[: len(tokens) // WINDOW * WINDOW])).reshape(-1, WINDOW)
    with torch.no_grad():
        return float(np.mean([float(model(input_ids=row[None], labels=row[None]).loss) for row in rows]))


def survival(bench: Bench, chosen: Sequence[Attack], say: Callable[[str], None]) -> list[Line]:
    """Every attack on every copy."""
    lines = []
    for attack in chosen:
        say(f"gsw: {attack.what}")
        found = [
            bench.kept.get(f"{attack.id} {number}", partial(measured, bench, attack, number))
            for number in range(bench.size.copies)
        ]
        lines.append(
            Line(
                attack,
                [Reading(**case) for each in found for case in each["cases"]],
                [Reading(**each["together"]) for each in found],
                float(np.mean([each["nll"] for each in found])),
            )
        )
    return lines


# --- the report ---------------------------------------------------------------------------------------------


def rows(lines: Sequence[Line], size: Size) -> list[Row]:
    """Who is named from one case and from all texts of a copy, by attack; innocents over all of them."""
    out = []
    for line in lines:
        about = f"tiny-lm, {line.attack.what}: the texts' license is named and no other"
        out += [
            proportion(
                f"gsw_{line.attack.id}", f"GSW on {about}; cases of {TEXTS * TOKENS} tokens",
                sum(case.right for case in line.cases), len(line.cases),
            ),
            proportion(
                f"gsw_{line.attack.id}_together", f"GSW on {about}; {size.cases * TEXTS * TOKENS} tokens of a copy",
                sum(copy.right for copy in line.together), len(line.together),
            ),
        ]  # fmt: skip
    read_ = [(reading, line.attack.guilty) for line in lines for reading in (*line.cases, *line.together)]
    out.append(
        proportion(
            "gsw_innocents", "GSW on tiny-lm: innocent licenses named, over all of these",
            sum(reading.innocent for reading, _ in read_), sum(LICENSES - guilty for _, guilty in read_),
        )
    )  # fmt: skip
    return out


def table(lines: Sequence[Line], size: Size) -> list[str]:
    """Whom the texts name, the statistic behind it, and what is left of the model."""
    case, whole = TEXTS * TOKENS, size.cases * TEXTS * TOKENS
    out = [
        f"| copy | named, {case} tokens | z, mean | p_global, median | named, {whole} tokens | z, mean "
        "| p_global, worst | perplexity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        out.append(
            f"| {line.attack.what} | {sum(c.right for c in line.cases)}/{len(line.cases)} | "
            f"{np.mean([c.z for c in line.cases]):.1f} | 1e{np.median([c.log10_p for c in line.cases]):.1f} | "
            f"{sum(c.right for c in line.together)}/{len(line.together)} | "
            f"{np.mean([c.z for c in line.together]):.1f} | 1e{max(c.log10_p for c in line.together):.1f} | "
            f"{math.exp(line.nll):.1f} |"
        )
    return out


def notes(lines: Sequence[Line], bench: Bench) -> str:
    """A section for the report: what the rows mean, the table and what is not shown."""
    size, plain = bench.size, math.exp(_nll(bench.folder, bench.held_out[: bench.size.held_out]))
    changes = ", ".join(
        f"{change:.1%} after {steps}" for change, steps in zip(bench.changes(0), size.tunings, strict=True)
    )
    text = f"""
## GSW after attacks on the copy

Rows `gsw_*`, on `tests/models/tiny-lm` with a step of {EPSILON}: whom the texts of an attacked copy name, from the
texts and the base's weights. {LICENSES} licenses are registered and all are tried; named is p_global <= 1e-6. A case is
{TEXTS} texts of {TOKENS} tokens at temperature 1 and top-k 50; `*_together` is all {size.cases * TEXTS} texts of a copy
as one. {size.copies} copies are attacked. Perplexity is on {size.held_out} held-out
tokens; the base's is {plain:.1f}. z is T over the root of the sum of q²; without a mark it is about 0, give or take 1.

Fine-tuning is AdamW at {RATE:g} on the handbook, 128 tokens a step, on all weights; the marked tensors of copy 0
changed by {changes} steps. The student with new weights learns a copy's next-token distributions in {size.student}
steps on {size.lessons} texts that the copy wrote; *base fine-tuned on a copy's texts* sees the same texts,
{size.taught} steps.

{chr(10).join(table(lines, size))}

The model is small and its figures say which attacks cost what, not how many tokens a larger model needs: for that
see `gsw_tpr_*` in the [text table](text.md).
"""
    return text.strip()
