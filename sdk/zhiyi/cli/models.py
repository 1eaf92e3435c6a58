"""`zhiyi model`: register, review, show, regulate."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from pydantic import BaseModel, ConfigDict, Field

from zhiyi import delivery, metadata
from zhiyi.cli import words
from zhiyi.cli.console import jsonable
from zhiyi.cli.session import Session, read_bytes, read_document, session_of, write_bytes, write_document
from zhiyi.delivery import Bundle, Tree
from zhiyi.errors import BadInput, ConfigError, IntegrityError, NotFound, Timeout
from zhiyi.types import (
    NATIVE,
    Bytes32,
    Model,
    ModelRecord,
    ParentConsent,
    ParentProof,
    Preferences,
    Review,
    ReviewItem,
    SignedConsent,
    SignedModelSale,
    Use,
    keccak,
    to_address,
    to_bytes,
)

app = typer.Typer(name="model", help="Register, review and show models.", no_args_is_help=True)

MAX_TEXT_BYTES: Final = 1 << 18  # of a license text
DEFAULT_CHANGE_PPM: Final = 50_000  # a copy may change a declared tensor by 5 % of its norm


MetadataOption = Annotated[
    bool, typer.Option("--metadata/--no-metadata", help="Read the metadata from IPFS.")
]


class MarkPlan(BaseModel):
    """What the marks of a model's copies will need, as the fingerprinter's tools write it; other keys are theirs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tensors: tuple[str, ...] = Field(min_length=1)
    detector_hash: Bytes32
    trace_key_commit: Bytes32
    max_change_ppm: int = DEFAULT_CHANGE_PPM


class Outcome(StrEnum):
    """A registrar's decision."""

    APPROVE = "approve"
    REJECT = "reject"


class Published(NamedTuple):
    """Weights made ready for the chain: their record, and what the metadata says of them."""

    record: ModelRecord
    model: dict[str, Any]
    watermark: dict[str, Any]


@app.command()
def register(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="Folder with the model's files (safetensors, config, tokenizer).")
    ],
    name: Annotated[str, typer.Option(help="Name of the work.")],
    out: Annotated[Path, typer.Option(help="New folder for leaves, range, metadata and record.")],
    plan: Annotated[
        Path, typer.Option(help="Mark plan (JSON): tensors, detector_hash, trace_key_commit, max_change_ppm.")
    ],
    description: Annotated[str, typer.Option(help="What the model does.")] = "",
    modality: Annotated[str, typer.Option(help="text or image.")] = "text",
    prefer: Annotated[
        list[str] | None, typer.Option(help="ERC-7517 preference CATEGORY=allowed|constrained|not_allowed.")
    ] = None,
    license_text: Annotated[
        Path | None, typer.Option(help="License text that `constrained` refers to; stored on IPFS.")
    ] = None,
    license_name: Annotated[str, typer.Option(help="Name of that license.")] = "License of this model",
    collaborator: Annotated[list[str] | None, typer.Option(help="Share in the income: ADDRESS=10%.")] = None,
    parent_license: Annotated[
        list[str] | None, typer.Option(help="Parent by your license of it: LICENSE=5% of the income.")
    ] = None,
    parent_consent: Annotated[
        list[Path] | None, typer.Option(help="Parent by its owner's consent (`zhiyi model consent`).")
    ] = None,
    compliance: Annotated[
        list[str] | None, typer.Option(help="KEY=TEXT, as genai_filing_no=… or algorithm_filing_no=….")
    ] = None,
    chunk_size: Annotated[int, typer.Option(help="Bytes a chunk.")] = delivery.CHUNK_SIZE,
    commit: Annotated[
        bool, typer.Option("--commit/--no-commit", help="Also leave an ERC-7053 commit.")
    ] = True,
) -> None:
    """Register a model: compute root, leaves and range, put the public files on IPFS, mint the model token.

    The weights themselves go nowhere. Safe to repeat until the token is minted.
    """
    session = session_of(ctx)
    client = session.client
    preferences = words.preferences(prefer or [])
    shares, filings = words.splits(collaborator or []), words.pairs(compliance or [])
    parents = [_parent_by_license(session, pair) for pair in parent_license or []]
    parents += [
        client.models.parent_by_consent(read_document(file, SignedConsent)) for file in parent_consent or []
    ]
    found = _publish(session, folder, read_document(plan, MarkPlan), out, chunk_size)
    document = metadata.build(
        name=name,
        description=description,
        preferences=preferences,
        license=_license(session, license_name, license_text),
        model={**found.model, "modality": modality},
        watermark=found.watermark,
        compliance=filings,
    )
    metadata_cid = _add_metadata(session, document, out)
    result = client.models.register(
        found.record, metadata_cid, preferences, shares, parents, dry_run=session.dry_run
    )
    committed = None
    if commit and result.status == "mined":
        asset = json.dumps({"assetTreeCid": metadata_cid, "modelId": result.model_id}, separators=(",", ":"))
        committed = client.evidence.commit(metadata_cid, asset).tx_hash
    model_id = result.model_id if result.status != "unsigned" else None
    session.show(
        result,
        model_id=model_id,
        weights_root=found.record.weights_root,
        chunks=found.record.chunks,
        commit_tx=committed,
        leaves_cid=found.model["leaves_cid"],
        manifest_cid=found.model["manifest_cid"],
        metadata_cid=metadata_cid,
    )


@app.command("add-version")
def add_version(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the new version's files.")],
    plan: Annotated[Path, typer.Option(help="Mark plan (JSON) of the new version.")],
    out: Annotated[Path, typer.Option(help="New folder for leaves, range, metadata and record.")],
    chunk_size: Annotated[int, typer.Option(help="Bytes a chunk.")] = delivery.CHUNK_SIZE,
) -> None:
    """Owner: new weights under the same model. No order opens until a registrar has reviewed them; licenses go on."""
    session = session_of(ctx)
    client = session.client
    model = client.models.get(model_id)
    before = metadata.parse(session.ipfs.cat(model.metadata_cid, metadata.MAX_BYTES))
    found = _publish(session, folder, read_document(plan, MarkPlan), out, chunk_size)
    changed = {"model": {**before.model, **found.model}, "watermark": {**before.watermark, **found.watermark}}
    metadata_cid = _add_metadata(session, metadata.plain({**before.raw, **changed}), out)
    result = client.models.add_version(model_id, found.record, metadata_cid, dry_run=session.dry_run)
    session.show(result, model_id=model_id, weights_root=found.record.weights_root, metadata_cid=metadata_cid)


@app.command("rotate-key")
def rotate_key(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    commit: Annotated[str, typer.Argument(help="Commitment of the new trace kit, 0x-hex.")],
) -> None:
    """Owner: commit to a new trace key; it counts from now on. Older copies stay traceable with the older kit."""
    session = session_of(ctx)
    client = session.client
    session.show(client.models.rotate_trace_key(model_id, parsed_hash(commit), dry_run=session.dry_run))


@app.command()
def consent(
    ctx: typer.Context,
    parent_id: Annotated[int, typer.Argument(help="Your model, the parent.")],
    root: Annotated[str, typer.Option(help="Weights root of the derivative, 0x-hex.")],
    registrant: Annotated[str, typer.Option(help="Account that will register the derivative.")],
    share: Annotated[str, typer.Option(help="Your lineage's share of its income, as 5%.")],
    out: Annotated[Path, typer.Option(help="File to write the consent to.")],
    valid: Annotated[
        str, typer.Option(help="Until when it may be registered: unix seconds, or +30d.")
    ] = "+30d",
) -> None:
    """Owner: let somebody register a derivative of your model, without a license of it."""
    session = session_of(ctx)
    found = ParentConsent(
        parent_id=parent_id,
        weights_root=parsed_hash(root),
        registrant=to_address(registrant),
        bps=words.share(share),
        deadline=words.moment(valid, session.client.chain.now()),
    )
    write_document(out, session.client.models.sign_consent(found))
    session.console.result({"file": str(out), **found.model_dump()})


@app.command()
def queue(ctx: typer.Context, fetch: MetadataOption = True) -> None:
    """Registrar: what waits for review, longest first."""
    session = session_of(ctx)
    rows = [_review_row(session, item, fetch) for item in session.reader.models.queue()]
    session.console.result(rows, title="waiting for review")


@app.command()
def reviews(
    ctx: typer.Context,
    model_id: Annotated[int | None, typer.Argument(help="Model id; default: all models.")] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="Text that you were given as a reason: which review has its hash on chain."),
    ] = None,
    fetch: MetadataOption = True,
) -> None:
    """All that was submitted for review, with who decided what and when, oldest first."""
    session = session_of(ctx)
    rows = []
    for item in session.reader.models.reviews(model_id):
        told = {} if reason is None else {"reason_fits": item.has_reason(reason)}
        rows.append({**_review_row(session, item, fetch), **told})
    session.console.result(rows, title="reviews")


@app.command()
def history(ctx: typer.Context, model_id: Annotated[int, typer.Argument(help="Model id.")]) -> None:
    """Versions and their reviews, trace keys with the times for which they count, stated preferences, oldest first."""
    session = session_of(ctx)
    models = session.reader.models
    model = models.get(model_id)
    session.console.result(
        {
            "model_id": model_id,
            "versions": [jsonable(version.weights_root) for version in model.versions],
            "reviews": [_review_row(session, item, fetch=False) for item in models.reviews(model_id)],
            "trace_keys": models.trace_keys(model_id),
            "preferences": [
                {**dict(change), "preferences": _stated(change.preferences)}
                for change in models.preference_history(model_id)
            ],
        }
    )


@app.command()
def check(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    folder: Annotated[Path, typer.Argument(help="Folder with the files to compare.")],
) -> None:
    """Compare files with the registered root."""
    session = session_of(ctx)
    model = session.reader.models.get(model_id)
    bundle = Bundle.scan(folder, model.record.chunk_size)
    with session.console.progress("hashing"):
        root = Tree(bundle.leaves(folder)).root
    if root != model.record.weights_root:
        raise IntegrityError(
            f"{folder} has the root 0x{root.hex()}, model {model_id} is registered with"
            f" 0x{model.record.weights_root.hex()}"
        )
    session.console.result({"model_id": model_id, "same": True, "weights_root": root})


@app.command()
def show(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    fetch: MetadataOption = True,
) -> None:
    """A model as it stands: record, owner, review, preferences, income split, metadata."""
    session = session_of(ctx)
    model = session.reader.models.get(model_id)
    session.console.result(
        {
            **_summary(model),
            "record": model.record,
            "versions": len(model.versions),
            "trace_key_commit": jsonable(model.trace_key_commit),
            "royalties": model.royalties,
            **_described(session, model, fetch),
        }
    )


@app.command("list")
def list_models(
    ctx: typer.Context, owner: Annotated[str | None, typer.Option(help="Only models of this account.")] = None
) -> None:
    """All models, oldest first."""
    session = session_of(ctx)
    session.console.result([_summary(model) for model in session.reader.models.list(owner)], title="models")


@app.command()
def review(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    outcome: Annotated[Outcome, typer.Argument(help="The decision.")],
    reason: Annotated[str, typer.Option(help="Reason; the chain keeps its hash.")] = "",
) -> None:
    """Registrar: approve or reject a registration."""
    session = session_of(ctx)
    if outcome is Outcome.REJECT and not reason:
        raise BadInput("a rejection needs a reason: give --reason")
    decided = Review.APPROVED if outcome is Outcome.APPROVE else Review.REJECTED
    session.show(session.client.models.review(model_id, decided, reason, dry_run=session.dry_run))


@app.command()
def prefer(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    pairs: Annotated[
        list[str], typer.Argument(help="CATEGORY=allowed|constrained|not_allowed, all that are stated.")
    ],
) -> None:
    """Owner: state new preferences; the metadata on IPFS is rewritten to say the same."""
    session = session_of(ctx)
    model = session.client.models.get(model_id)
    preferences = words.preferences(pairs)
    document = metadata.parse(session.ipfs.cat(model.metadata_cid, metadata.MAX_BYTES))
    if document.license is None and any(value == 2 for value in preferences.model_dump().values()):
        raise BadInput("a constrained use needs a license reference in the metadata; this model has none")
    changed = {**document.raw, "dataMiningPreference": metadata.preferences_to_json(preferences)}
    cid = session.ipfs.add_bytes(metadata.encode(changed))
    result = session.client.models.set_preferences(model_id, preferences, cid, dry_run=session.dry_run)
    session.show(result, metadata_cid=cid)


@app.command("set-contract-uri")
def set_contract_uri(
    ctx: typer.Context, uri: Annotated[str, typer.Argument(help="Where the collection's metadata lie.")]
) -> None:
    """Steward: display metadata of the collection (ERC-7572); announced first: `zhiyi access schedule`."""
    session = session_of(ctx)
    session.show(session.client.models.set_contract_uri(uri, dry_run=session.dry_run))


@app.command()
def transfer(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    to: Annotated[str, typer.Argument(help="New owner.")],
) -> None:
    """Owner: give the model token away, with the income not pulled yet. Signed orders become void."""
    session = session_of(ctx)
    session.show(session.client.models.transfer(model_id, to, dry_run=session.dry_run))


@app.command()
def sell(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    price: Annotated[str, typer.Option(help="Price, as 1.5eth, or in the token's smallest unit.")],
    contract: Annotated[Path, typer.Option(help="Text of the contract; its hash becomes part of the sale.")],
    out: Annotated[Path, typer.Option(help="File to write the signed sale to.")],
    to: Annotated[str, typer.Option(help="The only buyer; default: anyone.")] = NATIVE,
    valid: Annotated[str, typer.Option(help="Until when it can be bought: unix seconds, or +7d.")] = "+7d",
    token: Annotated[str, typer.Option(help="ERC-20 address; default: the chain's coin.")] = NATIVE,
) -> None:
    """Owner: sign a sale of the model itself (copyright transfer) and let the escrow move its token."""
    session = session_of(ctx)
    client = session.client
    sale = client.sales.model_sale(
        model_id,
        price=words.amount(price),
        terms_hash=terms_hash(read_bytes(contract, MAX_TEXT_BYTES)),
        open_by=words.moment(valid, client.chain.now()),
        buyer=to_address(to),
        token=to_address(token),
    )
    write_document(out, client.sales.sign_model_sale(sale))
    answer = {"file": str(out), "hash": sale.hash(), "open_by": sale.open_by}
    if client.sales.is_approved(model_id):
        session.console.result(answer)
        return
    session.show(client.sales.approve_model(model_id, dry_run=session.dry_run), **answer)


@app.command()
def buy(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Signed sale of the model.")],
    approve: words.ApproveOption = False,
) -> None:
    """Buyer: pay for the model itself. Its licenses stay, income from now on is yours, older orders become void."""
    session = session_of(ctx)
    signed = read_document(file, SignedModelSale)
    client, sale = session.client, signed.sale
    session.approve(approve, sale.price, sale.token)
    result = client.sales.buy_model(signed, dry_run=session.dry_run)
    session.show(result, model_id=sale.model_id, price=sale.price)


@app.command("cancel-sale")
def cancel_sale(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(help="Signed sale of the model.")]
) -> None:
    """Owner: make a signed sale of the model void."""
    session = session_of(ctx)
    sale = read_document(file, SignedModelSale).sale
    session.show(session.client.orders.cancel(sale, dry_run=session.dry_run))


@app.command()
def freeze(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    until: Annotated[str, typer.Option(help="Unix seconds, or +7d.")],
    reason: Annotated[str, typer.Option(help="Reason; the chain keeps its hash.")],
) -> None:
    """Regulator: stop new orders and the owner's pull, at most 30 days."""
    session = session_of(ctx)
    end = words.moment(until, session.client.chain.now())
    session.show(session.client.regulator.freeze(model_id, end, reason, dry_run=session.dry_run))


@app.command()
def lift(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    reason: Annotated[str, typer.Option(help="Reason; the chain keeps its hash.")],
) -> None:
    """Regulator: end a freeze early."""
    session = session_of(ctx)
    session.show(session.client.regulator.lift(model_id, reason, dry_run=session.dry_run))


@app.command()
def delist(
    ctx: typer.Context,
    model_id: Annotated[int, typer.Argument(help="Model id.")],
    reason: Annotated[str, typer.Option(help="Reason; the chain keeps its hash.")],
    days: Annotated[
        int, typer.Option(min=0, max=365, help="For so many days; 0 lists the model again.")
    ] = 365,
) -> None:
    """Regulator: no new orders while delisted; licenses go on."""
    session = session_of(ctx)
    until_day = session.reader.chain.now() // 86_400 + days if days else 0
    session.show(session.client.regulator.delist(model_id, until_day, reason, dry_run=session.dry_run))


def _summary(model: Model) -> dict[str, Any]:
    status = model.status
    return {
        "model_id": model.model_id,
        "owner": model.owner,
        "review": status.review.name.lower(),
        "delisted": status.delisted,
        "delisted_until": status.delisted_until or None,
        "frozen_until": status.frozen_until or None,
        "preferences": _stated(model.preferences),
        "weights_root": jsonable(model.record.weights_root),
        "metadata_cid": model.metadata_cid,
    }


def _review_row(session: Session, item: ReviewItem, fetch: bool) -> dict[str, Any]:
    row = {**item.model_dump(), "outcome": item.outcome.name.lower()}
    return {"name": _name(session, item.metadata_cid), **row} if fetch else row


def _name(session: Session, cid: str) -> str | None:
    """What the metadata calls the work, None where it cannot be had."""
    try:
        return metadata.parse(session.ipfs.cat(cid, metadata.MAX_BYTES)).name
    except (ConfigError, NotFound, Timeout, IntegrityError, BadInput) as error:
        session.console.note(f"no metadata: {error}")
        return None


def _stated(preferences: Preferences) -> dict[str, str]:
    return {use.name.lower(): preferences.of(use).name.lower() for use in Use if preferences.of(use)}


def _publish(session: Session, folder: Path, marks: MarkPlan, out: Path, chunk_size: int) -> Published:
    """Root, leaves and range of a folder; the public files go to `out` and to IPFS, the weights go nowhere."""
    bundle = Bundle.scan(folder, chunk_size)
    with session.console.progress("hashing") as progress:
        progress(0, bundle.total_bytes)
        tree = Tree(bundle.leaves(folder))
        progress(bundle.total_bytes, bundle.total_bytes)
    declared = delivery.range_for_tensors(
        folder, bundle, _matching(folder, bundle, marks.tensors), max_change_ppm=marks.max_change_ppm
    )
    record = ModelRecord(
        weights_root=tree.root,
        total_bytes=bundle.total_bytes,
        chunks=bundle.chunks,
        chunk_size=bundle.chunk_size,
        detector_hash=marks.detector_hash,
        trace_key_commit=marks.trace_key_commit,
        range_hash=declared.hash(),
    )
    out.mkdir(parents=True, exist_ok=True)
    tree.save(out / "leaves.bin")
    write_bytes(out / "manifest.json", bundle.manifest)
    write_bytes(out / "range.json", json.dumps(declared.to_json()).encode())
    write_bytes(out / "record.json", (record.model_dump_json(indent=2) + "\n").encode())
    described = {
        "weights_root": tree.root,
        "leaves_cid": session.ipfs.add_file(out / "leaves.bin"),
        "manifest_cid": session.ipfs.add_file(out / "manifest.json"),
        "declared_range": declared.to_json(),
        "format": "safetensors",
    }
    watermark = {"detector_hash": marks.detector_hash, "key_commitment": marks.trace_key_commit}
    return Published(record, described, watermark)


def _add_metadata(session: Session, document: dict[str, Any], out: Path) -> str:
    encoded = metadata.encode(document)
    write_bytes(out / "metadata.json", encoded)
    return session.ipfs.add_bytes(encoded)


def _parent_by_license(session: Session, pair: str) -> ParentProof:
    number, _, part = pair.partition("=")
    return session.client.models.parent_by_license(words.license_id(number), words.share(part))


def _described(session: Session, model: Model, fetch: bool) -> dict[str, Any]:
    """The metadata, or why it cannot be shown: the chain's facts are shown either way."""
    if not fetch:
        return {}
    try:
        document = metadata.parse(session.ipfs.cat(model.metadata_cid, metadata.MAX_BYTES))
        agrees = document.preferences.pack() == model.status.preferences
    except (ConfigError, NotFound, Timeout, IntegrityError, BadInput) as error:
        session.console.note(f"no metadata: {error}")
        return {"metadata_problem": str(error)}
    return {"metadata": document.raw, "metadata_agrees_with_chain": agrees}


def _license(session: Session, name: str, text: Path | None) -> metadata.License | None:
    if text is None:
        return None
    data = read_bytes(text, MAX_TEXT_BYTES)
    cid = session.ipfs.add_bytes(data)
    return metadata.License(name=name, document=f"ipfs://{cid}", terms_hash=terms_hash(data))


def terms_hash(text: bytes) -> bytes:
    """`Sale.termsHash`: keccak256 of the license text as it is stored."""
    return keccak(text)


def _matching(folder: Path, bundle: Bundle, patterns: Sequence[str]) -> list[str]:
    """Tensor names of the bundle that fit the names or shell patterns. Raises BadInput for one that fits nothing."""
    if not any(set(pattern) & set("*?[") for pattern in patterns):
        return list(patterns)
    names = [
        name for path, _ in bundle.files if path.endswith(".safetensors") for name in _tensors(folder / path)
    ]
    found: list[str] = []
    for pattern in patterns:
        fits = fnmatch.filter(names, pattern)
        if not fits:
            raise BadInput(f"no tensor fits {pattern!r}")
        found += [name for name in fits if name not in found]
    return found


def _tensors(path: Path) -> list[str]:
    """Tensor names in a safetensors header. Raises BadInput."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > 100_000_000:
            raise BadInput(f"{path} announces a header of {length} bytes: it is no safetensors file")
        try:
            header = json.loads(file.read(length))
            return [name for name in header if name != "__metadata__"]
        except (ValueError, RecursionError, TypeError) as exc:
            raise BadInput(f"{path} has a malformed safetensors header") from exc


def parsed_hash(text: str) -> bytes:
    """32 bytes of 0x-hex. Raises BadInput."""
    return to_bytes(text, 32)
