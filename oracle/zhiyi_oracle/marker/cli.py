"""`zhiyi mark`: a marked copy of weights for one license, a text generated under a mark, a marked picture."""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

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
from zhiyi_watermark import image_weights, text_gaussian, weights
from zhiyi_watermark.detect import is_picture
from zhiyi_watermark.errors import SpecError, UnavailableError, WatermarkError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.payload import MAX_FINGERPRINT, MAX_USER, Long, Short
from zhiyi_watermark.pictures import WRITTEN, open_picture, save_picture
from zhiyi_watermark.tensorfile import Checkpoint, check_bundle, check_out, copy_bundle, files_of, is_unicode
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import tokenizer_hash
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
    license_id: Annotated[
        int, typer.Option("--license", help="License that the copy is for.", min=0, max=(1 << 256) - 1)
    ],
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
        Checkpoint(folder).close()  # a tensor in two shards would be marked in one of them
        found = weights.TraceKit.from_json(read_bytes(kit, MAX_KIT_BYTES).decode(errors="replace"))
        if made:
            write_private(seeds, given.model_dump_json().encode())
        with session.console.progress("marking") as progress:
            report = weights.mark(folder, out, found.spec, found.trace_key, license_id, given.seeds, progress)
        copy_bundle(folder, out, shards)
    except WatermarkError as exc:
        raise BadInput(f"{folder} cannot be marked: {exc}") from exc
    commit = to_hex(mark_commit(license_id, given.seeds))
    _tell_copy(session, out, license_id, report.max_relative_change, seeds=str(seeds), mark_commit=commit)


@app.command("writer")
def mark_writer(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder of a transformers causal language model.")],
    out: Annotated[Path, typer.Argument(help="Folder of the marked copy; must not exist.")],
    spec: Annotated[
        Path, typer.Option(help="Where and how strongly: read if it exists, else made from the model.")
    ],
    model_key: Annotated[Path, typer.Option(help="Key file of the model (`zhiyi keys new trace FILE`).")],
    license_id: Annotated[
        int, typer.Option("--license", help="License that the copy is for.", min=0, max=(1 << 256) - 1)
    ],
    epsilon: Annotated[
        float | None,
        typer.Option(help="Of a new spec: step in standard deviations of a tensor. [default: 0.045]"),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Of a new spec: temperature at which the copies will sample. [default: 1.0]"),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Of a new spec: how many tokens they will sample from; 0: from all. [default: 50]", min=0
        ),
    ] = None,
) -> None:
    """Write a copy whose texts show its license: every declared weight moves by one small step, up or down.

    Generation costs nothing; perplexity grows with the square of epsilon. `zhiyi trace --writer` reads it from texts.
    """
    session = session_of(ctx)
    _outside(folder, spec, model_key)
    given: dict[str, Any] = {"epsilon": epsilon, "temperature": temperature, "top_k": top_k}
    asked = {name: value for name, value in given.items() if value is not None}
    try:
        if spec.exists():
            chosen = text_gaussian.GswSpec.from_json(read_bytes(spec, MAX_KIT_BYTES).decode(errors="replace"))
            if (
                tokenizer_hash(folder) != chosen.tokenizer_hash
            ):  # no trace with it would read what the copy writes
                raise UnavailableError(
                    f"{spec} names another tokenizer.json; give the model that it was made from"
                )
            for name, value in asked.items():
                if (held := getattr(chosen, name)) != value:
                    raise ConfigError(
                        f"{spec} has {name} {held}, given {value}; name a new --spec for others"
                    )
        else:
            chosen = text_gaussian.plan(folder, **asked)
            write_bytes(spec, chosen.to_json().encode())
        key = text_gaussian.license_key(open_key(session, model_key, KeyKind.TRACE).secret, license_id)
        with session.console.progress("marking") as progress:
            report = text_gaussian.mark(folder, out, key, chosen, progress)
    except WatermarkError as exc:
        raise BadInput(f"{folder} cannot be marked: {exc}") from exc
    detector = to_hex(chosen.spec_hash())
    _tell_copy(session, out, license_id, report.max_relative_change, spec=str(spec), detector_hash=detector)


@app.command("decoder")
def mark_decoder(
    ctx: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of a latent diffusion pipeline of diffusers, or of its AutoencoderKL alone."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the marked copy; must not exist.")],
    parts: Annotated[
        Path,
        typer.Option(
            help="Folder of what was trained once for this decoder (scripts/train_lkd.py): modulation and extractor."
        ),
    ],
    model_key: Annotated[Path, typer.Option(help="Key file of the model (`zhiyi keys new trace FILE`).")],
    license_id: Annotated[
        int, typer.Option("--license", help="License that the copy is for.", min=0, max=(1 << 256) - 1)
    ],
) -> None:
    """Write a copy whose pictures show its license: the license's word is folded into the decoder's weights.

    Nothing is trained and drawing costs nothing. The same parts, key and license give the same bytes again.
    `zhiyi trace --decoder` reads it from pictures. Parts and key stay with the seller: whoever has the
    parts and one picture of a copy makes that copy's decoder, without the key.
    """
    session = session_of(ctx)
    _outside(folder, parts, model_key)
    key = open_key(session, model_key, KeyKind.TRACE).secret
    try:
        trained = image_weights.Parts.load(parts)
        relative = image_weights.issue(folder, out, trained.modulation, key, license_id)
    except WatermarkError as exc:
        raise BadInput(f"{folder} cannot be marked: {exc}") from exc
    _tell_copy(
        session, out, license_id, max(relative.values()),
        parts=str(parts), bits=trained.modulation.bits, extractor_hash=to_hex(trained.extractor.net_hash()),
        detector_hash=to_hex(trained.extractor.spec_hash()),
        detector_hash_turned=to_hex(trained.extractor.spec_hash(wide=True)),
    )  # fmt: skip


@app.command("text")
def mark_text(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="Folder of a transformers causal language model.")],
    model_key: Annotated[Path, typer.Option(help="Key file of the model (`zhiyi keys new trace FILE`).")],
    prompt: Annotated[str | None, typer.Option(help="Prompt.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(help="File with the prompt, UTF-8.")] = None,
    method: Annotated[Method, typer.Option(help="Mark; binplus alone names a user.")] = Method.BINPLUS,
    user: Annotated[
        int | None, typer.Option(help="API user number to carry; for binplus.", min=0, max=MAX_USER)
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
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the sampler: the same text again.", min=0, max=(1 << 64) - 1),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the text, else it is printed.")] = None,
) -> None:
    """Generate a text that carries a mark of the model's key; `zhiyi trace` finds it again.

    Keep the `detector_hash` that is told: `zhiyi trace --detector` refuses to look with another tokenizer or mark.
    """
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
    asked = (prompt or "") if prompt_file is None else _utf8(prompt_file)
    if not is_unicode(asked):
        raise BadInput("the prompt is not UTF-8 text")
    try:
        tokenizer = tokenizer_hash(model)
    except UnavailableError as exc:
        raise ConfigError(str(exc)) from exc
    key = open_key(session, model_key, KeyKind.TRACE).secret
    mark: BinPlus | ZeroBit
    try:
        if method == Method.BINPLUS:
            assert user is not None
            config = BinPlusConfig(temperature=temperature, horizon=max(16, tokens), long=long)
            config = config if strength is None else replace(config, delta=strength)
            payload = Long(fingerprint or 0, user) if long else Short(user)
            mark = BinPlus(key, config, tokenizer)
            processor, top_k = mark.processor(payload), config.top_k
        elif method == Method.TOURNAMENT:
            drawn = replace(TOURNAMENT, temperature=temperature)
            mark = ZeroBit(key, drawn, tokenizer)
            processor, top_k = mark.processor(), drawn.top_k
        else:
            green = replace(UNIGRAM if method == Method.UNIGRAM else KGW, temperature=temperature)
            green = green if strength is None else replace(green, bias=strength)
            mark = ZeroBit(key, green, tokenizer)
            processor, top_k = mark.processor(), green.top_k
    except SpecError as exc:
        raise BadInput(f"the mark cannot be made so: {exc}") from exc
    generator = TransformersGenerator(model, temperature=temperature)
    with session.console.progress("writing") as progress:
        text = generator.generate(
            asked,
            processor,
            top_k=top_k,
            max_new_tokens=tokens,
            min_new_tokens=min(at_least, tokens),
            seed=seed,
            progress=progress,
        )
    told = {
        "method": method.value, "user": user, "characters": len(text), "detector_hash": to_hex(mark.spec_hash())
    }  # fmt: skip
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
            help="Picture: PNG, JPEG, WebP, TIFF, BMP or a GIF of one frame; or a folder of them. With --generate,"
            " folder of a diffusers pipeline (Stable Diffusion 1, 2 or XL)."
        ),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            help="Marked picture to write: .png, .jpg, .webp or .tif. Of a folder, or with --generate, new folder for"
            " the pictures."
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

    Of a folder each picture has its row; one that cannot be marked has an error there, and the exit code is 2.
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
    payload, chosen = Long(fingerprint, user), 95 if quality is None else quality
    if picture.is_dir():
        _mark_folder(session, picture, out, model_key, payload, chosen)
        return
    if out.exists():
        raise BadInput(f"{out} exists; a marked picture is never written over anything")
    mark = Dss(open_key(session, model_key, KeyKind.TRACE).secret)
    _mark_picture(mark, picture, out, payload, chosen)
    session.console.result({"file": str(out), "user": user, "fingerprint": fingerprint})


def _mark_folder(
    session: Session, folder: Path, out: Path, model_key: Path, payload: Long, quality: int
) -> None:
    """Each picture that lies in the folder itself, no link, under its name in the new folder `out`.

    One in a format that is not written becomes NAME.png. Raises typer.Exit where one cannot be marked.
    """
    found = sorted(path for path in folder.iterdir() if is_picture(path) and not path.is_symlink())
    if not found:
        raise BadInput(f"no picture lies in {folder}")
    mark = Dss(open_key(session, model_key, KeyKind.TRACE).secret)
    try:
        out.mkdir()
    except FileExistsError as exc:
        raise BadInput(f"{out} exists; the pictures of a folder are marked into a new one") from exc
    except OSError as exc:
        raise BadInput(f"{out} cannot be made: {exc.strerror}") from exc
    rows: list[dict[str, Any]] = []
    failed = 0
    with session.console.progress("marking") as progress:
        for number, path in enumerate(found):
            progress(number, len(found))
            target = out / (path.name if path.suffix.lower() in WRITTEN else f"{path.name}.png")
            told: dict[str, Any] = {"file": _shown(path)}
            try:
                if os.path.lexists(target):  # no error where the name is too long: that comes of writing
                    raise BadInput(f"{target} exists, made of another picture; rename one of them")
                _mark_picture(mark, path, target, payload, quality)
                told |= {"marked": _shown(target), "user": payload.user, "fingerprint": payload.fingerprint}
            except BadInput as exc:
                failed += 1
                told |= {"marked": None, "error": str(exc)}
            rows.append(told)
    session.console.result(rows)
    if failed:
        session.console.note(f"{failed} of {len(found)} could not be marked")
        raise typer.Exit(2)


def _mark_picture(mark: Dss, picture: Path, out: Path, payload: Long, quality: int) -> None:
    try:
        save_picture(mark.embed(open_picture(picture), payload), out, quality=quality)
    except WatermarkError as exc:
        raise BadInput(f"{_shown(picture)} cannot be marked: {exc}") from exc
    except OSError as exc:
        raise BadInput(f"{_shown(out)} cannot be written: {exc.strerror}") from exc


def _shown(path: Path) -> str:
    """A file's name as text, also where it is no UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _tell_copy(session: Session, out: Path, license_id: int, change: float, **more: str | int) -> None:
    """What came of marking a model's copy; one that changed nothing is taken back.

    change: the largest of a tensor, relative.
    """
    if not change > 0:
        shutil.rmtree(out)
        raise BadInput(
            "the mark changes nothing in these weights: are they all zero, or no numbers? no copy is left"
        )
    told = {"copy": str(out), "license_id": license_id, **more}
    session.console.result({**told, "largest_relative_change": change})


def _outside(folder: Path, *files: Path) -> None:
    """What lies in the model's folder goes to the buyer."""
    for file in files:
        if file.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{file} lies in {folder} and would be part of every copy; keep it elsewhere")


def _utf8(path: Path) -> str:
    try:
        return read_bytes(path, MAX_PROMPT_BYTES).decode("utf-8-sig")  # Windows writes a mark before it
    except UnicodeDecodeError as exc:
        raise BadInput(f"{path} is not UTF-8 text") from exc
