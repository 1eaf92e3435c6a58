"""What a fingerprinter refuses, remembers and reveals - on the real chain."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chain_stage import DAY, PRICE, Sold, World, address_of, tune
from judge_stage import make_file
from tiny_model import make_registered

from zhiyi import delivery
from zhiyi.errors import BadInput, BadSignature, ConfigError, IntegrityError, NotFound
from zhiyi.types import LicenseTerms, OrderState, SignedOffer, SignedRequest
from zhiyi_oracle.errors import Refused
from zhiyi_oracle.fingerprinter.copies import CopyRow, CopySecrets, CopyStep, CopyStore
from zhiyi_oracle.fingerprinter.service import MAX_UNSOLD_PER_BUYER, Fingerprinter, Rules
from zhiyi_watermark import weights

_nonces = iter(range(100, 10_000))
ROOT = b"\x11" * 32


@pytest.fixture
def maker(world: World, sold: Sold) -> Fingerprinter:
    """The service on its own folder, started anew."""
    service = world.make_fingerprinter()
    for row in service._store.copies(CopyStep.DRAWN, CopyStep.PREPARED, CopyStep.SIGNED):
        service._store.advance(row.license_id, CopyStep(row.step), CopyStep.ENDED)  # earlier tests' copies
    return service


def ask(world: World, buyer: str = "buyer1", **changes: object) -> tuple[SignedOffer, SignedRequest]:
    offer = world.offer()
    return offer, world.request(buyer, offer, next(_nonces), **changes)


# -- prepare


def test_asked_again_the_same_copy_is_given_out(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world)
    first = maker.prepare(offer, request)
    assert maker.prepare(offer, request) == first
    assert world.make_fingerprinter().prepare(offer, request) == first


def test_every_copy_has_its_own_number_key_and_shares(world: World, maker: Fingerprinter) -> None:
    made = [maker.prepare(*ask(world)) for _ in range(2)]
    for name in ("license_id", "key_commit", "mark_commit", "copy_root", "delivery_root"):
        assert len({getattr(m.delivery, name) for m in made}) == 2, name
    for one in made:
        assert one.delivery.deposit == PRICE
        assert world.as_("stranger").orders.state(one.delivery.license_id).state is OrderState.NONE


def test_a_nonce_serves_one_request(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world)
    maker.prepare(offer, request)
    replayed = world.request("buyer1", offer, request.request.nonce, by=request.request.by + 1)
    with pytest.raises(Refused, match="new nonce"):
        maker.prepare(offer, replayed)


@pytest.mark.parametrize("who", ["offer", "request"])
def test_a_changed_or_foreign_signature_is_refused(world: World, maker: Fingerprinter, who: str) -> None:
    offer, request = ask(world)
    if who == "offer":
        changed = offer.offer.model_copy(update={"price": offer.offer.price - 1})
        offer = offer.model_copy(update={"offer": changed})
    else:
        changed = request.request.model_copy(update={"delivery_key": b"\1" * 32})
        request = request.model_copy(update={"request": changed})
    with pytest.raises(BadSignature):
        maker.prepare(offer, request)


def test_a_request_for_another_offer_is_refused(world: World, maker: Fingerprinter) -> None:
    _, request = ask(world)
    with pytest.raises(Refused, match="another offer"):
        maker.prepare(world.offer(nonce=2), request)


def test_an_offer_that_names_another_fingerprinter_is_refused(world: World, maker: Fingerprinter) -> None:
    offer = world.offer(fingerprinter=address_of("stranger"))
    with pytest.raises(Refused, match="ask there"):
        maker.prepare(offer, world.request("buyer1", offer, next(_nonces)))


def test_what_is_over_is_refused(world: World, maker: Fingerprinter) -> None:
    offer = world.offer()
    late = world.request("buyer1", offer, next(_nonces), by=world.node.now() - 1)
    with pytest.raises(BadInput, match="wanted by"):
        maker.prepare(offer, late)
    over = world.offer(valid_until=world.node.now() - 1)
    with pytest.raises(BadInput, match="valid until"):
        maker.prepare(over, world.request("buyer1", over, next(_nonces)))


def test_a_buyer_who_is_not_verified_as_the_terms_ask_is_refused_before_any_work(
    world: World, maker: Fingerprinter
) -> None:
    offer = world.offer(terms=LicenseTerms(min_tier=1))
    request = world.request("buyer1", offer, next(_nonces))
    with pytest.raises(BadInput, match="identity tier 1"):
        maker.prepare(offer, request)


def test_no_copy_is_made_for_a_sale_that_we_are_a_party_to(world: World, maker: Fingerprinter) -> None:
    offer = world.offer(fingerprinter=None)
    with pytest.raises(BadInput, match="buys, so it cannot make the copy"):
        maker.prepare(offer, world.request("fingerprinter", offer, next(_nonces)))


def test_a_fee_is_believed_only_when_it_lies_in_the_vault(world: World, maker: Fingerprinter) -> None:
    maker._rules = Rules(min_fee=PRICE // 100)
    offer, free = ask(world)
    with pytest.raises(Refused, match="we ask"):
        maker.prepare(offer, free)
    offer, request = ask(world, prepare_fee=PRICE // 50)
    with pytest.raises(Refused, match="does not lie in the vault"):
        maker.prepare(offer, request)
    buyer = world.as_("buyer1")
    buyer.orders.pay_prepare_fee(request.request, address_of("fingerprinter"))
    with pytest.raises(Refused, match="does not lie in the vault"):  # paid, but not final
        maker.prepare(offer, request)
    world.node.mine()
    assert maker.prepare(offer, request).delivery.buyer == buyer.account
    offer, short = ask(world, prepare_fee=PRICE // 50, by=world.node.now() + DAY)
    buyer.orders.pay_prepare_fee(short.request, address_of("fingerprinter"))
    world.node.mine()
    with pytest.raises(Refused, match="a day after it was paid"):
        maker.prepare(offer, short)
    offer, astray = ask(world, prepare_fee=PRICE // 50)
    buyer.orders.pay_prepare_fee(astray.request, address_of("stranger"))
    world.node.mine()
    with pytest.raises(Refused, match="reclaim it"):
        maker.prepare(offer, astray)
    offer, dear = ask(world, prepare_fee=PRICE // 19)
    with pytest.raises(Refused, match="twentieth"):
        maker.prepare(offer, dear)


def test_a_delivery_key_that_cannot_be_sealed_to_is_refused_before_any_work(
    world: World, maker: Fingerprinter
) -> None:
    for key in (bytes(32), (1).to_bytes(32, "little")):
        offer, request = ask(world, delivery_key=key)
        with pytest.raises(Refused, match="delivery key"):
            maker.prepare(offer, request)
        assert maker._store.copy_of_request(maker._market.request_hash(request.request)) is None


def test_a_deposit_that_the_stake_cannot_hold_is_refused(world: World, maker: Fingerprinter) -> None:
    offer = world.offer(price=1000 * 10**18)
    with pytest.raises(Refused, match="free stake"):
        maker.prepare(offer, world.request("buyer1", offer, next(_nonces)))


def test_a_buyer_cannot_pile_up_copies(
    world: World, maker: Fingerprinter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CopyStore, "unsold", lambda self, buyer: MAX_UNSOLD_PER_BUYER)
    with pytest.raises(Refused, match="not bought"):
        maker.prepare(*ask(world))


class Crash(BaseException):
    """The power goes."""


@pytest.mark.parametrize(
    "place",
    [
        "zhiyi_oracle.fingerprinter.service.make_copy",
        "zhiyi.delivery.ecies.seal_folder",
        "zhiyi.ipfs.Ipfs.add_file",
        "zhiyi_oracle.fingerprinter.copies.CopyStore.advance",
    ],
)
def test_a_preparation_that_was_cut_goes_on_with_the_same_secrets(
    world: World, maker: Fingerprinter, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    offer, request = ask(world)

    def crash(*args: object, **kwargs: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(place, crash)
        with pytest.raises(Crash):
            maker.prepare(offer, request)
    digest = world.as_("buyer1").orders.request_hash(request.request)
    cut = maker._store.copy_of_request(digest)
    assert cut is not None
    assert cut.step == CopyStep.DRAWN
    again = world.make_fingerprinter()
    made = again.prepare(offer, request)
    secrets = again._store.secrets_of(cut)
    assert made.delivery.license_id == int(cut.license_id)
    assert made.delivery.key_commit == delivery.key_commit(
        secrets.key, int(cut.license_id), address_of("buyer1")
    )
    assert made.delivery.mark_commit == delivery.mark_commit(int(cut.license_id), secrets.seeds)


# -- order and reveal


def test_one_copy_gets_one_order(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world)
    made = maker.prepare(offer, request)
    order = world.order(offer, request, made)
    signature = maker.sign_order(order)
    assert maker.sign_order(order) == signature
    second = order.model_copy(
        update={"sale": order.sale.model_copy(update={"open_by": order.sale.open_by + 1})}
    )
    with pytest.raises(Refused, match="an order already"):
        maker.sign_order(second)


@pytest.mark.parametrize(
    "field", ["price", "bond", "seller", "bond_tail", "terms", "deposit", "reveal_window"]
)
def test_an_order_that_says_something_else_is_not_signed(
    world: World, maker: Fingerprinter, field: str
) -> None:
    offer, request = ask(world)
    order = world.order(offer, request, maker.prepare(offer, request))
    half = "sale" if field in type(order.sale).model_fields else "delivery"
    value = address_of("stranger") if field == "seller" else getattr(getattr(order, half), field) + 1
    changed = getattr(order, half).model_copy(update={field: value})
    with pytest.raises(Refused):
        maker.sign_order(order.model_copy(update={half: changed}))


def test_an_order_open_longer_than_the_request_is_not_signed(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world)
    order = world.order(offer, request, maker.prepare(offer, request))
    late = order.sale.model_copy(update={"open_by": request.request.by + 1})
    with pytest.raises(Refused, match="asked for it by"):
        maker.sign_order(order.model_copy(update={"sale": late}))
    last = order.sale.model_copy(update={"open_by": request.request.by})
    assert maker.sign_order(order.model_copy(update={"sale": last}))


def test_an_unknown_copy_gets_no_signature(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world)
    order = world.order(offer, request, maker.prepare(offer, request))
    stranger = order.delivery.model_copy(update={"license_id": order.delivery.license_id ^ 1})
    with pytest.raises(NotFound):
        maker.sign_order(order.model_copy(update={"delivery": stranger}))


def test_a_key_is_revealed_only_for_a_final_opening(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world)
    made = maker.prepare(offer, request)
    order = world.order(offer, request, made)
    maker.step()
    world.open_order(maker, order, "buyer1")
    maker.step()
    client = world.as_("stranger")
    assert client.orders.state(made.delivery.license_id).state is OrderState.OPEN
    world.node.mine()
    maker.step()
    assert client.orders.state(made.delivery.license_id).state is OrderState.REVEALED
    sent = client.chain.rpc("eth_getTransactionCount", address_of("fingerprinter"), "latest")
    maker.step()
    assert client.chain.rpc("eth_getTransactionCount", address_of("fingerprinter"), "latest") == sent


def test_no_key_is_revealed_after_the_window(world: World, maker: Fingerprinter) -> None:
    """In the grace period a refund could overtake it: the key would be out and nothing paid."""
    offer, request = ask(world)
    made = maker.prepare(offer, request)
    world.open_order(maker, world.order(offer, request, made), "buyer1")
    world.node.travel(made.delivery.reveal_window + 1)
    maker.step()
    license_id = made.delivery.license_id
    assert world.as_("stranger").orders.state(license_id).state is OrderState.OPEN
    world.node.travel(made.delivery.grace)
    world.as_("stranger").orders.refund(world.as_("stranger").orders.get(license_id))
    world.node.mine()
    maker.step()
    row = maker._store.copy(license_id)
    assert row is not None
    assert row.step == CopyStep.ENDED


def test_a_crash_after_sending_the_key_is_harmless(
    world: World, maker: Fingerprinter, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer, request = ask(world)
    made = maker.prepare(offer, request)
    world.open_order(maker, world.order(offer, request, made), "buyer1")
    world.node.mine()
    whole = CopyStore.advance

    def crash(self: CopyStore, license_id: str, before: CopyStep, after: CopyStep, **values: object) -> bool:
        if after is CopyStep.REVEALED:
            raise Crash
        return whole(self, license_id, before, after, **values)

    with monkeypatch.context() as patch:
        patch.setattr(CopyStore, "advance", crash)
        with pytest.raises(Crash):
            maker.step()
    again = world.make_fingerprinter()
    again.step()
    row = again._store.copy(made.delivery.license_id)
    assert row is not None
    assert row.step == CopyStep.REVEALED


# -- shares


def test_each_case_gets_the_next_unused_share(
    world: World, sold: Sold, maker: Fingerprinter, tmp_path: Path
) -> None:
    client, indices = world.as_("stranger"), []
    for seed in (21, 22):
        case_id = world.report(sold.first, tune(sold.first_copy, tmp_path / f"leak{seed}", seed=seed))
        before = client.cases.shares_opened(sold.first)
        maker.step()
        share = client.cases.get(case_id).share
        assert share is not None
        assert not before >> share.index & 1
        seeds = maker._store.secrets_of(_row(maker, sold.first)).seeds
        assert share.seed == seeds[share.index]
        indices.append(share.index)
    assert len(set(indices)) == 2
    world.node.mine()
    opened = client.cases.shares_opened(sold.first)
    world.make_fingerprinter().step()
    assert client.cases.shares_opened(sold.first) == opened


def _row(maker: Fingerprinter, license_id: int) -> CopyRow:
    row = maker._store.copy(license_id)
    assert row is not None
    return row


def test_a_share_whose_seed_never_left_serves_another_case(tmp_path: Path) -> None:
    store = CopyStore.create(tmp_path / "home")
    store.put_model(1, ROOT, folder=tmp_path, leaves=tmp_path, declared_range="{}", kit=b"{}")
    row = store.draw(
        model_id=1,
        weights_root=ROOT,
        request_hash=b"\1" * 32,
        offer="{}",
        request="{}",
        buyer="0x" + "11" * 20,
        request_nonce=1,
        onward=False,
        taken=lambda _: False,
    )
    license_id = int(row.license_id)

    def spend(case: str, opened: int = 0) -> int | None:
        share = store.spend_share(case_id=case, license_id=license_id, file="{}", opened=opened)
        return share.share_index if share else None

    assert spend("a") == 0
    assert spend("a") == 0
    assert spend("b", opened=0b10) == 2
    store.return_share("a")
    assert spend("c") == 0
    store.set_share("c", attempted=True)
    store.return_share("c")
    assert spend("d") == 1
    assert spend("e", opened=0xFFFF) is None
    assert [row.case_id for row in store.waiting()] == ["e"]
    assert spend("e", opened=0xFFFF) is None
    store.return_share("d")
    assert spend("e", opened=0xFFFD) == 1
    assert not store.waiting()


def test_a_case_that_found_no_share_gets_one_that_comes_back(
    world: World, sold: Sold, maker: Fingerprinter, tmp_path: Path
) -> None:
    """All shares are set aside for cases that close without one."""
    store, client = maker._store, world.as_("stranger")
    maker.step()
    held = [(1).to_bytes(31, "big") + bytes([i]) for i in range(16)]
    for case in held:
        store.spend_share(
            case_id="0x" + case.hex(),
            license_id=sold.first,
            file=make_file(license_id=sold.first).model_dump_json(),
            opened=client.cases.shares_opened(sold.first),
        )
    case_id = world.report(sold.first, tune(sold.first_copy, tmp_path / "leak", seed=23))
    text = "0x" + case_id.hex()
    for case in held:
        store.stop_waiting("0x" + case.hex())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maker, "_open_share", lambda share: None)  # the other cases go on holding theirs
        maker.step()
        assert [row.case_id for row in store.waiting()] == [text]
        assert client.cases.get(case_id).share is None
    maker.step()  # those cases no longer ask: their shares come back
    share = client.cases.get(case_id).share
    assert share is not None
    assert not store.waiting()


def test_a_case_that_closed_waits_no_more(world: World, sold: Sold, maker: Fingerprinter) -> None:
    maker._store.spend_share(
        case_id="0x" + "77" * 32,
        license_id=sold.first,
        file=make_file(license_id=sold.first).model_dump_json(),
        opened=0xFFFF,
    )
    maker.step()
    assert not maker._store.waiting()


# -- models and secrets


def test_files_kit_and_range_must_be_the_registered_ones(
    world: World, maker: Fingerprinter, tmp_path: Path
) -> None:
    registered = world.registered
    other = make_registered(tmp_path / "other", seed=12)
    kit, declared = registered.kit.to_json(), registered.declared
    with pytest.raises(IntegrityError, match="root"):
        maker.add_model(world.model_id, other.folder, kit, declared)
    wrong_key = weights.TraceKit.derive(b"\7" * 32, registered.spec)
    with pytest.raises(IntegrityError, match="trace kit"):
        maker.add_model(world.model_id, registered.folder, wrong_key.to_json(), declared)
    narrower = delivery.DeclaredRange(declared.intervals, declared.max_change_ppm - 1)
    with pytest.raises(IntegrityError, match="range"):
        maker.add_model(world.model_id, registered.folder, kit, narrower)
    with pytest.raises(BadInput, match="kit"):
        maker.add_model(world.model_id, registered.folder, "{}", declared)


def test_the_database_alone_shows_no_secret(world: World, maker: Fingerprinter, sold: Sold) -> None:
    secrets = maker._store.secrets_of(_row(maker, sold.first))
    home = world.folder / "fingerprinter"
    stored = b"".join(path.read_bytes() for path in home.iterdir() if path.is_file())
    for secret in (secrets.key, *secrets.seeds, world.registered.kit.trace_key):
        assert secret not in stored
        assert secret.hex().encode() not in stored
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in home.iterdir() if path.suffix in (".key", ".sqlite")
    )


def test_a_lost_or_open_key_file_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    CopyStore.create(home).close()
    (home / "store.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        CopyStore(home)
    (home / "store.key").unlink()
    with pytest.raises(ConfigError, match="backup"):
        CopyStore.create(home)
    (home / "store.key").touch(mode=0o600)
    (home / "store.key").write_text("00" * 32)
    CopyStore(home).close()
    home.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        CopyStore(home)


def test_secrets_of_another_row_do_not_open(tmp_path: Path) -> None:
    store = CopyStore.create(tmp_path / "home")
    store.put_model(1, ROOT, folder=tmp_path, leaves=tmp_path, declared_range="{}", kit=b"kit")
    assert store.kit(store.model(ROOT)) == b"kit"
    row = store.model(ROOT)
    row.weights_root = "0x" + "22" * 32
    with pytest.raises(IntegrityError, match="do not open"):
        store.kit(row)
    with pytest.raises(IntegrityError, match="bytes of secrets"):
        CopySecrets.unpack(b"short")


def test_a_drawn_number_is_never_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CopyStore.create(tmp_path / "home")
    store.put_model(1, ROOT, folder=tmp_path, leaves=tmp_path, declared_range="{}", kit=b"{}")
    numbers = iter([5, 5, 6, 7, 8, 9])
    monkeypatch.setattr("zhiyi_oracle.fingerprinter.copies.secrets.randbelow", lambda _: next(numbers))

    def draw(nonce: int, taken: Callable[[int], bool] = lambda _: False, onward: bool = False) -> int:
        row = store.draw(
            model_id=1,
            weights_root=ROOT,
            request_hash=nonce.to_bytes(32, "big"),
            offer="{}",
            request="{}",
            buyer="0x" + "11" * 20,
            request_nonce=nonce,
            onward=onward,
            taken=taken,
        )
        return int(row.license_id) & 0xFFFFFFF

    assert draw(1) == 6
    assert draw(2) == 7
    assert draw(3, taken=lambda license_id: license_id & 0xFFFFFFF == 8) == 9
    assert draw(4, onward=True) == (1 << 27) + 10


def test_time_is_the_chains(world: World, maker: Fingerprinter) -> None:
    """Eight days were skipped on the chain; the machine's clock knows nothing of it."""
    assert world.node.now() - time.time() > 7 * DAY
    assert maker._market.now() == world.node.now()


# -- orders that are let pass


def test_the_fee_of_an_order_let_pass_is_earned(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world, prepare_fee=PRICE // 50)
    buyer = world.as_("buyer1")
    me = address_of("fingerprinter")
    buyer.orders.pay_prepare_fee(request.request, me)
    world.node.mine()
    made = maker.prepare(offer, request)
    order = world.order(offer, request, made)
    with pytest.raises(BadSignature):
        maker.sign_order(order, b"\1" * 65)
    maker.sign_order(order, world.as_("creator").orders.sign(order))
    before = buyer.vault.balance(me)
    maker.step()
    assert _row(maker, made.delivery.license_id).step == CopyStep.SIGNED
    world.node.travel(DAY + 1)
    world.node.mine()
    maker.step()
    assert _row(maker, made.delivery.license_id).step == CopyStep.ENDED
    earned = buyer.vault.balance(me) - before
    assert 0 < earned <= PRICE // 50


def test_copies_nobody_bought_end_with_their_time(world: World, maker: Fingerprinter) -> None:
    offer, request = ask(world, by=world.node.now() + DAY)
    made = maker.prepare(offer, request)
    order = world.order(offer, request, made)
    order = order.model_copy(
        update={"sale": order.sale.model_copy(update={"open_by": request.request.by})},
    )
    assert maker._store.unsold(address_of("buyer1")) == 1
    world.node.travel(DAY + 1)
    world.node.mine()
    maker.step()
    assert maker._store.unsold(address_of("buyer1")) == 0
    with pytest.raises(Refused, match="only a prepared copy"):
        maker.sign_order(order)


def test_a_share_is_not_sent_when_its_half_of_the_window_is_over(
    world: World, sold: Sold, maker: Fingerprinter, tmp_path: Path
) -> None:
    client = world.as_("stranger")
    case_id = world.report(sold.second, tune(sold.second_copy, tmp_path / "leak", seed=23))
    before = client.cases.shares_opened(sold.second)
    world.node.travel(4 * DAY)
    maker.step()
    assert client.cases.get(case_id).share is None
    assert client.cases.shares_opened(sold.second) == before
    assert maker._store.shares() == []  # the share it was given may serve another case
