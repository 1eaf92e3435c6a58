"""`zhiyi trace FILE`: whose copy, or for which API user. Information only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from zhiyi.cli.keys import open_key
from zhiyi.cli.session import Session, read_bytes, session_of
from zhiyi.errors import BadInput, ConfigError
from zhiyi.keys import KeyKind
from zhiyi.usage_log import UsageLog
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.tracer.trace_text import MAX_TEXT_BYTES, trace_text
from zhiyi_oracle.tracer.trace_weights import key_of, licenses_of, read_kit, trace_weights
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig

TEXT_SUFFIXES: Final = frozenset({".txt", ".md"})

app = typer.Typer(
    name="trace",
    help="Name the candidate of a leaked copy or a text.",
    context_settings={"allow_interspersed_args": True},  # options after FILE, though a typer app is a group
)


@app.callback(invoke_without_command=True)
def trace(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Safetensors file or folder; or a text, .txt or .md.")],
    kit: Annotated[
        list[str] | None, typer.Option(help="Trace kit of a model, as MODEL_ID=FILE; repeat for more models.")
    ] = None,
    model_key: Annotated[
        Path | None, typer.Option(help="For a text: key file of the model (kind trace).")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="For a text: folder of the model's tokenizer.")
    ] = None,
    provider: Annotated[
        Path | None, typer.Option(help="For a text: folder of the provider's users and log (server stopped).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Name the license of a weights file, or the API user of a text. Nobody is convicted by a trace."""
    session = session_of(ctx)
    session.console.as_json = session.console.as_json or as_json
    if file.suffix.lower() in TEXT_SUFFIXES and file.is_file():
        if model_key is None or tokenizer is None or provider is None:
            raise ConfigError("tracing a text needs --model-key, --tokenizer and --provider")
        _text(session, file, model_key, tokenizer, provider)
        return
    if not kit:
        raise ConfigError("tracing weights needs --kit MODEL_ID=FILE, the trace kit of the model")
    _weights(session, file, kit)


def _weights(session: Session, file: Path, given: list[str]) -> None:
    kits = {}
    for item in given:
        number, separator, path = item.partition("=")
        if not separator or not number.isdecimal():
            raise BadInput(f"--kit {item!r}: write MODEL_ID=FILE")
        kits[int(number)] = read_kit(Path(path))
    found, _ = trace_weights(file, kits, {model: licenses_of(session.reader, model) for model in kits})
    counts = {model: key_of(session.reader, model, kit) for model, kit in kits.items()}
    for model, key in counts.items():
        if key is None:
            session.console.note(
                f"the kit of model {model} was never committed on chain: what it finds counts for nothing"
            )
    key = counts[found.model_id] if found.model_id is not None else None
    since, until = (key.since, key.until or None) if key else (None, None)
    told = {
        "key_since": since,
        "key_until": until,
        "not_committed": [m for m, key in counts.items() if key is None],
    }
    session.console.result({**found.model_dump(), **told})


def _text(session: Session, file: Path, model_key: Path, tokenizer: Path, provider: Path) -> None:
    from transformers import AutoTokenizer

    try:
        text = read_bytes(file, MAX_TEXT_BYTES).decode()
    except UnicodeDecodeError as exc:
        raise BadInput(f"{file} is not UTF-8 text") from exc
    mark = BinPlus(open_key(session, model_key, KeyKind.TRACE).secret, BinPlusConfig())
    users = ApiUsers(provider)
    with UsageLog(provider / "log") as log:
        loaded = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        found, _ = trace_text(text, mark, loaded, users, log)
    users.close()
    session.console.result(found)
