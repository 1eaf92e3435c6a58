"""openCase.

Branches: kind none; names a license (not of the model, not settled, no bond, too young, counted, no share left);
names none (license given, no such model); bond too small; no committee; same case again; balance too small; opened.
"""

from __future__ import annotations

import ape
import pytest
from courtroom import DAY, ETHER, ZERO, Courtroom, Decision, Kind, State, refused


def test_opening_locks_the_report_bond_and_holds_the_license_bond(
    room: Courtroom, license_id: int, books: None
) -> None:
    before = room.money()
    receipt_file = room.open(license_id, value=3 * ETHER)
    assert room.court.caseIdOf(receipt_file.as_tuple()) == receipt_file.id
    state, decision, until, share = room.court.caseState(receipt_file.id)
    assert (state, decision, until, share) == (State.OPEN, 0, 0, 255)
    assert room.court.caseDetail(receipt_file.id) == (ZERO, 0, 0, True)
    assert room.vault.caseBondOf(receipt_file.id) == ETHER
    assert room.free(room.reporter) == 2 * ETHER
    assert room.bond(license_id).openCases == 1
    after = room.money()
    assert {k: after[k] - before[k] for k in after if after[k] != before[k]} == {"reporter": 2 * ETHER}


def test_opening_emits_the_whole_case_file(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    event = next(iter(room.court.CaseOpened.range(ape.chain.blocks.height, ape.chain.blocks.height + 1)))
    assert bytes(event.caseId) == file.id
    assert event.licenseId == license_id
    assert event.reporter == room.reporter
    assert room.court.caseIdOf(tuple(event.file)) == file.id


def test_bond_comes_from_the_free_balance_when_no_value_is_sent(
    room: Courtroom, license_id: int, books: None
) -> None:
    room.vault.depositNative(room.reporter, sender=room.reporter, value=ETHER)
    room.open(license_id, value=0)
    assert room.free(room.reporter) == 0


def test_a_reporter_without_balance_is_refused(room: Courtroom, license_id: int) -> None:
    with refused(room.vault, "BalanceTooSmall", given=ETHER - 1, needed=ETHER):
        room.open(license_id, value=ETHER - 1)


def test_a_bond_under_the_minimum_is_refused(room: Courtroom, license_id: int) -> None:
    least = room.params.min_report_bond
    with refused(room.court, "ReportBondTooSmall", given=least - 1, needed=least):
        room.open(license_id, bond=least - 1)
    room.open(license_id, bond=least)


def test_a_case_of_no_kind_is_refused(room: Courtroom, license_id: int) -> None:
    with refused(room.court, "WrongKind", given=0):
        room.open(license_id, Kind.NONE)


def test_spending_the_shares_of_a_license_gets_dear(room: Courtroom, license_id: int) -> None:
    first, spent = room.params.min_report_bond, 0
    for index in range(16):
        least = first << min(8, index)
        assert room.least(license_id) == least
        assert room.least(license_id, Kind.TERMS) == first
        with refused(room.court, "ReportBondTooSmall", given=least - 1, needed=least):
            room.open(license_id, bond=least - 1)
        file = room.open(license_id, bond=least)
        room.open_share(file, index)
        room.post(file, Decision.INCONCLUSIVE)
        room.past(file)
        room.call("finalize", file)
        spent += least
    assert spent == 2_303 * first


def test_the_bond_doubles_with_every_case_open_on_the_license(room: Courtroom, license_id: int) -> None:
    first = room.params.min_report_bond
    opened = [room.open(license_id, Kind.TERMS, bond=first)]
    for kind in (Kind.LEAK, Kind.TERMS):
        least = first << len(opened)
        assert room.least(license_id, kind) == least
        with refused(room.court, "ReportBondTooSmall", given=least - 1, needed=least):
            room.open(license_id, kind, bond=least - 1)
        opened.append(room.open(license_id, kind, bond=least))
    for kind in (Kind.LEAK, Kind.TERMS, Kind.DISCLOSURE):
        assert room.least(license_id, kind) == 8 * first
    room.open(license_id, Kind.DISCLOSURE, bond=8 * first)  # holds nothing: prices nobody out
    assert room.least(license_id) == 8 * first
    room.open(0, Kind.OWNERSHIP, bond=first)  # names no license
    room.open(room.place_license(4), bond=first)  # eight days later
    assert room.court.minReportBond() == first
    room.call("lapse", opened[0])
    assert room.least(license_id) == 4 * first


def test_a_report_takes_a_hundredth_of_the_bond_it_holds(room: Courtroom, license_id: int) -> None:
    """Or little money would keep a large bond from its owner, case after case."""
    first = room.params.min_report_bond
    rich = room.place_license(5, bond=50 * ETHER + 1)
    least = ETHER // 2 + 1  # rounded up
    for kind in (Kind.LEAK, Kind.TERMS):
        assert room.least(rich, kind) == least
        with refused(room.court, "ReportBondTooSmall", given=least - 1, needed=least):
            room.open(rich, kind, bond=least - 1)
    assert room.least(rich, Kind.DISCLOSURE) == first  # holds nothing
    room.open(rich, Kind.DISCLOSURE, bond=first)
    room.open(rich, bond=least)
    assert room.least(rich) == 2 * least
    assert room.least(rich, Kind.DISCLOSURE) == 2 * first
    room.vault.putInToken(rich, 1, sender=room.poster)  # of which nobody knows the price
    assert room.least(rich) == 2 * first


@pytest.mark.parametrize("kind", [Kind.LEAK, Kind.TERMS, Kind.DISCLOSURE])
def test_a_license_that_was_never_settled_is_refused(room: Courtroom, license_id: int, kind: Kind) -> None:
    with refused(room.court, "LicenseNotAccusable", licenseId=license_id + 1):
        room.open(license_id + 1, kind)


def test_a_license_of_another_model_is_refused(room: Courtroom, license_id: int) -> None:
    with refused(room.court, "LicenseNotAccusable", licenseId=license_id):
        room.open(license_id, model_id=2)


def test_a_leak_case_needs_a_license_bond_but_terms_and_disclosure_do_not(
    room: Courtroom, license_id: int
) -> None:
    bondless = room.place_license(7, bond=0)
    with refused(room.court, "LicenseNotAccusable", licenseId=bondless):
        room.open(bondless, Kind.LEAK)
    for kind in (Kind.TERMS, Kind.DISCLOSURE):
        file = room.open(bondless, kind)
        assert room.state(file) == State.OPEN
        assert room.court.caseDetail(file.id).held is False
        assert room.bond(bondless).openCases == 0


def test_a_leak_case_needs_a_mark_older_than_the_mark_age(room: Courtroom, license_id: int) -> None:
    young = room.place_license(8, age=0)
    settled = ape.chain.blocks.head.timestamp
    not_before = settled + room.params.mark_age
    room.open(young, Kind.TERMS)
    room.wait_until(not_before - 1)
    with refused(room.court, "MarkTooYoung", licenseId=young, notBefore=not_before):
        room.open(young)
    room.wait_until(not_before)
    room.open(young)


@pytest.mark.parametrize("kind", [Kind.UNLICENSED, Kind.UNDECLARED_PARENT, Kind.OWNERSHIP])
def test_kinds_without_a_license_name_none_and_a_registered_model(
    room: Courtroom, license_id: int, kind: Kind
) -> None:
    with refused(room.court, "LicenseNotAccusable", licenseId=license_id):
        room.open(license_id, kind)
    with refused(room.models, "NoSuchModel", modelId=99):
        room.open(0, kind, model_id=99)
    file = room.open(0, kind)
    assert file.accused == (ZERO if kind == Kind.UNLICENSED else room.owner)
    assert room.court.caseDetail(file.id).held is False


def test_the_same_case_twice_in_one_block_is_refused(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, value=2 * ETHER)
    room.wait_until(file.opened_at)
    with refused(room.court, "CaseAlreadyOpen", caseId=file.id):
        room.open(license_id, evidence=file.evidence_hash)


def test_without_an_active_committee_no_case_opens(bare_room: Courtroom) -> None:
    license_id = bare_room.place_license()
    with refused(bare_room.court, "EpochNotActive", epoch=0):
        bare_room.open(license_id)


def test_a_leak_counted_at_the_highest_bucket_is_not_opened_again(room: Courtroom, license_id: int) -> None:
    thin = room.place_license(9, bond=10 * ETHER)
    file = room.guilty_leak(thin, bucket=20)
    room.past(file)
    room.call("execute", file)
    assert room.least(thin) == 2 * room.params.min_report_bond
    room.open(thin, evidence=b"\x02" * 32)  # a stronger statistic may still come
    again = room.guilty_leak(thin, bucket=40, share=1)
    room.past(again)
    room.call("execute", again)
    with refused(room.court, "LicenseNotAccusable", licenseId=thin):
        room.open(thin)  # the table took the whole bond
    assert room.court.leakBucket(thin) == 40


def test_where_the_table_leaves_some_of_the_bond_nothing_stronger_can_come(lenient_room: Courtroom) -> None:
    license_id = lenient_room.place_license()
    file = lenient_room.guilty_leak(license_id, bucket=40)
    lenient_room.past(file)
    lenient_room.call("execute", file)
    assert lenient_room.bond(license_id).amount == 5 * ETHER
    with refused(lenient_room.court, "AlreadyCounted", licenseId=license_id):
        lenient_room.open(license_id)
    lenient_room.open(license_id, Kind.TERMS, bond=lenient_room.least(license_id, Kind.TERMS))


def test_a_license_whose_shares_are_all_open_is_not_accused_of_a_leak(
    room: Courtroom, license_id: int
) -> None:
    for index in range(16):
        room.open_share(room.open(license_id, bond=room.least(license_id)), index)
    assert room.court.sharesOpened(license_id) == 0xFFFF
    with refused(room.court, "NoShareLeft", licenseId=license_id):
        room.open(license_id)
    room.open(license_id, Kind.TERMS, bond=room.least(license_id, Kind.TERMS))


def test_a_reporter_can_hold_two_cases_against_one_license(
    room: Courtroom, license_id: int, books: None
) -> None:
    first, second = room.open(license_id), room.open(license_id)
    assert first.id != second.id
    assert room.bond(license_id).openCases == 2
    room.wait(4 * DAY)
    for file in (first, second):
        room.call("shareMissed", file, room.records[license_id].as_tuple())
    assert room.bond(license_id).openCases == 0
