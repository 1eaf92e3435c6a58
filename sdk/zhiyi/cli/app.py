"""The root of the command line: global options, plug-ins, errors to exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import ValidationError

from zhiyi.cli import (
    access,
    cases,
    channels,
    committee,
    deployment,
    doctor,
    evidence,
    identity,
    index,
    ipfs,
    keys,
    licenses,
    models,
    offers,
    orders,
    oversight,
    page,
    royalties,
    vault,
)
from zhiyi.cli.console import Console
from zhiyi.cli.session import DEFAULT_IPFS, DEFAULT_RPC, Session
from zhiyi.delivery.verify import WrongChunk
from zhiyi.errors import (
    BadInput,
    BadSignature,
    ConfigError,
    InsufficientFunds,
    IntegrityError,
    MissingExtra,
    NotFound,
    RpcRefused,
    RpcUnavailable,
    Timeout,
    TxReverted,
    ZhiyiError,
)

# The first class that fits counts.
EXIT_CODES: Final[tuple[tuple[type[ZhiyiError], int], ...]] = (
    (WrongChunk, 9),
    (BadInput, 2),
    (ConfigError, 3),
    (NotFound, 4),
    (IntegrityError, 5),
    (BadSignature, 5),
    (TxReverted, 6),
    (InsufficientFunds, 7),
    (RpcUnavailable, 8),
    (RpcRefused, 8),
    (Timeout, 8),
    (ZhiyiError, 1),
)

PLUGIN_GROUP: Final = "zhiyi.commands"
PLUGIN_EXTRA: Final = "oracle"  # the extra whose packages the plug-ins need
# Flags that may stand anywhere; options that take a value, so that the word after them is no command.
_FLAGS: Final = ("--json", "--dry-run")
_VALUED: Final = (
    "--rpc",
    "--deployment",
    "--ipfs",
    "--index",
    "--keystore",
    "--password-file",
    "--key-file",
    "--unsigned",
)

EPILOG: Final = (
    "--json and --dry-run may stand anywhere. Exit codes: 0 done, 1 fault of the program, 2 usage or input,"
    " 3 configuration, 4 not found, 5 data or signature not to be trusted, 6 a contract refused,"
    " 7 too little money, 8 no answer in time, 9 a delivered chunk is wrong."
)


def build() -> typer.Typer:
    """The application without plug-ins."""
    app = typer.Typer(
        name="zhiyi",
        help="Trade generative AI models: register, sell, deliver, trace, judge.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_options)
    for module in (
        models,
        offers,
        orders,
        licenses,
        channels,
        cases,
        committee,
        royalties,
        vault,
        identity,
        oversight,
        access,
        evidence,
        keys,
        index,
        deployment,
    ):
        app.add_typer(module.app)
    app.add_typer(ipfs.app)
    app.command("doctor")(doctor.doctor)
    app.command("page", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        page.page
    )
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with the exit code."""
    given = _flags_first(list(sys.argv[1:] if arguments is None else arguments))
    console = Console(as_json="--json" in given[: _command_at(given)])
    app = build()
    try:
        _add_plugins(app, given)
        app(args=given, prog_name="zhiyi")
    except ZhiyiError as error:
        console.error(type(error).__name__, str(error), _details(error))
        sys.exit(exit_code(error))
    except ValidationError as error:  # a value of the command line that no field takes
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        console.error("BadInput", f"{where or error.title}: {first['msg']}", {})
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a file or folder that cannot be read or written
        console.error("OSError", f"{error.filename or 'input or output'}: {error.strerror or error}", {})
        sys.exit(3)


def exit_code(error: ZhiyiError) -> int:
    """The exit code of an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def plugins() -> dict[str, EntryPoint]:
    """Commands of other packages, by name; nothing is loaded."""
    return {point.name: point for point in entry_points(group=PLUGIN_GROUP)}


def _options(
    ctx: typer.Context,
    rpc: Annotated[
        str, typer.Option(envvar="ZHIYI_RPC", help="RPC endpoints of the chain, separated by commas.")
    ] = DEFAULT_RPC,
    deployment: Annotated[
        Path | None, typer.Option(envvar="ZHIYI_DEPLOYMENT", help="Address book of the deployment (JSON).")
    ] = None,
    ipfs: Annotated[
        str, typer.Option(envvar="ZHIYI_IPFS", help="RPC address of an IPFS daemon.")
    ] = DEFAULT_IPFS,
    index: Annotated[
        str, typer.Option(envvar="ZHIYI_INDEX", help="SQLAlchemy address of the index database.")
    ] = "sqlite:///zhiyi-index.db",
    keystore: Annotated[
        Path | None, typer.Option(envvar="ZHIYI_KEYSTORE", help="Keystore (v3) of the account that signs.")
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ZHIYI_PASSWORD_FILE", help="File (mode 0600) with the password; else it is asked."
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(envvar="ZHIYI_KEY_FILE", help="File (mode 0600) with a private key in hex, for tests."),
    ] = None,
    unsigned: Annotated[
        str | None, typer.Option(help="Print the unsigned transaction of this address instead of sending.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Simulate transactions only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    ctx.obj = Session(
        rpc=rpc,
        deployment=deployment,
        ipfs_api=ipfs,
        index_url=index,
        keystore=keystore,
        password_file=password_file,
        key_file=key_file,
        unsigned=unsigned,
        dry_run=dry_run,
        console=Console(as_json=as_json),
    )


def _command_at(arguments: list[str]) -> int:
    """Place of the first word that is no global option, the end if there is none."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 2 if arguments[at] in _VALUED else 1
    return min(at, len(arguments))


def _flags_first(arguments: list[str]) -> list[str]:
    """Our flags moved before the command, a plug-in's included: it asks the session."""
    at = _command_at(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    moved = [word for word in arguments[at:end] if word in _FLAGS]
    rest = [word for word in arguments[at:end] if word not in _FLAGS]
    return [*moved, *arguments[:at], *rest, *arguments[end:]]


def _add_plugins(app: typer.Typer, arguments: list[str]) -> None:
    """Load the plug-in that is called; name the others, so that `zhiyi --help` is quick and lists them."""
    at = _command_at(arguments)
    called = arguments[at] if at < len(arguments) else ""
    for name, point in sorted(plugins().items()):
        if name == called:
            app.add_typer(_loaded(point), name=name)
        else:
            app.command(name, help=f"(extra '{PLUGIN_EXTRA}') see `zhiyi {name} --help`")(_stub)


def _loaded(point: EntryPoint) -> typer.Typer:
    try:
        found: Any = point.load()
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("zhiyi", "zhiyi_oracle"):
            raise ConfigError(f"`zhiyi {point.name}` is not part of this installation: {error}") from error
        raise MissingExtra(PLUGIN_EXTRA) from error
    if not isinstance(found, typer.Typer):
        raise ConfigError(f"the command {point.name} of {point.value} is no typer application")
    return found


def _stub() -> None:
    raise ConfigError("this command was not loaded; call it by its own name")


def _details(error: ZhiyiError) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}
