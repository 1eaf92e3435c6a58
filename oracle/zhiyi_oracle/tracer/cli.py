"""`zhiyi trace FILE...`: whose copy, or for which API user. Information only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from zhiyi.cli.keys import open_key
from zhiyi.cli.session import Session, read_bytes, session_of
from zhiyi.errors import BadInput, ConfigError, NotFound, ZhiyiError
from zhiyi.keys import KeyKind
from zhiyi.types import TraceKey, model_of_license, to_hex
from zhiyi.usage_log import UsageLog
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.tracer.exchange import Exchange
from zhiyi_oracle.tracer.trace_picture import trace_picture
from zhiyi_oracle.tracer.trace_text import trace_text
from zhiyi_oracle.tracer.trace_weights import (
    MAX_KIT_BYTES,
    check_base,
    check_object,
    key_of,
    licenses_of,
    read_kit,
    trace_weights,
)
from zhiyi_watermark.detect import (
    DecoderSuspect,
    PictureSuspect,
    Progress,
    WriterSuspect,
    is_picture,
    is_text,
    read_text,
)
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.image_generated import FLIPS, Inverter, Kgs, KgsReader, KgsSpec, plan, wide_views
from zhiyi_watermark.image_weights import Extractor, LkdReader, Parts
from zhiyi_watermark.model_folder import load_pipeline
from zhiyi_watermark.payload import MAX_FINGERPRINT, MAX_USER
from zhiyi_watermark.result import Detection
from zhiyi_watermark.text_gaussian import Base, GswSpec, license_key
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig
from zhiyi_watermark.text_stream import tokenizer_hash
from zhiyi_watermark.text_zerobit import KGW, TOURNAMENT, UNIGRAM, ZeroBit

app = typer.Typer(
    name="trace",
    help="Name the candidate of a leaked copy, a text or a picture.",
    context_settings={"allow_interspersed_args": True},  # options after FILE, though a typer app is a group
)


class ProfileName(StrEnum):
    """Text marks without payload."""

    KGW = "kgw"
    TOURNAMENT = "tournament"
    UNIGRAM = "unigram"


class Bits(StrEnum):
    """Sizes of a text's message."""

    SHORT = "32"
    LONG = "64"


PROFILES = {ProfileName.KGW: KGW, ProfileName.TOURNAMENT: TOURNAMENT, ProfileName.UNIGRAM: UNIGRAM}
Row = dict[str, Any]
WARNING: Final = (
    "n, T and p are secret: they are linear in the key's signs, so whoever collects them learns the key"
)
MAX_LICENSES_BYTES: Final = 1 << 26
MAX_DEPTH: Final = 100  # of folders in what was found
REFUSED: Final = 5  # exit code where another operator's gradient must not be signed


@dataclass(frozen=True)
class Asked:
    """What the options of one run say."""

    model_key: Path | None
    tokenizer: Path | None
    provider: Path | None
    bits: Bits
    profiles: Sequence[ProfileName]
    kits: Sequence[str]
    bases: Sequence[str]
    writers: Sequence[str]
    licenses_of: int | None
    fingerprints: Sequence[int]
    gradient_out: Path | None
    gradient_in: Path | None
    pipelines: Sequence[str]
    pipeline_specs: Sequence[str]
    turned: bool
    noise_out: Path | None
    noise_in: Path | None
    decoders: Sequence[str]
    licenses: Sequence[str]
    detectors: Sequence[str]


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
    base: Annotated[
        list[str] | None,
        typer.Option(
            help="For weights: the registered model, or its declared tensors alone, as MODEL_ID=FOLDER. The difference"
            " to them tells more than the file does, also where lines were reordered."
        ),
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
    bits: Annotated[Bits, typer.Option(help="For a text: size of the message it may carry.")] = Bits.SHORT,
    licenses: Annotated[
        int | None,
        typer.Option(
            "--licenses-of",
            help="For a picture, or a text of 64 bits: id of the model whose registered licenses alone can be named."
            " [default: all 2^28 numbers, of which too many fit a picture that had to be searched by chance]",
            min=0,
        ),
    ] = None,
    fingerprint: Annotated[
        list[int] | None,
        typer.Option(
            help="The same without a chain: fingerprint number of a license that can be named; repeat for more.",
            min=0,
            max=MAX_FINGERPRINT,
        ),
    ] = None,
    profile: Annotated[
        list[ProfileName] | None,
        typer.Option(help="For a text: look for this mark without payload too; repeat for more."),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            help="For a text: `detector_hash` that `zhiyi mark text` or `zhiyi mark writer` told; refused where the"
            " tokenizer or the marks looked for are others. Repeat for more."
        ),
    ] = None,
    writer: Annotated[
        list[str] | None,
        typer.Option(
            help="For a text: mark of a model's copies that shows in what they write, as MODEL_ID=FILE, by `zhiyi mark"
            " writer`; --tokenizer is then the folder of the registered model."
        ),
    ] = None,
    gradient_out: Annotated[
        Path | None,
        typer.Option(help="With one --writer and one text: write the text's gradient, for other operators."),
    ] = None,
    gradient_in: Annotated[
        Path | None,
        typer.Option(
            help="With one --writer and one text: another operator's gradient. Ours is computed too; told are how far"
            " they agree and whether they decide alike. Exit code 5 where they do not."
        ),
    ] = None,
    pipeline: Annotated[
        list[str] | None,
        typer.Option(
            help="For a picture: diffusers pipeline that may have drawn it, as MODEL_ID=FOLDER; repeat for more models."
        ),
    ] = None,
    pipeline_spec: Annotated[
        list[str] | None,
        typer.Option(
            help="Spec of a --pipeline's pictures, as MODEL_ID=FILE, by `zhiyi mark image --generate`."
            " [default: those of the size that it draws by itself]"
        ),
    ] = None,
    turned: Annotated[
        bool,
        typer.Option(
            "--turned",
            help="With --pipeline or --decoder: look for turned pictures too, for --pipeline by hundreds of short"
            " inversions, cropped ones among them.",
        ),
    ] = False,
    decoder: Annotated[
        list[str] | None,
        typer.Option(
            help="For a picture: mark of a model's copies that shows in what their decoders make, as MODEL_ID=FILE of"
            " the extractor, or the folder of the parts that `zhiyi mark decoder` takes; repeat for more models."
        ),
    ] = None,
    known_licenses: Annotated[
        list[str] | None,
        typer.Option(
            "--licenses",
            help="With --decoder or --writer: file of all license ids that the model ever had, one a line, as"
            " MODEL_ID=FILE. [default: those of the chain]",
        ),
    ] = None,
    noise_out: Annotated[
        Path | None,
        typer.Option(
            help="With one --pipeline and one picture: write the picture's noise, for other operators."
        ),
    ] = None,
    noise_in: Annotated[
        Path | None,
        typer.Option(
            help="With one --pipeline and one picture: another operator's noise. Ours is computed too, and both are"
            " compared as with --gradient-in."
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together", help="All texts, or all pictures, are one case: what they tell is added up."
        ),
    ] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Add n, T and p. Never pass them on: whoever collects them learns the key's signs."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Name the license of a weights file, or the API user of a text or picture. Nobody is convicted by a trace.

    Of several files, or a folder of files, each has its row; one that cannot be examined has an error there, and the
    exit code is 2. Texts or pictures of one author, all committed to before, are traced --together.
    """
    session = session_of(ctx)
    session.console.as_json = session.console.as_json or as_json
    objects = [found for file in files for found in objects_of(file)]
    if not objects:
        raise BadInput(f"no text, picture or safetensors file lies in {', '.join(map(str, files))}")
    cases = [objects] if together else [[found] for found in objects]
    kind = is_text if is_text(objects[0]) else is_picture
    strange = [path for path in objects if not kind(path)] if together else []
    if strange:
        raise BadInput(f"{_shown(strange[0])}: texts alone or pictures alone are traced --together")
    asked = Asked(
        model_key, tokenizer, provider, bits, profile or [], kit or [], base or [], writer or [], licenses,
        fingerprint or [], gradient_out, gradient_in, pipeline or [], pipeline_spec or [], turned, noise_out, noise_in,
        decoder or [], known_licenses or [], detector or [],
    )  # fmt: skip
    if asked.turned and not (asked.pipelines or asked.decoders):
        raise ConfigError("--turned needs --pipeline or --decoder")
    if (asked.pipelines or asked.pipeline_specs or asked.decoders) and not any(map(is_picture, objects)):
        raise ConfigError(
            "--pipeline, --pipeline-spec, --decoder and --turned are for pictures, and there is none"
        )
    if asked.detectors and not any(map(is_text, objects)):
        raise ConfigError("--detector is for texts, and there is none")
    if (noise_out or noise_in) and not (len(asked.pipelines) == len(objects) == 1 and is_picture(objects[0])):
        raise ConfigError("--noise-out and --noise-in need one --pipeline and one picture")
    if noise_out and os.path.lexists(noise_out):
        raise BadInput(f"{noise_out} exists; the noise is written into a new file")
    if (gradient_out or gradient_in) and not (len(asked.writers) == len(cases) == 1 and is_text(objects[0])):
        raise ConfigError(
            "--gradient-out and --gradient-in need one --writer and one text, or texts --together"
        )
    if full:
        session.console.note(WARNING)
    with ExitStack() as stack:
        registered = _registered(session, asked)
        of_text = _text_tracer(session, stack, asked, registered)
        of_picture = _picture_tracer(session, asked, registered)
        of_weights = _weights_tracer(session, asked)

        def row(case: Sequence[Path], progress: Progress) -> Row:
            first = case[0]
            tracer = of_text if is_text(first) else of_picture if is_picture(first) else of_weights
            told, detection = tracer(case, progress)
            secret = {"detection": _unfolded(detection), "warning": WARNING} if full else {}
            return {**_named(case), **told, **secret}

        if together or (objects == files and len(files) == 1):
            with session.console.progress("tracing") as progress:
                only = row(cases[0], progress)
            session.console.result(only)
            if (only.get("shared") or {}).get("accepted") is False:
                raise typer.Exit(REFUSED)
            return
        rows, failed = [], 0
        with session.console.progress("tracing") as progress:
            for number, case in enumerate(cases):
                progress(number, len(cases))
                try:
                    rows.append(row(case, _silent))
                except ConfigError:
                    raise  # holds for all of them
                except ZhiyiError as exc:
                    failed += 1
                    rows.append({**_named(case), "found": None, "error": str(exc)})
    session.console.result(rows)
    if failed:
        session.console.note(f"{failed} of {len(cases)} could not be examined")
        raise typer.Exit(2)


def objects_of(path: Path) -> list[Path]:
    """What to trace under a path: itself, or each text, picture and model of a folder that is no model's folder.

    A folder with safetensors in it is one model. Raises NotFound where nothing is there, BadInput where folders are
    nested too deep.
    """
    if not os.path.lexists(path):
        raise NotFound(f"{_shown(path)} is not there")
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return [path]
    found = []
    waiting = [(inner, 1) for inner in sorted(path.iterdir(), reverse=True)]
    while waiting:
        at, depth = waiting.pop()
        if at.is_symlink():
            continue
        if depth > MAX_DEPTH:
            raise BadInput(
                f"{_shown(path)} has folders in more than {MAX_DEPTH} folders; name the inner ones"
            )
        if at.is_dir() and not any(at.glob("*.safetensors")):
            waiting += [(inner, depth + 1) for inner in sorted(at.iterdir(), reverse=True)]
        elif at.is_dir() or is_text(at) or is_picture(at):
            found.append(at)
    return found


Tracer = Callable[[Sequence[Path], Progress], tuple[Row, Detection | None]]


def _silent(done: int, total: int) -> None:
    return None


def _named(case: Sequence[Path]) -> Row:
    return {"file": _shown(case[0])} if len(case) == 1 else {"files": [_shown(path) for path in case]}


def _shown(path: Path) -> str:
    """A file's name as text, also where it is no UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


Registered = Callable[[int], list[int]]


def _registered(session: Session, asked: Asked) -> Registered:
    """The license ids that a model ever had: of the file that was given for it, else of the chain."""
    lists = {
        model: _license_list(path, model) for model, path in _numbered("--licenses", asked.licenses).items()
    }
    marked = {*_numbered("--decoder", asked.decoders), *_numbered("--writer", asked.writers)}
    for model in lists:
        if model not in marked:
            raise ConfigError(f"--licenses names model {model}, no --decoder or --writer does")

    def of(model: int) -> list[int]:
        return lists[model] if model in lists else licenses_of(session.reader, model)

    return of


def _license_list(path: Path, model: int) -> list[int]:
    """The numbers in a file, one a line, each once; all of licenses of that model."""
    lines = read_bytes(path, MAX_LICENSES_BYTES).decode(errors="replace").split()
    wrong = next(
        (line for line in lines if not line.isascii() or not line.isdecimal() or len(line) > 78), None
    )
    if wrong is not None or not lines:
        said = "the file is empty" if wrong is None else f"{wrong!r:.40} is no license id"
        raise BadInput(f"{path}: {said}; write decimal numbers, one a line")
    numbers = sorted({int(line) for line in lines})
    if numbers[-1] >= 1 << 256:
        raise BadInput(f"{path}: {numbers[-1]} is no license id; they are under 2^256")
    strange = next((n for n in numbers if model_of_license(n) != model), None)
    if strange is not None:
        raise BadInput(
            f"{path}: license {strange} is of model {model_of_license(strange)}, --licenses names model {model}"
        )
    return numbers


def _weights_tracer(session: Session, asked: Asked) -> Tracer:
    kits = {model: read_kit(path) for model, path in _numbered("--kit", asked.kits).items()}
    bases = _numbered("--base", asked.bases)
    for model, path in bases.items():
        if model not in kits:
            raise ConfigError(f"--base names model {model}, no --kit does")
        check_base(path, kits[model])

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

    def traced(case: Sequence[Path], progress: Progress) -> tuple[Row, Detection | None]:
        if not kits:
            raise ConfigError("tracing weights needs --kit MODEL_ID=FILE, the trace kit of the model")
        check_object(case[0])
        licenses, keys = on_chain()
        found, detection = trace_weights(case[0], kits, licenses, bases, progress)
        key = keys[found.model_id] if found.model_id is not None else None
        since, until = (key.since, key.until or None) if key else (None, None)
        told = {
            "key_since": since,
            "key_until": until,
            "not_committed": [m for m, key in keys.items() if key is None],
        }
        return {**found.model_dump(), **told}, detection

    return traced


def _text_tracer(session: Session, stack: ExitStack, asked: Asked, registered: Registered) -> Tracer:
    specs = {model: _spec(path) for model, path in _numbered("--writer", asked.writers).items()}

    @cache
    def tools() -> tuple[BinPlus, Any, ApiUsers | None, UsageLog | None, list[WriterSuspect]]:
        if (
            asked.model_key is None
            or asked.tokenizer is None
            or not (asked.provider or asked.profiles or specs)
        ):
            raise ConfigError(
                "tracing a text needs --model-key, --tokenizer and --provider, --profile or --writer"
            )
        key = open_key(session, asked.model_key, KeyKind.TRACE).secret
        base = Base(asked.tokenizer)  # loaded once for all texts
        try:
            mark = BinPlus(key, BinPlusConfig(long=asked.bits is Bits.LONG), tokenizer_hash(asked.tokenizer))
            strange = [model for model, spec in specs.items() if spec.tokenizer_hash != mark.tokenizer_hash]
            if strange:
                raise ConfigError(
                    f"the --writer of model {strange[0]} names another tokenizer.json than that of {asked.tokenizer}; "
                    "give the registered model's folder, and a run to each model of another tokenizer"
                )
            _check_detectors(asked, mark, specs)
            loaded: Any = base.tokenizer
            if specs:
                _ = base.model
        except UnavailableError as exc:
            raise ConfigError(str(exc)) from exc
        licenses = {model: registered(model) for model in specs}
        writers = [
            WriterSuspect(str(model), base, spec, {n: license_key(mark.key, n) for n in licenses[model]})
            for model, spec in specs.items()
            if licenses[model]
        ]
        if asked.provider is None:
            return mark, loaded, None, None, writers
        users = ApiUsers(asked.provider, new=False)
        stack.callback(users.close)
        return mark, loaded, users, stack.enter_context(UsageLog(asked.provider / "log")), writers

    def traced(case: Sequence[Path], progress: Progress) -> tuple[Row, Detection | None]:
        mark, loaded, users, log, writers = tools()
        try:
            texts = [read_text(path) for path in case]
        except CarrierError as exc:
            raise BadInput(str(exc)) from exc
        exchange = None
        if asked.gradient_out or asked.gradient_in:
            if not writers:
                raise ConfigError(
                    "the model of --writer has no licenses, so there is nobody to compare gradients on"
                )
            exchange = Exchange(writers[0], asked.gradient_out, asked.gradient_in)
        found, detection = trace_text(
            texts,
            mark,
            loaded,
            users,
            log,
            [PROFILES[name] for name in asked.profiles],
            writers,
            fingerprints=_fingerprints(session, asked),
            exchange=exchange,
            progress=progress,
        )
        return found.model_dump(), detection

    return traced


def _check_detectors(asked: Asked, mark: BinPlus, specs: Mapping[int, GswSpec]) -> None:
    """Raises ConfigError where a --detector is none of the marks looked for with this tokenizer."""
    tried = {to_hex(mark.spec_hash()): f"binplus of {asked.bits.value} bits"} if asked.provider else {}
    for name in asked.profiles:
        tried[to_hex(ZeroBit(mark.key, PROFILES[name], mark.tokenizer_hash).spec_hash())] = name.value
    tried |= {to_hex(spec.spec_hash()): f"writer of model {model}" for model, spec in specs.items()}
    for given in asked.detectors:
        if given.lower() not in tried:
            looked = ", ".join(f"{name} {hash_}" for hash_, name in tried.items())
            raise ConfigError(
                f"--detector {given} is none of what is looked for with the tokenizer of {asked.tokenizer}: {looked}; "
                "give the tokenizer, --bits, --profile or --writer that the text was marked with"
            )


def _picture_tracer(session: Session, asked: Asked, registered: Registered) -> Tracer:
    folders = _numbered("--pipeline", asked.pipelines)
    specs = {
        model: _kgs_spec(path) for model, path in _numbered("--pipeline-spec", asked.pipeline_specs).items()
    }
    for model in specs:
        if model not in folders:
            raise ConfigError(f"--pipeline-spec names model {model}, no --pipeline does")
    extractors = {model: _extractor(path) for model, path in _numbered("--decoder", asked.decoders).items()}

    @cache
    def suspects() -> list[PictureSuspect | DecoderSuspect]:
        if asked.model_key is None:
            raise ConfigError("tracing a picture needs --model-key")
        key = open_key(session, asked.model_key, KeyKind.TRACE).secret
        users: int | frozenset[int] = MAX_USER + 1
        if asked.provider is not None:
            book = ApiUsers(asked.provider, new=False)
            users = book.numbers()
            book.close()
            if not users:
                raise ConfigError("the provider has no API users yet, so nobody can be named")
        known = _fingerprints(session, asked)
        readers = {m: _reader(key, folder, specs.get(m), asked.turned) for m, folder in folders.items()}
        copies = {model: registered(model) for model in extractors}
        for model, licenses in copies.items():
            if not licenses:
                session.console.note(f"model {model} has no licenses; its --decoder is not looked for")
        return [
            PictureSuspect("", Dss(key), users, known),
            *(
                DecoderSuspect(str(model), LkdReader(extractor, key, wide=asked.turned), copies[model])
                for model, extractor in extractors.items()
                if copies[model]
            ),
            *(PictureSuspect(str(model), reader, users, known) for model, reader in readers.items()),
        ]

    def traced(case: Sequence[Path], _: Progress) -> tuple[Row, Detection | None]:
        tried = suspects()
        exchange = None
        if asked.noise_out or asked.noise_in:
            last = tried[-1]
            assert isinstance(last, PictureSuspect)  # of the one --pipeline
            exchange = Exchange(last, asked.noise_out, asked.noise_in)
        found, detection = trace_picture(case, tried, exchange)
        return found.model_dump(), detection

    return traced


def _reader(key: bytes, folder: Path, spec: KgsSpec | None, turned: bool) -> KgsReader:
    """The mark of generated pictures, with the pipeline that reads it. Raises ConfigError."""
    try:
        pipeline = load_pipeline(folder)
        chosen = spec or plan(pipeline)
        views = wide_views(chosen) if turned else FLIPS
        return KgsReader(Kgs(key, chosen), Inverter(pipeline, chosen), views)
    except (SpecError, UnavailableError) as exc:
        raise ConfigError(f"{folder}: {exc}") from exc


def _extractor(path: Path) -> Extractor:
    """A file, or that of a folder of parts. Raises BadInput, also where its modulation is of another training."""
    try:
        return Parts.load(path).extractor if path.is_dir() else Extractor.load(path)
    except (CarrierError, UnavailableError) as exc:
        raise BadInput(f"{path} holds no mark of a model's decoders: {exc}") from exc


def _fingerprints(session: Session, asked: Asked) -> int | Collection[int]:
    """The numbers that can be named: those given, and of the model's licenses, with 0 of the owner's own service."""
    known = set(asked.fingerprints)
    if asked.licenses_of is not None:
        known |= {0, *(n & MAX_FINGERPRINT for n in licenses_of(session.reader, asked.licenses_of))}
    return known or MAX_FINGERPRINT + 1


def _numbered(option: str, given: Sequence[str]) -> dict[int, Path]:
    """Raises BadInput, also on a model named twice: the last would win, and what was tried of the first not count."""
    found: dict[int, Path] = {}
    for item in given:
        number, separator, path = item.partition("=")
        if not separator or not (number.isascii() and number.isdecimal()):
            raise BadInput(f"{option} {item!r:.120}: write MODEL_ID=FILE")
        if len(number) > 20 or int(number) >= 1 << 64:
            raise BadInput(f"{option} {item!r:.120}: no model's id is over 64 bits")
        if int(number) in found:
            raise BadInput(f"{option} names model {int(number)} twice; give it once, with one file")
        found[int(number)] = Path(path)
    return found


def _spec(path: Path) -> GswSpec:
    try:
        return GswSpec.from_json(read_bytes(path, MAX_KIT_BYTES).decode(errors="replace"))
    except SpecError as exc:
        raise BadInput(f"{path} is no mark of a model's copies: {exc}") from exc


def _kgs_spec(path: Path) -> KgsSpec:
    try:
        return KgsSpec.from_json(read_bytes(path, MAX_KIT_BYTES).decode(errors="replace"))
    except SpecError as exc:
        raise BadInput(f"{path} names no pipeline of marked pictures: {exc}") from exc


def _unfolded(detection: Detection | None) -> Row | None:
    if detection is None:
        return None
    fields: Row = json.loads(detection.to_json())
    return fields
