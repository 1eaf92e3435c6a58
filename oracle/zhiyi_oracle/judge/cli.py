"""`zhiyi oracle`: make, check, run and look at one operator."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated, Final

import typer

from zhiyi.cli.session import session_of
from zhiyi.errors import ConfigError
from zhiyi.keys import KeyKind, new_key
from zhiyi.signers import LocalSigner
from zhiyi_oracle.judge import operator
from zhiyi_oracle.judge.config import TEMPLATE, JudgeConfig, load
from zhiyi_oracle.judge.store import CaseStep, CaseStore
from zhiyi_oracle.logs import configure_logs
from zhiyi_oracle.secret_files import private_folder, write_private

app = typer.Typer(name="oracle", help="Run an oracle operator.", no_args_is_help=True)

CONFIG_NAME: Final = "oracle.toml"
ConfigOption = Annotated[Path, typer.Option("--config", help="Settings of the operator (TOML).")]


@app.command()
def init(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="New folder for settings and keys, mode 0700.")],
) -> None:
    """Make settings (dry run on) and fresh keys; prints what to register with the committee."""
    private_folder(folder)
    signer, exchange = new_key(KeyKind.SIGNER), new_key(KeyKind.ENCRYPTION)
    if (folder / CONFIG_NAME).exists():
        raise ConfigError(f"{folder / CONFIG_NAME} exists already; choose a new folder")
    write_private(folder / "signer.key", b"0x" + signer.secret.hex().encode() + b"\n")
    write_private(folder / "x25519.key", b"0x" + exchange.secret.hex().encode() + b"\n")
    (folder / CONFIG_NAME).write_text(TEMPLATE, encoding="utf-8")
    session_of(ctx).console.result(
        {
            "config": str(folder / CONFIG_NAME),
            "signer": LocalSigner(signer.secret).address,
            "encryption_key": "0x" + exchange.public.hex(),
        }
    )


@app.command()
def check(ctx: typer.Context, config: ConfigOption = Path(CONFIG_NAME)) -> None:
    """Look at secrets, chain, seat, balance, disk and IPFS; fails when one of them is not right."""
    findings = list(operator.check(load(config)))
    session_of(ctx).console.result([{"check": f.name, "good": f.good, "found": f.found} for f in findings])
    if not all(f.good for f in findings):
        raise typer.Exit(1)


@app.command()
def run(
    config: ConfigOption = Path(CONFIG_NAME),
    once: Annotated[bool, typer.Option("--once", help="One step, then end (no page is served).")] = False,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Judge cases until stopped. Dry run unless the settings say `dry_run = false`."""
    settings = load(config)
    configure_logs(log_level)
    made = operator.build(settings)
    if once:
        made.judge.step()
        made.store.close()
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    made.run(stop, settings.judge.poll_s)


@app.command()
def status(ctx: typer.Context, config: ConfigOption = Path(CONFIG_NAME)) -> None:
    """Cases and how far each is. Shows no statistic of any case."""
    settings: JudgeConfig = load(config)
    store = CaseStore(settings.operator.folder)
    rows = [
        {
            "case": row.case_id,
            "step": row.step,
            "evidence": row.evidence,
            "base": row.base,
            "signatures": len(store.attestations(row.case_id)),
            "not_counted": len(store.lies(row.case_id)),
            "posted": row.posted_decision,
            "service": service.step if (service := store.service(row.case_id)) else None,
            "note": row.note,
        }
        for row in store.cases(tuple(CaseStep))
    ]
    store.close()
    session_of(ctx).console.result(rows, title="cases")
