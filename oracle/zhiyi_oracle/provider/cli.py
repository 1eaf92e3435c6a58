"""`zhiyi provider`: users, answers, the anchored log."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from waitress import serve as wsgi_serve  # type: ignore[import-untyped]  # ships no types

from zhiyi.cli.keys import open_key
from zhiyi.cli.session import Session, session_of
from zhiyi.client import Zhiyi
from zhiyi.errors import ZhiyiError
from zhiyi.keys import KeyKind
from zhiyi.usage_log import UsageLog
from zhiyi_oracle.api_users import ApiUsers
from zhiyi_oracle.language_model import TransformersGenerator
from zhiyi_oracle.logs import configure_logs, get_logger
from zhiyi_oracle.provider.anchor import anchor_pending
from zhiyi_oracle.provider.answer import Provider
from zhiyi_oracle.provider.server import MAX_REQUEST_BYTES, MAX_WAITING, create_app
from zhiyi_oracle.secret_files import private_folder
from zhiyi_watermark.text_multibit import BinPlus, BinPlusConfig

app = typer.Typer(
    name="provider", help="Serve a model: marked, labelled, logged answers.", no_args_is_help=True
)

logger = get_logger(__name__)

HOME: Final = Path("provider")
HomeOption = Annotated[
    Path, typer.Option("--home", envvar="ZHIYI_PROVIDER", help="Folder of users and log, mode 0700.")
]
ModelOption = Annotated[int, typer.Option("--model-id", help="Model id that answers are logged for.")]
FolderOption = Annotated[Path, typer.Option("--model", help="Folder of the transformers model.")]
KeyOption = Annotated[Path, typer.Option("--model-key", help="Key file of the model (kind trace).")]
ProducerOption = Annotated[str, typer.Option("--producer", help="Provider code in the labels.")]
HorizonOption = Annotated[int, typer.Option("--horizon", help="Expected answer length, tokens.")]
TemperatureOption = Annotated[float, typer.Option("--temperature", help="Sampling temperature.")]


@app.command("add-user")
def add_user(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the API user.")],
    home: HomeOption = HOME,
) -> None:
    """Add a user; the token is shown this once. Number, salt and name open the user's own leaves."""
    users = ApiUsers(home)
    user, token = users.add(name)
    users.close()
    session_of(ctx).console.result(
        {"name": user.name, "number": user.number, "salt": user.salt, "token": token}
    )


@app.command("drop-user")
def drop_user(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the API user.")],
    home: HomeOption = HOME,
) -> None:
    """The user's token no longer counts; old answers stay traceable."""
    users = ApiUsers(home)
    users.deactivate(name)
    users.close()
    session_of(ctx).console.result({"name": name, "active": False})


@app.command()
def ask(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="API user.")],
    prompt: Annotated[str, typer.Argument(help="Prompt.")],
    model: FolderOption,
    model_id: ModelOption,
    model_key: KeyOption,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, tokens.")] = 256,
    producer: ProducerOption = "unnamed",
    temperature: TemperatureOption = 0.8,
    horizon: HorizonOption = 400,
    home: HomeOption = HOME,
) -> None:
    """Answer one prompt as a user."""
    session = session_of(ctx)
    users = ApiUsers(home)
    user = users.by_name(name)
    users.close()
    with UsageLog(home / "log") as log:
        provider = _provider(session, log, model, model_id, model_key, producer, temperature, horizon)
        session.console.result(provider.answer(user, prompt, max_new_tokens=max_new_tokens))


@app.command()
def serve(
    ctx: typer.Context,
    model: FolderOption,
    model_id: ModelOption,
    model_key: KeyOption,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8090,
    anchor_every_s: Annotated[
        float, typer.Option(help="Seconds between anchored batches; 0: never, then no account is needed.")
    ] = 0.0,
    producer: ProducerOption = "unnamed",
    temperature: TemperatureOption = 0.8,
    horizon: HorizonOption = 400,
    home: HomeOption = HOME,
) -> None:
    """Serve POST /v1/answer until stopped. Put TLS in front of it: tokens travel in a header."""
    configure_logs()
    session = session_of(ctx)
    users = ApiUsers(private_folder(home))
    with UsageLog(home / "log") as log:
        provider = _provider(session, log, model, model_id, model_key, producer, temperature, horizon)
        if anchor_every_s > 0:
            client = session.client
            threading.Thread(
                target=_anchor_forever,
                args=(client, log, model_id, anchor_every_s),
                daemon=True,
                name="anchor",
            ).start()
        session.console.note(f"answering on http://{host}:{port}")
        wsgi_serve(
            create_app(provider, users, log),
            host=host,
            port=port,
            threads=MAX_WAITING + 2,
            max_request_body_size=MAX_REQUEST_BYTES,
            ident="zhiyi",
        )


@app.command()
def anchor(ctx: typer.Context, model_id: ModelOption, home: HomeOption = HOME) -> None:
    """Anchor the log's new leaves on chain and publish their hashes; `serve --anchor-every-s` does it itself."""
    session = session_of(ctx)
    with UsageLog(home / "log") as log:
        done = anchor_pending(session.client, log, model_id)
    session.console.result(done if done is not None else {"anchored": 0})


def _anchor_forever(client: Zhiyi, log: UsageLog, model_id: int, seconds: float) -> None:
    """One thread anchors while others append: a batch is what the log held when it was cut."""
    while True:
        time.sleep(seconds)
        try:
            done = anchor_pending(client, log, model_id)
        except ZhiyiError as exc:
            logger.warning("not anchored, will try again", reason=str(exc))
            continue
        if done is not None:
            logger.info("anchored", first=done.first, count=done.count, tx_hash=done.tx_hash)


def _provider(
    session: Session,
    log: UsageLog,
    model: Path,
    model_id: int,
    model_key: Path,
    producer: str,
    temperature: float,
    horizon: int,
) -> Provider:
    key = open_key(session, model_key, KeyKind.TRACE).secret
    return Provider(
        generator=TransformersGenerator(model, temperature=temperature),
        mark=BinPlus(key, BinPlusConfig(temperature=temperature, horizon=horizon)),
        log=log,
        model_id=model_id,
        producer=producer,
        clock=lambda: int(time.time()),
    )
