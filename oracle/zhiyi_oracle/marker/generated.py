"""Pictures that a diffusion pipeline draws from marked noise, in batches. torch is imported only when one is loaded."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zhiyi.cli.session import read_bytes, write_bytes
from zhiyi.errors import BadInput, ConfigError, ZhiyiError
from zhiyi.types import Bytes32, Value
from zhiyi_oracle.marker import nonces
from zhiyi_watermark.errors import SpecError, UnavailableError
from zhiyi_watermark.image_generated import Kgs, KgsSpec, check_solver, check_spec, generate, plan
from zhiyi_watermark.model_folder import load_pipeline
from zhiyi_watermark.payload import Long
from zhiyi_watermark.pictures import save_picture

MAX_SPEC_BYTES: Final = 1 << 12
LOG: Final = (
    "pictures.jsonl"  # beside the pictures: a Drawn a line, on the disk before the next batch is drawn
)


class Drawn(Value):
    """One picture, as its maker should log it."""

    file: str
    nonce: int
    prompt: str


class Pictures(Value):
    """What came of one run."""

    spec: str
    detector_hash: Bytes32
    user: int
    fingerprint: int
    ledger_begun: bool  # whether this run began the key's ledger of nonces
    pictures: tuple[Drawn, ...]


@dataclass(frozen=True)
class Wanted:
    """How the pictures are drawn."""

    prompts: Sequence[str]
    height: int | None  # px, of a new spec
    width: int | None
    seed: int | None  # see image_generated.generate; drawn unless given
    steps: int
    guidance: float
    batch: int


def draw(
    folder: Path,
    out: Path,
    spec: Path,
    key_file: Path,
    key: bytes,
    payload: Long,
    wanted: Wanted,
    progress: Callable[[int, int], None],
    note: Callable[[str], None],
) -> Pictures:
    """Draws a PNG for each prompt into the new folder `out`, each under a nonce of its own (see nonces), and LOG.

    spec: read if it exists, else made from the pipeline. note: told where a ledger of nonces is begun.
    Raises BadInput on prompts, files or a spec that do not fit, ConfigError on a folder that holds no such pipeline.
    """
    total = len(wanted.prompts)
    if not total:
        raise BadInput("there are no prompts; give --prompt, or --prompts-file with one a line")
    if out.exists():
        raise BadInput(f"{out} exists; pictures are drawn into a new folder")
    nonces.check_left(key_file, key, total)
    given = _read(spec) if spec.exists() else None
    try:
        pipeline = load_pipeline(folder)
        check_solver(pipeline)
        chosen = given or plan(pipeline, height=wanted.height, width=wanted.width)
        if given:
            check_spec(pipeline, given)
    except UnavailableError as exc:
        raise ConfigError(str(exc)) from exc
    except SpecError as exc:
        raise BadInput(str(exc)) from exc
    mark = Kgs(key, chosen)
    seed = secrets.randbits(64) if wanted.seed is None else wanted.seed
    try:
        out.mkdir(parents=True)
    except OSError as exc:
        raise BadInput(f"{out} cannot be made: {exc.strerror}") from exc
    if given is None:
        try:
            write_bytes(spec, chosen.to_json().encode())
        except ZhiyiError:
            out.rmdir()
            raise
    ledger = nonces.ledger_of(key_file)
    begun = not ledger.exists()
    if begun:
        note(
            f"{ledger} is begun. If the key has drawn pictures before, restore its ledger: nonces may repeat"
        )
    drawn: list[Drawn] = []
    for low in range(0, total, wanted.batch):
        progress(low, total)
        prompts = wanted.prompts[low : low + wanted.batch]
        spent = nonces.reserve(key_file, key, len(prompts))
        try:
            made = generate(
                pipeline,
                mark,
                prompts,
                payload,
                seed=seed,
                nonces=spent,
                steps=wanted.steps,
                guidance=wanted.guidance,
            )
        except UnavailableError as exc:
            raise ConfigError(str(exc)) from exc
        for prompt, one in zip(prompts, made, strict=True):
            path = out / f"{len(drawn) + 1:04d}.png"
            save_picture(one.picture, path)
            drawn.append(Drawn(file=str(path), nonce=one.nonce, prompt=prompt))
            _log(out / LOG, drawn[-1])
    progress(total, total)
    return Pictures(
        spec=str(spec),
        detector_hash=chosen.spec_hash(),
        user=payload.user,
        fingerprint=payload.fingerprint,
        ledger_begun=begun,
        pictures=tuple(drawn),
    )


def _log(path: Path, row: Drawn) -> None:
    """Adds a line, on the disk when it returns; the file is its owner's alone, as prompts are."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as out:
            out.write(row.model_dump_json().encode() + b"\n")
            out.flush()
            os.fsync(out.fileno())
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc


def _read(path: Path) -> KgsSpec:
    try:
        return KgsSpec.from_json(read_bytes(path, MAX_SPEC_BYTES).decode(errors="replace"))
    except SpecError as exc:
        raise BadInput(f"{path} names no pipeline of marked pictures: {exc}") from exc
