"""openShare, shareMissed, lapse.

A share has the first half of the posting window.

Branches of openShare: not OPEN; not LEAK; late; other record; not the fingerprinter; not in the commitment; second
share; share of another case; opened. Ends of an open case: share missed (slashed, all opened before, stake too small);
lapsed.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from courtroom import DAY, ETHER, Courtroom, Decision, Kind, State, refused, share_proof, share_seeds


def test_a_share_is_opened_once_for_one_case(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    receipt = room.open_share(file, 5)
    seed = share_seeds(str(license_id))[5]
    assert receipt.events == [
        room.court.ShareOpened(
            caseId=file.id, licenseId=license_id, index=5, seed=seed, baseDigest=b"\xba" * 32
        )
    ]
    assert room.share(file) == 5
    assert room.court.sharesOpened(license_id) == 1 << 5
    assert room.court.caseDetail(file.id).held is True
    with refused(room.court, "ShareAlreadyOpened", licenseId=license_id, index=6):
        room.open_share(file, 6)
    other = room.open(license_id)
    with refused(room.court, "ShareAlreadyOpened", licenseId=license_id, index=5):
        room.open_share(other, 5)


def test_only_the_fingerprinter_of_the_license_opens_a_share(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    with refused(room.court, "NotTheFingerprinter", caller=room.stranger.address):
        room.open_share(file, sender=room.stranger)
    forged = replace(room.records[license_id], fingerprinter=room.stranger.address)
    with refused(room.licenses, "RecordMismatch", licenseId=license_id):
        room.open_share(file, sender=room.stranger, record=forged)


def test_a_share_that_was_not_committed_is_refused(room: Courtroom, license_id: int) -> None:
    file, seeds = room.open(license_id), share_seeds(str(license_id))
    proof = share_proof(license_id, seeds, 3)
    for index, changes in (
        (3, {"seed": seeds[4]}),
        (4, {"seed": seeds[3], "proof": proof}),
        (3, {"proof": share_proof(license_id + 1, seeds, 3)}),  # of another license
        (3, {"proof": proof[:3]}),
        (3, {"proof": [*proof, proof[0]]}),
        (3, {"proof": [proof[1], proof[0], *proof[2:]]}),
        (19, {"seed": seeds[3], "proof": proof}),
        (255, {"seed": seeds[15], "proof": share_proof(license_id, seeds, 15)}),
    ):
        with refused(room.court, "ShareNotInCommit", licenseId=license_id, index=index):
            room.open_share(file, index, **changes)
    room.open_share(file, 3)


def test_shares_belong_to_leak_cases(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id, Kind.TERMS)
    with refused(room.court, "WrongKind", given=Kind.TERMS):
        room.open_share(file)
    room.past(file)
    with refused(room.court, "WrongKind", given=Kind.TERMS):
        room.call("shareMissed", file, room.records[license_id].as_tuple())


def test_a_share_opened_too_late_to_be_measured_is_refused(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.wait_until(room.share_by(file) + 1)
    with refused(room.court, "TooLate", deadline=room.share_by(file)):
        room.open_share(file)


def test_a_share_in_its_last_second_leaves_half_the_window_to_judge(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.wait_until(room.share_by(file))
    room.open_share(file)
    room.wait_until(file.opened_at + room.params.post_window)
    room.post(file)
    assert room.state(file) == State.POSTED


def test_the_half_window_of_a_share_stands_still_with_the_courts_clock(
    room: Courtroom, license_id: int
) -> None:
    file = room.open(license_id)
    pause = DAY
    room.court.pausePosting(room.now + pause, sender=room.admin)
    room.wait(pause + 10)
    late = room.share_by(file) + room.paused()
    assert room.paused() > 0
    room.wait_until(late)
    with refused(room.court, "TooEarly", notBefore=room.share_by(file)):
        room.call("shareMissed", file, room.records[license_id].as_tuple())
    room.wait_until(late)
    room.open_share(file)


def test_a_case_without_a_share_may_be_judged_while_nobody_ends_it(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.wait_until(file.post_by)
    room.post(file, Decision.UNAVAILABLE)
    with refused(room.court, "WrongCaseState", given=State.POSTED, needed=State.OPEN):
        room.call("shareMissed", file, room.records[license_id].as_tuple())


def test_no_share_for_a_case_that_was_never_opened_or_is_posted(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    stranger_file = replace(file, bond=file.bond + 1)
    with refused(room.court, "WrongCaseState", caseId=stranger_file.id, given=State.NONE, needed=State.OPEN):
        room.open_share(stranger_file)
    room.open_share(file)
    room.post(file)
    with refused(room.court, "WrongCaseState", caseId=file.id, given=State.POSTED, needed=State.OPEN):
        room.open_share(file, 1)


def test_a_missed_share_costs_the_fingerprinter_and_not_the_reporter(
    room: Courtroom, license_id: int, books: None
) -> None:
    license_id = room.place_license(3, bond=3 * ETHER)
    before = room.money()
    file = room.open(license_id)
    record = room.records[license_id].as_tuple()
    share_by = room.share_by(file)
    room.wait_until(share_by)
    with refused(room.court, "TooEarly", notBefore=share_by):
        room.call("shareMissed", file, record)
    room.wait_until(share_by + 1)
    room.call("shareMissed", file, record)
    penalty = 3 * ETHER // 2
    after = room.money(file)
    assert {k: after[k] - before[k] for k in before if after[k] != before[k]} == {
        "reporter": file.bond,
        "treasury": penalty,
        "stakes": -penalty,
    }
    assert room.state(file) == State.CLOSED
    assert room.bond(license_id).openCases == 0
    with refused(room.court, "WrongCaseState"):
        room.call("shareMissed", file, record)
    with refused(room.court, "NothingToClaim", caseId=file.id, seat=0):
        room.call("claimFee", file, 0)


def test_a_leak_case_without_a_share_does_not_lapse(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.wait_until(file.post_by + 1)
    with refused(room.court, "ShareNeverOpened", caseId=file.id):
        room.call("lapse", file)  # would spare the fingerprinter
    room.call("shareMissed", file, room.records[license_id].as_tuple())


@pytest.mark.parametrize(
    ("bond", "token", "penalty"),
    [
        (ETHER + 2, 0, ETHER // 2 + 1),
        (ETHER + 1, 0, ETHER // 2),
        (ETHER // 10, 0, ETHER // 2),
        (7 * ETHER, 1, ETHER // 2),  # no price of the token is known
        (7 * ETHER, 0, 7 * ETHER // 2),
        (8 * ETHER + 2, 0, 4 * ETHER),  # all it has
    ],
)
def test_a_missed_share_costs_half_the_bond_it_saved(
    room: Courtroom, license_id: int, bond: int, token: int, penalty: int
) -> None:
    assert (room.params.missed_share_penalty, room.fingerprinter_stake) == (ETHER // 2, 4 * ETHER)
    saved = room.place_license(3, bond=bond)
    room.vault.putInToken(saved, token, sender=room.poster)
    file = room.open(saved)
    room.wait_until(room.share_by(file) + 1)
    receipt = room.call("shareMissed", file, room.records[saved].as_tuple())
    assert next(e for e in receipt.events if e.event_name == "ShareMissed").slashed == penalty
    assert room.stake(room.fingerprinter) == room.fingerprinter_stake - penalty
    assert room.free(room.treasury) == penalty


def test_a_share_missed_needs_the_true_record(room: Courtroom, license_id: int) -> None:
    file = room.open(license_id)
    room.past(file)
    innocent = replace(room.records[license_id], fingerprinter=room.operators[0].account.address)
    with refused(room.licenses, "RecordMismatch", licenseId=license_id):
        room.call("shareMissed", file, innocent.as_tuple())


def test_an_opened_share_is_not_missed_and_the_case_lapses(
    room: Courtroom, license_id: int, books: None
) -> None:
    before = room.money()
    file = room.open(license_id)
    room.open_share(file)
    with refused(room.court, "TooEarly", notBefore=file.post_by):
        room.call("lapse", file)
    room.past(file)
    with refused(room.court, "ShareOpenedInTime", caseId=file.id):
        room.call("shareMissed", file, room.records[license_id].as_tuple())
    receipt = room.call("lapse", file)
    assert room.court.VerdictFinal(caseId=file.id, state=State.LAPSED) in receipt.events
    after = room.money(file)
    assert {k: after[k] - before[k] for k in before if after[k] != before[k]} == {"reporter": file.bond}
    assert (room.state(file), room.bond(license_id).openCases) == (State.LAPSED, 0)
    with refused(room.court, "WrongCaseState"):
        room.call("lapse", file)


@pytest.mark.parametrize("kind", [Kind.TERMS, Kind.DISCLOSURE])
def test_cases_without_shares_lapse(room: Courtroom, license_id: int, kind: Kind) -> None:
    file = room.open(license_id, kind)
    room.past(file)
    room.call("lapse", file)
    assert room.bond(license_id).openCases == 0


def test_a_case_that_names_no_license_lapses(room: Courtroom, license_id: int, books: None) -> None:
    file = room.open(0, Kind.OWNERSHIP)
    room.past(file)
    room.call("lapse", file)
    assert room.free(room.reporter) == file.bond


def test_no_fingerprinter_pays_when_every_share_had_been_opened(
    room: Courtroom, license_id: int, books: None
) -> None:
    files = [room.open(license_id, bond=room.least(license_id)) for _ in range(17)]
    for index, file in enumerate(files[:16]):
        room.open_share(file, index)
    stake = room.stake(room.fingerprinter)
    room.past(files[16])
    receipt = room.call("shareMissed", files[16], room.records[license_id].as_tuple())
    assert room.stake(room.fingerprinter) == stake
    assert next(e for e in receipt.events if e.event_name == "ShareMissed").slashed == 0
    assert room.free(room.reporter) == files[16].bond


def test_a_stake_smaller_than_the_penalty_pays_what_it_has(
    room: Courtroom, license_id: int, books: None
) -> None:
    stake = room.fingerprinter_stake
    assert room.bond(license_id).amount // 2 > stake
    files = [room.open(license_id) for _ in range(2)]
    room.past(files[-1])
    for file in files:
        room.call("shareMissed", file, room.records[license_id].as_tuple())
    assert room.stake(room.fingerprinter) == 0
    assert room.free(room.treasury) == stake
    assert [room.state(file) for file in files] == [State.CLOSED] * len(files)
