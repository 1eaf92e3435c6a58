"""`zhiyi fingerprint`: plan a model's marks, make copies, sign orders, serve the chain."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Annotated, Final

import typer

from zhiyi.cli.keys import open_key
from zhiyi.cli.orders import OrderFile
from zhiyi.cli.session import Session, read_bytes, read_document, session_of, write_bytes, write_document
from zhiyi.delivery import DeclaredRange, ecies
from zhiyi.errors import BadInput, ZhiyiError
from zhiyi.keys import KeyKind
from zhiyi.types import SignedOffer, SignedRequest, to_hex
from zhiyi_oracle.fingerprinter.chain_market import ChainMarket
from zhiyi_oracle.fingerprinter.copies import CopyStore
from zhiyi_oracle.fingerprinter.service import Fingerprinter, Rules
from zhiyi_oracle.logs import configure_logs, get_logger
from zhiyi_oracle.secret_files import write_private
from zhiyi_watermark import weights
from zhiyi_watermark.errors import WatermarkError

log = get_logger(__name__)
app = typer.Typer(name="fingerprint", help="Plan marks and run a fingerprinter.", no_args_is_help=True)

MAX_KIT_BYTES: Final = 1 << 20
DEFAULT_CHANGE_PPM: Final = 50_000
HomeOption = Annotated[
    Path,
    typer.Option("--home", envvar="ZHIYI_FINGERPRINTER", help="Folder of secrets and database, mode 0700."),
]
HOME: Final = Path("fingerprinter")


@app.command()
def plan(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with the model's safetensors.")],
    model_key: Annotated[Path, typer.Option(help="Key file of the model (`zhiyi keys new trace FILE`).")],
    out: Annotated[Path, typer.Option(help="Mark plan to write, for `zhiyi model register`.")],
    kit: Annotated[
        Path, typer.Option(help="Trace kit to write: a secret of creator, fingerprinter and operators.")
    ],
    epsilon: Annotated[float, typer.Option(help="Strength: step as a fraction of a tensor's spread.")] = 0.02,
    max_change_ppm: Annotated[
        int, typer.Option(help="Largest change of a tensor that is registered, millionths of its norm.")
    ] = DEFAULT_CHANGE_PPM,
) -> None:
    """Creator: choose the tensors that carry the marks, and derive the trace kit from the model's key."""
    session = session_of(ctx)
    try:
        spec = weights.plan(folder, epsilon=epsilon)
        made = weights.TraceKit.derive(open_key(session, model_key, KeyKind.TRACE).secret, spec)
    except WatermarkError as exc:
        raise BadInput(f"no marks can be planned for {folder}: {exc}") from exc
    document = {
        "tensors": [tensor.name for tensor in spec.tensors],
        "detector_hash": to_hex(spec.spec_hash()),
        "trace_key_commit": to_hex(made.commitment()),
        "max_change_ppm": max_change_ppm,
    }
    write_private(kit, made.to_json().encode())
    write_bytes(out, (json.dumps(document, indent=2) + "\n").encode())
    session.console.result({"plan": str(out), "kit": str(kit), **document})


@app.command()
def init(ctx: typer.Context, home: HomeOption = HOME) -> None:
    """Make the folder with its key file. Back the key file up: without it no key can be revealed."""
    CopyStore.create(home).close()
    session_of(ctx).console.result({"home": str(home), "back_up": str(home / "store.key")})


@app.command("add-model")
def add_model(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the registered files.")],
    kit: Annotated[Path, typer.Option(help="Trace kit of the model.")],
    declared_range: Annotated[
        Path, typer.Option("--range", help="Declared range (JSON) of the registration.")
    ],
    home: HomeOption = HOME,
) -> None:
    """Take on a model, after checking files, kit and range against the chain."""
    session = session_of(ctx)
    try:
        declared = DeclaredRange.from_json(json.loads(read_bytes(declared_range, MAX_KIT_BYTES)))
    except ValueError as exc:
        raise BadInput(f"{declared_range} is no JSON: {exc}") from exc
    service, store = _service(session, home)
    service.add_model(model_id, folder, read_bytes(kit, MAX_KIT_BYTES).decode(errors="replace"), declared)
    store.close()
    session.console.result({"model_id": model_id, "folder": str(folder.absolute())})


@app.command()
def prepare(
    ctx: typer.Context,
    offer: Annotated[Path, typer.Argument(help="Signed offer.")],
    request: Annotated[Path, typer.Argument(help="Signed copy request.")],
    out: Annotated[Path, typer.Option(help="File for seller and buyer: delivery half and package CID.")],
    min_fee: Annotated[int, typer.Option(help="Smallest prepare fee, smallest unit of the token.")] = 0,
    home: HomeOption = HOME,
) -> None:
    """Make the copy of one request; asked again, the same copy is given out."""
    session = session_of(ctx)
    service, store = _service(session, home, min_fee)
    with session.console.progress("encrypting") as progress:
        made = service.prepare(
            read_document(offer, SignedOffer), read_document(request, SignedRequest), progress=progress
        )
    store.close()
    write_document(out, made)
    session.console.result(
        {"file": str(out), "license_id": made.delivery.license_id, "package_cid": made.package_cid}
    )


@app.command()
def sign(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Order file; our signature is added to it.")],
    home: HomeOption = HOME,
) -> None:
    """Sign the one order of a prepared copy, after comparing it with offer, request and copy."""
    session = session_of(ctx)
    service, store = _service(session, home)
    found = read_document(file, OrderFile)
    signature = service.sign_order(found.order, found.seller_signature)
    store.close()
    write_document(file, found.model_copy(update={"fingerprinter_signature": signature}))
    session.console.result({"file": str(file), "order_hash": found.order.hash()})


@app.command()
def run(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="One step, then end.")] = False,
    poll_s: Annotated[float, typer.Option(help="Seconds between steps.")] = 4.0,
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
    home: HomeOption = HOME,
) -> None:
    """Reveal keys of paid orders and open shares that cases ask for, until stopped."""
    configure_logs(log_level)
    service, store = _service(session_of(ctx), home)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        while not stop.is_set():
            try:
                service.step()
            except ZhiyiError as exc:
                if once:
                    raise
                log.warning("step not completed, will try again", reason=str(exc))
            if once:
                return
            stop.wait(poll_s)
    finally:
        store.close()


@app.command()
def status(ctx: typer.Context, home: HomeOption = HOME) -> None:
    """Copies and shares. Shows no secret."""
    store = CopyStore(home)
    copies = [
        {
            "license_id": int(row.license_id),
            "buyer": row.buyer,
            "step": row.step,
            "package_cid": row.package_cid,
        }
        for row in store.copies()
    ]
    shares = [
        {"case": row.case_id, "license_id": int(row.license_id), "share": row.share_index, "tx": row.tx}
        for ended in (False, True)
        for row in store.shares(ended=ended)
    ]
    store.close()
    session_of(ctx).console.result({"copies": copies, "shares": shares})


def _service(session: Session, home: Path, min_fee: int = 0) -> tuple[Fingerprinter, CopyStore]:
    client = session.client
    store = CopyStore(home)
    service = Fingerprinter(
        store=store,
        market=ChainMarket(client),
        files=session.ipfs,
        sealer=ecies,
        work=home / "work",
        rules=Rules(min_fee=min_fee),
        start_block=client.deployment.block,
    )
    return service, store
