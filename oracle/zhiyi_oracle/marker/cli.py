"""`zhiyi mark`: a marked copy of weights for one license, a text generated under a mark, a marked picture."""

from __future__ import annotations

import secrets
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import field_validator

from zhiyi.cli.keys import open_key
from zhiyi.cli.session import Session, read_bytes, read_document, session_of, write_bytes
from zhiyi.delivery import mark_commit
from zhiyi.errors import BadInput, ConfigError
from zhiyi.keys import KeyKind
from zhiyi.types import U256, Bytes32, Value, to_hex
from zhiyi_oracle.language_model import TransformersGenerator
from zhiyi_oracle.marker.generated import Wanted, draw
from zhiyi_oracle.secret_files import write_private
from zhiyi_watermark import text_gaussian, weights
from zhiyi_watermark.errors import SpecError, WatermarkError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.payload import MAX_FINGERPRINT, MAX_USER, Long, Short
from zhiyi_watermark.pictures import open_picture, save_picture
from zhiyi_watermark.tensorfile import check_bundle, check_out, copy_bundle, files_of
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, ZeroBit

app = typer.Typer(name="mark", help="Mark weights, texts or pictures by hand.", no_args_is_help=True)

MAX_KIT_BYTES: Final = 1 << 20
MAX_PROMPT_BYTES: Final = 1 << 16


class Method(StrEnum):
    """Marks of generated text."""

    BINPLUS = "binplus"
    KGW = "kgw"
    TOURNAMENT = "tournament"
    UNIGRAM = "unigram"


class Bits(StrEnum):
    """Sizes of a text's message."""

    SHORT = "32"
    LONG = "64"


class ShareSeeds(Value):
    """Seeds of one copy's confirm mark. Whoever holds them can make a convicting file: keep them as a key."""

    license_id: U256
    seeds: tuple[Bytes32, ...]

    @field_validator("seeds")
    @classmethod
    def _sixteen(cls, seeds: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if len(set(seeds)) != weights.WfpSpec.shares:
            raise ValueError(
                f"{weights.WfpSpec.shares} different seeds are needed, these are {len(set(seeds))}"
            )
        return seeds


@app.command("weights")
def mark_weights(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with the model's safetensors.")],
    out: Annotated[Path, typer.Argument(help="Folder of the marked copy; must not exist.")],
    kit: Annotated[
        Path, typer.Option(help="Trace kit of the model, by `zhiyi fingerprint plan`.", show_default=False)
    ],
    license_id: Annotated[int, typer.Option("--license", help="License that the copy is for.")],
    seeds: Annotated[
        Path,
        typer.Option(help="Secret file of the copy's share seeds: read if it exists, else made."),
    ],
) -> None:
    """Write the copy of one license: its trace mark, and sixteen shares that convict if they turn up in a leak.

    The same kit, license and seeds give the same bytes again.
    """
    session = session_of(ctx)
    made = not seeds.exists()
    if made:
        given = ShareSeeds(
            license_id=license_id,
            seeds=tuple(secrets.token_bytes(32) for _ in range(weights.WfpSpec.shares)),
        )
    else:
        given = read_document(seeds, ShareSeeds)
    if given.license_id != license_id:
        raise BadInput(
            f"{seeds} holds the seeds of license {given.license_id}, not of {license_id}: two copies with one set of "
            "shares would convict the wrong holder"
        )
    _outside(folder, kit, seeds)
    try:
        check_out(folder, out)
        shards = {shard.name for shard in files_of(folder)}
        check_bundle(folder, shards)
        found = weights.TraceKit.from_json(read_bytes(kit, MAX_KIT_BYTES).decode(errors="replace"))
        if made:
            write_private(seeds, given.model_dump_json().encode())
        with session.console.progress("marking") as progress:
            report = weights.mark(folder, out, found.spec, found.trace_key, license_id, given.seeds, progress)
        copy_bundle(folder, out, shards)
    except WatermarkError as exc:
        raise BadInput(f"{folder} cannot be marked: {exc}") from exc
    commit = to_hex(mark_commit(license_id, given.seeds))
    _tell_copy(session, out, license_id, report, seeds=str(seeds), mark_commit=commit)


@app.command("writer")
def mark_writer(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of a transformers causal language model.")],
    out: Annotated[Path, typer.Argument(help="Folder of the marked copy; must not exist.")],
    spec: Annotated[
        Path, typer.Option(help="Where and how strongly: read if it exists, else made from the model.")
    ],
    model_key: Annotated[Path, typer.Option(help="Key file of the model (`zhiyi keys new trace FILE`).")],
    license_id: Annotated[int, typer.Option("--license", help="License that the copy is for.")],
    epsilon: Annotated[
        float, typer.Option(help="Of a new spec: step in standard deviations of a tensor.")
    ] = 0.04,
    temperature: Annotated[
        float, typer.Option(help="Of a new spec: temperature at which the copies will sample.")
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(help="Of a new spec: how many tokens they will sample from; 0: from all.", min=0)
    ] = 50,
) -> None:
    """Write a copy whose texts show its license: every declared weight moves by one small step, up or down.

    Generation costs nothing; perplexity grows with the square of epsilon. `zhiyi trace --writer` reads it from texts.
    """
    session = session_of(ctx)
    _outside(folder, spec, model_key)
    try:
        if spec.exists():
            chosen = text_gaussian.GswSpec.from_json(read_bytes(spec, MAX_KIT_BYTES).decode(errors="replace"))
        else:
            chosen = text_gaussian.plan(folder, epsilon=epsilon, temperature=temperature, top_k=top_k)
            write_bytes(spec, chosen.to_json().encode())
        key = text_gaussian.license_key(open_key(session, model_key, KeyKind.TRACE).secret, license_id)
        with session.console.progress("marking") as progress:
            report = text_gaussian.mark(folder, out, key, chosen, progress)
    except WatermarkError as exc:
        raise BadInput(f"{folder} cannot be marked: {exc}") from exc
    detector = to_hex(chosen.spec_hash())
    _tell_copy(session, out, license_id, report, spec=str(spec), detector_hash=detector)


@app.command("text")
def mark_text(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of a transformers causal language model.")],
    model_key: Annotated[Path, typer.Option(help="Key file of the model (`zhiyi keys new trace FILE`).")],
    prompt: Annotated[str | None, typer.Option(help="Prompt.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="File with the prompt, UTF-8.")] = None,
    method: Annotated[Method, typer.Option(help="Mark; binplus alone names a user.")] = Method.BINPLUS,
    user: Annotated[
        int | None, typer.Option(help="API user number to carry, 0 to 65535; for binplus.")
    ] = None,
    bits: Annotated[
        Bits,
        typer.Option(help="Size of binplus's message; 64 holds a license's number too, from 800 tokens."),
    ] = Bits.SHORT,
    fingerprint: Annotated[
        int | None,
        typer.Option(
            help="With 64 bits: fingerprint number of the license to carry. [default: 0]",
            min=0,
            max=MAX_FINGERPRINT,
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="New tokens at most.", min=1, max=4096)] = 400,
    at_least: Annotated[
        int, typer.Option(help="New tokens at least: the end of the text is not drawn before.", min=0)
    ] = 0,
    strength: Annotated[
        float | None, typer.Option(help="delta of binplus, bias of kgw and unigram. [default: the method's]")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Sampling temperature.")] = 0.8,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampler: the same text again.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the text, else it is printed.")] = None,
) -> None:
    """Generate a text that carries a mark of the model's key; `zhiyi trace` finds it again."""
    session = session_of(ctx)
    if (prompt is None) == (prompt_file is None):
        raise ConfigError("give --prompt or --prompt-file")
    if (method == Method.BINPLUS) != (user is not None):
        raise ConfigError("binplus carries a user: give --user; the other marks carry none")
    long = bits is Bits.LONG
    if (long and method != Method.BINPLUS) or (fingerprint is not None and not long):
        raise ConfigError("only binplus with --bits 64 carries a fingerprint number")
    if method == Method.TOURNAMENT and strength is not None:
        raise ConfigError("a tournament has no strength to choose")
    asked = prompt if prompt_file is None else _utf8(prompt_file)
    key = open_key(session, model_key, KeyKind.TRACE).secret
    try:
        if method == Method.BINPLUS:
            assert user is not None
            config = BinPlusConfig(temperature=temperature, horizon=max(16, tokens), long=long)
            config = config if strength is None else replace(config, delta=strength)
            payload = Long(fingerprint or 0, user) if long else Short(user)
            processor, top_k = BinPlus(key, config).processor(payload), config.top_k
        elif method == Method.TOURNAMENT:
            drawn = replace(TOURNAMENT, temperature=temperature)
            processor, top_k = ZeroBit(key, drawn).processor(), drawn.top_k
        else:
            green = replace(UNIGRAM if method == Method.UNIGRAM else KGW, temperature=temperature)
            green = green if strength is None else replace(green, bias=strength)
            processor, top_k = ZeroBit(key, green).processor(), green.top_k
    except SpecError as exc:
        raise BadInput(f"the mark cannot be made so: {exc}") from exc
    text = TransformersGenerator(model, temperature=temperature).generate(
        asked or "",
        processor,
        top_k=top_k,
        max_new_tokens=tokens,
        min_new_tokens=min(at_least, tokens),
        seed=seed,
    )
    told = {"method": method.value, "user": user, "characters": len(text)}
    if long:
        told["fingerprint"] = fingerprint or 0
    if out is None:
        session.console.result({**told, "text": text})
        return
    write_bytes(out, text.encode())
    session.console.result({**told, "file": str(out)})


@app.command("image")
def mark_image(
    ctx: typer.Context,
    picture: Annotated[
        Path,
        typer.Argument(
            help="Picture: PNG, JPEG, WebP, TIFF, BMP or a GIF of one frame. With --generate, folder of a diffusers"
            " pipeline (Stable Diffusion 1, 2 or XL)."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="Marked picture to write: .png, .jpg, .webp or .tif. With --generate, new folder for the pictures."
        ),
    ],
    model_key: Annotated[Path, typer.Option(help="Key file of the model (`zhiyi keys new trace FILE`).")],
    user: Annotated[int, typer.Option(help="API user number to carry.", min=0, max=MAX_USER)],
    fingerprint: Annotated[
        int, typer.Option(help="Fingerprint number of the license to carry.", min=0, max=MAX_FINGERPRINT)
    ] = 0,
    quality: Annotated[int | None, typer.Option(help="Of a JPEG. [default: 95]", min=50, max=95)] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Draw pictures of prompts from marked noise.")
    ] = False,
    prompt: Annotated[
        list[str] | None, typer.Option(help="With --generate: prompt of a picture; repeat for more.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="With --generate: file of prompts, UTF-8, one a line.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="With --generate: which model at which size; read if it exists, else made from the pipeline."
        ),
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Of a new spec: px. [default: the pipeline's]", min=8, max=8192)
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Of a new spec: px. [default: the pipeline's]", min=8, max=8192)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="With --generate: of the sizes of the noise, with key, nonce and numbers. [default: drawn]",
            min=0,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="With --generate: of the solver. [default: 50]", min=1, max=1000)
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="With --generate: how closely the prompt is kept to. [default: 7.5]", min=0, max=50
        ),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="With --generate: pictures drawn at once. [default: 4]", min=1, max=64)
    ] = None,
) -> None:
    """Mark a finished picture, as far as its texture hides it, or draw marked ones with --generate.

    `zhiyi trace` finds the numbers again; of drawn pictures with --pipeline. Each drawn picture spends one of the key's
    4,096 nonces; the ledger beside the key file, FILE.nonces, says how many are spent: keep both together. Each is
    logged in pictures.jsonl beside it.
    """
    session = session_of(ctx)
    if generate:
        if spec is None:
            raise ConfigError("--generate needs --spec FILE, read if it exists, else made from the pipeline")
        if quality is not None:
            raise ConfigError("--quality is of a JPEG; drawn pictures are PNG")
        if (spec.exists() and (height or width)) or (prompt and prompts_file):
            raise ConfigError("give --height and --width with a new --spec alone, --prompt or --prompts-file")
        lines = [] if prompts_file is None else (_utf8(prompts_file) or "").splitlines()
        prompts = prompt or [line.strip() for line in lines if line.strip()]
        wanted = Wanted(
            prompts, height, width, seed, steps or 50, 7.5 if guidance is None else guidance, batch or 4
        )
        key = open_key(session, model_key, KeyKind.TRACE).secret
        with session.console.progress("drawing") as progress:
            drawn = draw(
                picture,
                out,
                spec,
                model_key,
                key,
                Long(fingerprint, user),
                wanted,
                progress,
                session.console.note,
            )
        session.console.result(drawn)
        return
    drawing = (prompt, prompts_file, spec, height, width, seed, steps, guidance, batch)
    if any(given is not None for given in drawing):
        raise ConfigError(
            "prompts, --spec, --height, --width, --seed, --steps, --guidance and --batch are for --generate; a "
            "finished picture takes none"
        )
    if out.exists():
        raise BadInput(f"{out} exists; a marked picture is never written over anything")
    try:
        given = open_picture(picture)
        made = Dss(open_key(session, model_key, KeyKind.TRACE).secret).embed(given, Long(fingerprint, user))
        save_picture(made, out, quality=95 if quality is None else quality)
    except WatermarkError as exc:
        raise BadInput(f"{picture} cannot be marked: {exc}") from exc
    session.console.result({"file": str(out), "user": user, "fingerprint": fingerprint})


def _tell_copy(session: Session, out: Path, license_id: int, report: weights.MarkReport, **more: str) -> None:
    """What came of marking a model's copy."""
    told = {"copy": str(out), "license_id": license_id, **more}
    session.console.result({**told, "largest_relative_change": report.max_relative_change})


def _outside(folder: Path, *files: Path) -> None:
    """What lies in the model's folder goes to the buyer."""
    for file in files:
        if file.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{file} lies in {folder} and would be part of every copy; keep it elsewhere")


def _utf8(path: Path) -> str:
    try:
        return read_bytes(path, MAX_PROMPT_BYTES).decode()
    except UnicodeDecodeError as exc:
        raise BadInput(f"{path} is not UTF-8 text") from exc
