"""`zhiyi trace FILE...`: whose copy, or for which API user. Information only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from zhiyi.cli.keys import open_key
from zhiyi.cli.session import Session, read_bytes, session_of
from zhiyi.errors import BadInput, ConfigError, ZhiyiError
from zhiyi.keys import KeyKind
from zhiyi.types import TraceKey
from zhiyi.usage_log import UsageLog
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.tracer.trace_picture import trace_picture
from zhiyi_oracle.tracer.trace_text import trace_text
from zhiyi_oracle.tracer.trace_weights import MAX_KIT_BYTES, key_of, licenses_of, read_kit, trace_weights
from zhiyi_watermark.detect import WriterSuspect, is_picture, is_text, read_text
from zhiyi_watermark.errors import CarrierError, SpecError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.payload import MAX_USER
from zhiyi_watermark.result import Detection
from zhiyi_watermark.text_gaussian import Base, GswSpec, license_key
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM

app = typer.Typer(
    name="trace",
    help="Name the candidate of a leaked copy or a text.",
    context_settings={"allow_interspersed_args": True},  # options after FILE, though a typer app is a group
)


class ProfileName(StrEnum):
    """Text marks without payload."""

    KGW = "kgw"
    TOURNAMENT = "tournament"
    UNIGRAM = "unigram"


PROFILES = {ProfileName.KGW: KGW, ProfileName.TOURNAMENT: TOURNAMENT, ProfileName.UNIGRAM: UNIGRAM}
Row = dict[str, Any]


@app.callback(invoke_without_command=True)
def trace(
    ctx: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Safetensors file, or folder of one model; text, .txt or .md; picture; folder of such.",
        ),
    ],
    kit: Annotated[
        list[str] | None, typer.Option(help="Trace kit of a model, as MODEL_ID=FILE; repeat for more models.")
    ] = None,
    model_key: Annotated[
        Path | None, typer.Option(help="For a text or picture: key file of the model (kind trace).")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="For a text: folder of the model's tokenizer.")
    ] = None,
    provider: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the provider's users and log (server stopped): names the user of a text; of a picture only"
            " registered users can be named."
        ),
    ] = None,
    profile: Annotated[
        list[ProfileName] | None,
        typer.Option(help="For a text: look for this mark without payload too; repeat for more."),
    ] = None,
    writer: Annotated[
        list[str] | None,
        typer.Option(
            help="For a text: mark of a model's copies that shows in what they write, as MODEL_ID=FILE, by `zhiyi mark"
            " writer`; --tokenizer is then the folder of the registered model."
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="Add n, T and p: secret, whoever collects them learns the key's signs."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Name the license of a weights file, or the API user of a text or picture. Nobody is convicted by a trace.

    Of several files, or a folder of files, each has its row; one that cannot be examined has an error there, and the
    exit code is 2.
    """
    session = session_of(ctx)
    session.console.as_json = session.console.as_json or as_json
    objects = [found for file in files for found in objects_of(file)]
    if not objects:
        raise BadInput(f"no text and no safetensors file lies in {', '.join(map(str, files))}")
    with ExitStack() as stack:
        of_text = _text_tracer(session, stack, model_key, tokenizer, provider, profile or [], writer or [])
        of_picture = _picture_tracer(session, model_key, provider)
        of_weights = _weights_tracer(session, kit or [])

        def row(path: Path) -> Row:
            tracer = of_text if is_text(path) else of_picture if is_picture(path) else of_weights
            told, detection = tracer(path)
            secret = {"detection": _unfolded(detection)} if full else {}
            return {"file": str(path), **told, **secret}

        if objects == files and len(files) == 1:
            session.console.result(row(files[0]))
            return
        rows, failed = [], 0
        with session.console.progress("tracing") as progress:
            for number, path in enumerate(objects):
                progress(number, len(objects))
                try:
                    rows.append(row(path))
                except ConfigError:
                    raise  # holds for all of them
                except ZhiyiError as exc:
                    failed += 1
                    rows.append({"file": str(path), "found": None, "error": str(exc)})
    session.console.result(rows)
    if failed:
        session.console.note(f"{failed} of {len(objects)} could not be examined")
        raise typer.Exit(2)


def objects_of(path: Path) -> list[Path]:
    """What to trace under a path: itself, or each text, picture and model of a folder that is no model's folder.

    A folder with safetensors in it is one model.
    """
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return [path]
    found = []
    for inner in sorted(path.iterdir()):
        if inner.is_symlink():
            continue
        if inner.is_dir():
            found += objects_of(inner)
        elif is_text(inner) or is_picture(inner):
            found.append(inner)
    return found


Tracer = Callable[[Path], tuple[Row, Detection | None]]


def _weights_tracer(session: Session, given: Sequence[str]) -> Tracer:
    kits = {model: read_kit(path) for model, path in _numbered("--kit", given).items()}

    @cache
    def on_chain() -> tuple[dict[int, list[int]], dict[int, TraceKey | None]]:
        licenses = {model: licenses_of(session.reader, model) for model in kits}
        keys = {model: key_of(session.reader, model, kit) for model, kit in kits.items()}
        for model, key in keys.items():
            if key is None:
                session.console.note(
                    f"the kit of model {model} was never committed on chain: what it finds counts for nothing"
                )
        return licenses, keys

    def traced(path: Path) -> tuple[Row, Detection | None]:
        if not kits:
            raise ConfigError("tracing weights needs --kit MODEL_ID=FILE, the trace kit of the model")
        licenses, keys = on_chain()
        found, detection = trace_weights(path, kits, licenses)
        key = keys[found.model_id] if found.model_id is not None else None
        since, until = (key.since, key.until or None) if key else (None, None)
        told = {
            "key_since": since,
            "key_until": until,
            "not_committed": [m for m, key in keys.items() if key is None],
        }
        return {**found.model_dump(), **told}, detection

    return traced


def _text_tracer(
    session: Session,
    stack: ExitStack,
    model_key: Path | None,
    tokenizer: Path | None,
    provider: Path | None,
    profiles: Sequence[ProfileName],
    given: Sequence[str],
) -> Tracer:
    specs = {model: _spec(path) for model, path in _numbered("--writer", given).items()}

    @cache
    def tools() -> tuple[BinPlus, Any, ApiUsers | None, UsageLog | None, list[WriterSuspect]]:
        if model_key is None or tokenizer is None or not (provider or profiles or specs):
            raise ConfigError(
                "tracing a text needs --model-key, --tokenizer and --provider, --profile or --writer"
            )
        from transformers import AutoTokenizer

        mark = BinPlus(open_key(session, model_key, KeyKind.TRACE).secret, BinPlusConfig())
        try:
            loaded = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"no tokenizer can be loaded from {tokenizer}: {exc}") from exc
        licenses = {model: licenses_of(session.reader, model) for model in specs}
        base = Base(tokenizer)
        writers = [
            WriterSuspect(str(model), base, spec, {n: license_key(mark.key, n) for n in licenses[model]})
            for model, spec in specs.items()
            if licenses[model]
        ]
        if provider is None:
            return mark, loaded, None, None, writers
        users = ApiUsers(provider)
        stack.callback(users.close)
        return mark, loaded, users, stack.enter_context(UsageLog(provider / "log")), writers

    def traced(path: Path) -> tuple[Row, Detection | None]:
        mark, loaded, users, log, writers = tools()
        try:
            text = read_text(path)
        except CarrierError as exc:
            raise BadInput(str(exc)) from exc
        chosen = [PROFILES[name] for name in profiles]
        found, detection = trace_text(text, mark, loaded, users, log, chosen, writers)
        return found.model_dump(), detection

    return traced


def _picture_tracer(session: Session, model_key: Path | None, provider: Path | None) -> Tracer:
    @cache
    def tools() -> tuple[Dss, int | frozenset[int]]:
        if model_key is None:
            raise ConfigError("tracing a picture needs --model-key")
        mark = Dss(open_key(session, model_key, KeyKind.TRACE).secret)
        if provider is None:
            return mark, MAX_USER + 1
        users = ApiUsers(provider)
        numbers = users.numbers()
        users.close()
        if not numbers:
            raise ConfigError("the provider has no API users yet, so nobody can be named")
        return mark, numbers

    def traced(path: Path) -> tuple[Row, Detection | None]:
        found, detection = trace_picture(path, *tools())
        return found.model_dump(), detection

    return traced


def _numbered(option: str, given: Sequence[str]) -> dict[int, Path]:
    found = {}
    for item in given:
        number, separator, path = item.partition("=")
        if not separator or not number.isdecimal():
            raise BadInput(f"{option} {item!r}: write MODEL_ID=FILE")
        found[int(number)] = Path(path)
    return found


def _spec(path: Path) -> GswSpec:
    try:
        return GswSpec.from_json(read_bytes(path, MAX_KIT_BYTES).decode(errors="replace"))
    except SpecError as exc:
        raise BadInput(f"{path} is no mark of a model's copies: {exc}") from exc


def _unfolded(detection: Detection | None) -> Row | None:
    if detection is None:
        return None
    fields = {name: getattr(detection, name) for name in detection.__dataclass_fields__}
    return {**fields, "payload": detection.payload.hex() if detection.payload is not None else None}
