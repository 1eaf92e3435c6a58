"""`zhiyi order`: request, sign, check, buy, reveal, decrypt, complain, settle, refund."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from zhiyi import delivery, eip712
from zhiyi.cli import words
from zhiyi.cli.keys import open_key
from zhiyi.cli.offers import described_terms
from zhiyi.cli.session import Session, read_document, read_secret, session_of, write_document
from zhiyi.delivery import WrongChunk
from zhiyi.errors import BadInput, BadSignature
from zhiyi.keys import KeyKind
from zhiyi.types import (
    NATIVE,
    Bytes32,
    CopyRequest,
    Delivery,
    LicenseTerms,
    Order,
    RangeVerdict,
    Signature,
    SignedOffer,
    SignedOrder,
    SignedRangeVerdict,
    SignedRequest,
    Value,
    model_of_license,
    to_bytes,
    to_hex,
)

app = typer.Typer(
    name="order", help="Ask for a copy, sign, check, buy, decrypt, complain.", no_args_is_help=True
)

# What a sealed package may have more than its bundle: leaves, manifest, envelope and archive headers.
PACKAGE_SPARE: Final = 64 << 20
LEAF_BYTES: Final = 32
PERMIT_SECONDS: Final = 3600  # a permit signed now can be used no longer


class Prepared(Value):
    """What a fingerprinter gives seller and buyer: the delivery half of the order and where the sealed copy is."""

    delivery: Delivery
    request_hash: Bytes32
    package_cid: str


class OrderFile(Value):
    """An order on its way: signatures are added one after the other."""

    order: Order
    seller_signature: Signature | None = None
    fingerprinter_signature: Signature | None = None
    package_cid: str = ""

    def signed(self) -> SignedOrder:
        """With both signatures. Raises BadSignature while one is missing."""
        if self.seller_signature is None or self.fingerprinter_signature is None:
            missing = "seller" if self.seller_signature is None else "fingerprinter"
            raise BadSignature(f"the {missing}'s signature is missing: let them run `zhiyi order sign`")
        return SignedOrder(
            order=self.order,
            seller_signature=self.seller_signature,
            fingerprinter_signature=self.fingerprinter_signature,
        )


LicenseArgument = Annotated[str, typer.Argument(help="License id of the order, or MODEL/FINGERPRINT.")]
FileArgument = Annotated[Path, typer.Argument(help="Order file.")]
PackageOption = Annotated[Path, typer.Option(help="Folder of the copy's package.")]
OfferOption = Annotated[Path, typer.Option(help="The signed offer that you asked under.")]
RequestOption = Annotated[Path, typer.Option(help="Your signed request.")]


@app.command()
def request(
    ctx: typer.Context,
    offer: Annotated[Path, typer.Argument(help="Signed offer.")],
    delivery_key: Annotated[
        Path, typer.Option(help="Your delivery key file (`zhiyi keys new delivery FILE`).")
    ],
    out: Annotated[Path, typer.Option(help="File to write the signed request to.")],
    by: Annotated[str, typer.Option(help="Until when the copy is wanted: unix seconds, or +2d.")] = "+2d",
    fee: Annotated[str, typer.Option(help="Prepare fee, at most 5 % of the price.")] = "0",
    fingerprinter: Annotated[
        str | None, typer.Option(help="Whom the fee is for; default: the one that the offer names.")
    ] = None,
    approve: words.ApproveOption = False,
) -> None:
    """Buyer: sign a request for a copy under an offer; pays the prepare fee into the vault where there is one."""
    session = session_of(ctx)
    client = session.client
    signed_offer = read_document(offer, SignedOffer)
    client.offers.verify(signed_offer, buyer=client.account)
    found = signed_offer.offer
    wanted = CopyRequest(
        model_id=found.model_id,
        offer_hash=client.offers.hash(found),
        buyer=client.account,
        delivery_key=open_key(session, delivery_key, KeyKind.DELIVERY).public,
        nonce=secrets.randbits(63),
        prepare_fee=words.amount(fee),
        by=words.moment(by, client.chain.now()),
    )
    signed = client.orders.sign_request(wanted)
    write_document(out, signed)
    digest = client.orders.request_hash(wanted)
    answer: dict[str, Any] = {
        "file": str(out),
        "request_hash": digest,
        "by": wanted.by,
        "fee": wanted.prepare_fee,
    }
    if not wanted.prepare_fee:
        session.console.result(answer)
        return
    payee = fingerprinter or found.fingerprinter
    if payee is None:
        raise BadInput("the offer names no fingerprinter: say with --fingerprinter whom the fee is for")
    session.approve(approve, wanted.prepare_fee, found.token)
    paid = client.orders.pay_prepare_fee(wanted, payee, token=found.token, dry_run=session.dry_run)
    session.show(paid, **answer)


@app.command()
def draft(
    ctx: typer.Context,
    offer: Annotated[Path, typer.Argument(help="Signed offer.")],
    request: Annotated[Path, typer.Argument(help="Signed copy request.")],
    prepared: Annotated[Path, typer.Argument(help="What the fingerprinter prepared (JSON).")],
    out: Annotated[Path, typer.Option(help="Order file to write.")],
    open_by: Annotated[
        str | None,
        typer.Option(
            help="Until when the buyer may pay: unix seconds, or +2d; default: +2d, or the request's end if sooner."
        ),
    ] = None,
) -> None:
    """Seller: make the order of one buyer and one copy, and sign it."""
    session = session_of(ctx)
    client = session.client
    signed_offer, signed_request = read_document(offer, SignedOffer), read_document(request, SignedRequest)
    made = read_document(prepared, Prepared)
    client.offers.verify(
        signed_offer, buyer=signed_request.request.buyer, fingerprinter=made.delivery.fingerprinter
    )
    client.orders.verify_request(signed_request)
    if made.request_hash != client.orders.request_hash(signed_request.request):
        raise BadInput(f"{prepared} was prepared for another request")
    last, now = signed_request.request.by, client.chain.now()
    until = words.moment(open_by, now) if open_by else min(words.moment("+2d", now), last)
    if until > last:
        raise BadInput(
            f"the order would be open until {until}, the buyer wants the copy by {last}: shorten it"
        )
    order = client.orders.draft(signed_offer.offer, signed_request.request, made.delivery, open_by=until)
    signature = client.orders.sign(order)
    write_document(out, OrderFile(order=order, seller_signature=signature, package_cid=made.package_cid))
    session.console.result({"file": str(out), "order_hash": order.hash(), **described(order)})


@app.command()
def sign(ctx: typer.Context, file: FileArgument) -> None:
    """Seller or fingerprinter: add one's signature to an order file."""
    session = session_of(ctx)
    client = session.client
    found = read_document(file, OrderFile)
    signature = client.orders.sign(found.order)
    role = "seller" if client.account == found.order.sale.seller else "fingerprinter"
    signed = found.model_copy(update={f"{role}_signature": signature})
    write_document(file, signed)
    session.console.result(
        {"file": str(file), "signed_as": role, "order_hash": found.order.hash(), **described(found.order)}
    )


@app.command()
def show(ctx: typer.Context, file: FileArgument) -> None:
    """What an order file means, and whose signatures it holds."""
    session = session_of(ctx)
    found = read_document(file, OrderFile)
    signatures = {
        "seller": found.seller_signature is not None,
        "fingerprinter": found.fingerprinter_signature is not None,
    }
    session.console.result(
        {
            "order_hash": found.order.hash(),
            "signatures": signatures,
            "package_cid": found.package_cid,
            **described(found.order),
        }
    )


@app.command()
def fetch(
    ctx: typer.Context,
    file: FileArgument,
    delivery_key: Annotated[Path, typer.Option(help="Your delivery key file.")],
    package: Annotated[Path, typer.Option(help="New folder for the package.")],
) -> None:
    """Buyer: fetch the sealed copy from IPFS and open its outer envelope with the delivery key."""
    session = session_of(ctx)
    found = read_document(file, OrderFile)
    fetch_package(session, found, delivery_key, package)
    session.console.result({"package": str(package), "package_cid": found.package_cid})


@app.command()
def check(
    ctx: typer.Context, file: FileArgument, offer: OfferOption, request: RequestOption, package: PackageOption
) -> None:
    """Buyer: all that can be checked before paying: signatures, the offer's terms, the model's state, every leaf."""
    session = session_of(ctx)
    found = read_document(file, OrderFile)
    check_before_payment(
        session, found, read_document(offer, SignedOffer), read_document(request, SignedRequest), package
    )
    session.console.result({"ok": True, "order_hash": found.order.hash(), **described(found.order)})


@app.command()
def buy(
    ctx: typer.Context,
    file: FileArgument,
    offer: OfferOption,
    request: RequestOption,
    package: PackageOption,
    approve: words.ApproveOption = False,
    permit: Annotated[
        bool,
        typer.Option(
            "--permit", help="Sign an EIP-2612 permit, where the token knows one: no approval needed."
        ),
    ] = False,
) -> None:
    """Buyer: check everything again, then pay price and bond into the vault."""
    if approve and permit:
        raise BadInput("--approve or --permit, not both")
    session = session_of(ctx)
    found = read_document(file, OrderFile)
    check_before_payment(
        session, found, read_document(offer, SignedOffer), read_document(request, SignedRequest), package
    )
    signed, client = found.signed(), session.client
    if client.account != found.order.delivery.buyer:
        raise BadInput(f"the order is for {found.order.delivery.buyer}, this account is {client.account}")
    sale, signatures = found.order.sale, (signed.seller_signature, signed.fingerprinter_signature)
    amount = client.orders.quote(found.order)
    if permit:
        if sale.token == NATIVE:
            raise BadInput("the price is in the chain's coin: it needs no permit")
        granted = client.vault.sign_permit(
            amount, token=sale.token, deadline=client.chain.now() + PERMIT_SECONDS
        )
        result = client.orders.open_with_permit(found.order, *signatures, granted, dry_run=session.dry_run)
    else:
        session.approve(approve, amount, sale.token)
        result = client.orders.open(found.order, *signatures, dry_run=session.dry_run)
    session.show(result, license_id=found.order.delivery.license_id)


@app.command()
def state(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """Where an order stands, and until when what can be done."""
    session = session_of(ctx)
    number = words.license_id(license_id)
    status = session.reader.orders.state(number)
    answer: dict[str, Any] = {"license_id": number, "state": status.state.name.lower(), "since": status.since}
    if status.state.value:
        order = session.reader.orders.get(number)
        half = order.delivery
        deadlines = {
            "OPEN": {"reveal_until": status.since + half.reveal_window + half.grace},
            "REVEALED": {"complain_until": status.since + half.complaint_window},
        }
        answer |= {**deadlines.get(status.state.name, {}), **described(order)}
    session.console.result(answer)


@app.command()
def reveal(
    ctx: typer.Context,
    license_id: LicenseArgument,
    order_key_file: Annotated[Path, typer.Option(help="File (mode 0600) with the order's key in hex.")],
) -> None:
    """Fingerprinter, or anyone who knows it: publish the order's key. `zhiyi fingerprint` does this by itself."""
    session = session_of(ctx)
    key = to_bytes(read_secret(order_key_file), 32)
    order = session.client.orders.get(words.license_id(license_id))
    commit = delivery.key_commit(key, order.delivery.license_id, order.delivery.buyer)
    if commit != order.delivery.key_commit:
        raise BadInput(f"{order_key_file} does not hold the key of license {order.delivery.license_id}")
    session.show(session.client.orders.reveal(order, key, dry_run=session.dry_run))


@app.command()
def decrypt(
    ctx: typer.Context,
    license_id: LicenseArgument,
    package: PackageOption,
    out: Annotated[Path, typer.Option(help="New folder for the model's files.")],
) -> None:
    """Buyer: decrypt the copy with the revealed key. Exit code 9: a chunk is wrong, complain before the window ends."""
    session = session_of(ctx)
    number = words.license_id(license_id)
    order, key = session.reader.orders.get(number), session.reader.orders.key(number)
    try:
        with session.console.progress("decrypting") as progress:
            result = delivery.decrypt(package, order.delivery, key, out, progress)
    except WrongChunk as wrong:
        session.console.note(
            f"run `zhiyi order complain {number} --package {package}` before the window ends"
        )
        raise wrong
    session.console.result(
        {
            "license_id": number,
            "folder": str(result.folder),
            "files": result.files,
            "bytes": result.total_bytes,
        }
    )


@app.command()
def complain(
    ctx: typer.Context,
    license_id: LicenseArgument,
    package: PackageOption,
    index: Annotated[
        int | None, typer.Option(help="Chunk to complain about; default: the first that is wrong.")
    ] = None,
) -> None:
    """Buyer: prove on chain that a chunk decrypts to something else than promised; refund and deposit follow."""
    session = session_of(ctx)
    number = words.license_id(license_id)
    client = session.client
    order, key = client.orders.get(number), client.orders.key(number)
    if index is None:
        index = _first_wrong(session, package, order, key)
    with session.console.progress("building the proof") as progress:
        proof = delivery.complaint(package, order.delivery, index, progress)
    session.show(client.orders.complain(order, key, proof, dry_run=session.dry_run), chunk=index)


@app.command("range-claim")
def range_claim(
    ctx: typer.Context,
    license_id: LicenseArgument,
    evidence: Annotated[
        str, typer.Option(help="CID of the chunks in question, sealed to the committee.")
    ] = "",
    approve: words.ApproveOption = False,
) -> None:
    """Buyer: claim that the declared range breaks its registered bound; the bond is a tenth of the price."""
    session = session_of(ctx)
    orders = session.client.orders
    order = orders.get(words.license_id(license_id))
    session.approve(approve, orders.range_bond(order), order.sale.token)
    result = orders.range_claim(order, evidence_cid=evidence, dry_run=session.dry_run)
    session.show(result, bond=orders.range_bond(order))


@app.command("answer-range")
def answer_range(
    ctx: typer.Context,
    license_id: LicenseArgument,
    uphold: Annotated[bool, typer.Option("--uphold/--reject", help="Whether the claim is right.")],
    out: Annotated[Path, typer.Option(help="File to write the signed answer to.")],
    valid: Annotated[str, typer.Option(help="Until when it may be sent: unix seconds, or +2d.")] = "+2d",
) -> None:
    """Operator of the committee that was active at the claim: sign an answer."""
    session = session_of(ctx)
    client = session.client
    order = client.orders.get(words.license_id(license_id))
    verdict = RangeVerdict(
        license_id=order.delivery.license_id,
        order_hash=order.hash(),
        upheld=uphold,
        epoch=client.orders.range_epoch(order.delivery.license_id),
        deadline=words.moment(valid, client.chain.now()),
    )
    write_document(out, client.orders.sign_range(verdict))
    session.console.result({"file": str(out), **verdict.model_dump()})


@app.command("resolve-range")
def resolve_range(
    ctx: typer.Context,
    answers: Annotated[list[Path], typer.Argument(help="Answers that operators signed, all the same.")],
) -> None:
    """Anyone: send the committee's answer to a range claim."""
    session = session_of(ctx)
    client = session.client
    signed = [read_document(path, SignedRangeVerdict) for path in answers]
    verdict = signed[0].verdict
    if any(one.verdict != verdict for one in signed):
        raise BadInput("the answers differ: operators sign one and the same")
    digest = client.orders.range_data(verdict).digest()
    votes = {eip712.recover(digest, one.signature): one.signature for one in signed}
    order, epoch = client.orders.get(verdict.license_id), client.oracles.epoch(verdict.epoch)
    session.show(client.orders.resolve_range(order, verdict, epoch, votes, dry_run=session.dry_run))


@app.command()
def accept(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """Buyer: take the copy as it is; ends the complaint window and issues the license."""
    session = session_of(ctx)
    order = session.client.orders.get(words.license_id(license_id))
    session.show(session.client.orders.accept(order, dry_run=session.dry_run))


@app.command()
def settle(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """Anyone, after the complaint window: issue the license and credit the royalties."""
    session = session_of(ctx)
    order = session.client.orders.get(words.license_id(license_id))
    session.show(session.client.orders.settle(order, dry_run=session.dry_run))


@app.command()
def refund(ctx: typer.Context, license_id: LicenseArgument) -> None:
    """Anyone, after the time to reveal is over: the buyer's money back, with a tenth of the deposit."""
    session = session_of(ctx)
    order = session.client.orders.get(words.license_id(license_id))
    session.show(session.client.orders.refund(order, dry_run=session.dry_run))


@app.command()
def cancel(ctx: typer.Context, file: FileArgument) -> None:
    """Seller: make an order void that is signed and not opened."""
    session = session_of(ctx)
    session.show(session.client.orders.cancel(read_document(file, OrderFile).order, dry_run=session.dry_run))


@app.command("cancel-all")
def cancel_all(ctx: typer.Context) -> None:
    """Seller: make all orders void that are signed and not opened."""
    session = session_of(ctx)
    session.show(session.client.orders.cancel_all(dry_run=session.dry_run))


@app.command("reclaim-fee")
def reclaim_fee(
    ctx: typer.Context, request: Annotated[Path, typer.Argument(help="Signed copy request.")]
) -> None:
    """Buyer, after the request's time is over: take the prepare fee back."""
    session = session_of(ctx)
    digest = session.client.orders.request_hash(read_document(request, SignedRequest).request)
    session.show(session.client.orders.reclaim_prepare_fee(digest, dry_run=session.dry_run))


@app.command("list")
def list_orders(
    ctx: typer.Context, buyer: Annotated[str | None, typer.Option(help="Only orders of this account.")] = None
) -> None:
    """Opened orders, oldest first."""
    session = session_of(ctx)
    rows = []
    for order in session.reader.orders.list(buyer):
        number = order.delivery.license_id
        status = session.reader.orders.state(number)
        rows.append(
            {
                "license_id": number,
                "model_id": model_of_license(number),
                "buyer": order.delivery.buyer,
                "price": order.sale.price,
                "state": status.state.name.lower(),
                "since": status.since,
            }
        )
    session.console.result(rows, title="orders")


def fetch_package(session: Session, found: OrderFile, delivery_key: Path, package: Path) -> None:
    """The sealed copy from IPFS, opened into a new folder. Raises BadInput, NotFound, IntegrityError, Timeout."""
    from zhiyi.delivery import ecies

    if not found.package_cid:
        raise BadInput("the order file names no package: ask the fingerprinter for its CID")
    if package.exists():
        raise BadInput(f"{package} exists already: name a new folder")
    secret = open_key(session, delivery_key, KeyKind.DELIVERY).secret
    half = found.order.delivery
    limit = half.total_bytes + half.chunks * LEAF_BYTES + PACKAGE_SPARE
    package.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.parent, prefix=".fetch-") as scratch:
        sealed = Path(scratch) / "package.sealed"
        with session.console.progress("fetching") as progress:
            session.ipfs.download(
                found.package_cid, sealed, limit, progress=lambda done, _: progress(done, limit)
            )
        ecies.open_folder(sealed, secret, package)


def check_before_payment(
    session: Session, found: OrderFile, offer: SignedOffer, request: SignedRequest, package: Path
) -> None:
    """All of `Deliveries.verify`, with a bar. Raises as it does."""
    with session.console.progress("checking every leaf") as progress:
        session.reader.delivery.verify(
            found.signed(), offer.offer, request.request, package, progress=progress
        )


def described(order: Order) -> dict[str, Any]:
    """An order in words."""
    sale, half = order.sale, order.delivery
    return {
        "license_id": half.license_id,
        "model_id": model_of_license(half.license_id),
        "seller": sale.seller,
        "basis": sale.basis.name.lower(),
        "source": sale.source or None,
        "buyer": half.buyer,
        "fingerprinter": half.fingerprinter,
        "token": "native coin" if sale.token == NATIVE else sale.token,
        "price": sale.price,
        "bond": sale.bond,
        "deposit": half.deposit,
        "terms": described_terms(LicenseTerms.unpack(sale.terms)),
        "terms_hash": sale.terms_hash,
        "open_by": sale.open_by,
        "reveal_window": half.reveal_window,
        "complaint_window": half.complaint_window,
        "bond_tail": sale.bond_tail,
    }


def _first_wrong(session: Session, package: Path, order: Order, key: bytes) -> int:
    """The first chunk that decrypts to something else than promised. Raises BadInput when there is none."""
    with tempfile.TemporaryDirectory(dir=package.parent, prefix=".complain-") as scratch:
        try:
            with session.console.progress("looking for a wrong chunk") as progress:
                delivery.decrypt(package, order.delivery, key, Path(scratch) / "copy", progress)
        except WrongChunk as wrong:
            return wrong.index
    raise BadInput(
        f"every chunk of {package} decrypts to what was promised (key {to_hex(key)[:10]}…): nothing to complain"
    )
