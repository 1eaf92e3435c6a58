"""The committee: members, stakes, epochs, keys."""

from __future__ import annotations

from collections.abc import Sequence

from zhiyi import eip712
from zhiyi.chain import TxResult
from zhiyi.cid import digest_of
from zhiyi.errors import BadInput, NotFound
from zhiyi.group import Group
from zhiyi.signers import Signer, sign
from zhiyi.types import (
    Canary,
    CanaryAccusation,
    CanaryState,
    CaseFile,
    Epoch,
    Member,
    MemberInfo,
    OracleParams,
    Order,
    ProvenSigner,
    Role,
    SignedVerdict,
    SignerPossession,
    to_address,
    to_bytes,
)
from zhiyi.votes import seats_of

POSSESSION_SECONDS = 86_400  # how long a signer key's word counts, by default


class Oracles(Group):
    """Operators and fingerprinters (contract OracleCommittee). Stakes come from free balances in the vault."""

    def join(
        self,
        role: Role,
        *,
        signer: str | ProvenSigner,
        encryption_key: bytes,
        stake: int,
        url: str = "",
        dry_run: bool = False,
    ) -> TxResult:
        """The caller joins with `stake` wei; `signer` signs verdicts, `encryption_key` (X25519) receives evidence.

        A signer key other than the caller's own comes with its word for it: `prove_signer`.
        """
        address, *possession = _possession(signer)
        arguments = (int(role), address, to_bytes(encryption_key, 32), stake, url, *possession)
        return self._send("OracleCommittee", "join", *arguments, dry_run=dry_run)

    def update(
        self, *, signer: str | ProvenSigner, encryption_key: bytes, url: str, dry_run: bool = False
    ) -> TxResult:
        """New signer, encryption key and URL; a new signer takes its seat with the next epoch.

        A key that the caller never had before comes with its word for it: `prove_signer`.
        """
        address, *possession = _possession(signer)
        arguments = (address, to_bytes(encryption_key, 32), url, *possession)
        return self._send("OracleCommittee", "update", *arguments, dry_run=dry_run)

    def prove_signer(
        self, account: str, key: Signer | None = None, *, seconds: int = POSSESSION_SECONDS
    ) -> ProvenSigner:
        """The word of a signer key (default: the caller's) that it is `account`'s.

        Good for so many seconds from the latest block.
        """
        key = key or self._chain.signer
        claim = SignerPossession(account=to_address(account), deadline=self._chain.now() + seconds)
        data = eip712.signer_possession(
            claim, self._deployment.chain_id, self._deployment.contracts["OracleCommittee"]
        )
        return ProvenSigner(signer=key.address, possession=claim, signature=sign(key, data))

    def add_stake(self, amount: int, *, dry_run: bool = False) -> TxResult:
        """More stake, wei."""
        return self._send("OracleCommittee", "addStake", amount, dry_run=dry_run)

    def request_exit(self, *, dry_run: bool = False) -> TxResult:
        """Starts the time after which the stake may leave; the caller's seats stop counting."""
        return self._send("OracleCommittee", "requestExit", dry_run=dry_run)

    def leave(self, *, dry_run: bool = False) -> TxResult:
        """The stake returns to the free balance."""
        return self._send("OracleCommittee", "leave", dry_run=dry_run)

    def announce_epoch(self, signers: Sequence[str], threshold: int, *, dry_run: bool = False) -> TxResult:
        """Oracle admin: names the next committee; the signers are sorted here. Event EpochAnnounced has its number."""
        return self._send("OracleCommittee", "announceEpoch", ascending(signers), threshold, dry_run=dry_run)

    def activate_epoch(self, number: int, *, dry_run: bool = False) -> TxResult:
        """Anyone, once the announcement delay is over (the first epoch: at once)."""
        return self._send("OracleCommittee", "activateEpoch", number, dry_run=dry_run)

    # -- faults --------------------------------------------------------------------------------

    def prove_equivocation(
        self, first: SignedVerdict, second: SignedVerdict, *, dry_run: bool = False
    ) -> TxResult:
        """Anyone: one signer signed two verdicts on one case with another decision or license; its stake is lost."""
        arguments = (first.verdict.encode(), first.signature, second.verdict.encode(), second.signature)
        return self._send("OracleCommittee", "proveEquivocation", *arguments, dry_run=dry_run)

    def prove_double_copy(
        self,
        first: Order,
        first_signature: bytes,
        second: Order,
        second_signature: bytes,
        *,
        dry_run: bool = False,
    ) -> TxResult:
        """Anyone: one fingerprinter signed two orders under one license id, for another copy or another buyer.

        Its free stake is lost and it never makes a copy again.
        """
        arguments = (first.as_tuple(), first_signature, second.as_tuple(), second_signature)
        return self._send("OracleCommittee", "proveDoubleCopy", *arguments, dry_run=dry_run)

    def is_barred(self, account: str) -> bool:
        """Whether an account signed two copies under one license id."""
        return bool(self._call("OracleCommittee", "barred", to_address(account)))

    # -- canaries: hidden test cases, see `zhiyi.canaries` ---------------------------------------

    def commit_canaries(self, epoch: int, root: bytes, *, dry_run: bool = False) -> TxResult:
        """Oracle admin: fixes hidden test cases by their root, before they are reported."""
        return self._send("OracleCommittee", "commitCanaries", epoch, to_bytes(root, 32), dry_run=dry_run)

    def accuse_canary(
        self, file: CaseFile, signed: SignedVerdict, expected: Canary, *, dry_run: bool = False
    ) -> TxResult:
        """Anyone who can open a canary: an operator signed another decision, bucket or samples than are right.

        The operator may answer for 7 days; nobody pays unless the appeal authority upholds it after that.
        """
        arguments = (file.as_tuple(), signed.verdict.as_tuple(), signed.signature, expected.as_tuple())
        return self._send("OracleCommittee", "accuseCanary", *arguments, dry_run=dry_run)

    def contest_canary(self, case_id: bytes, cid: str, *, dry_run: bool = False) -> TxResult:
        """Accused operator, within 7 days: an answer on IPFS; the appeal authority's 14 days begin."""
        arguments = (to_bytes(case_id, 32), digest_of(cid))
        return self._send("OracleCommittee", "contestCanary", *arguments, dry_run=dry_run)

    def rule_canary(self, account: str, case_id: bytes, upheld: bool, *, dry_run: bool = False) -> TxResult:
        """Appeal authority, once the operator has answered or could have, for 14 days.

        Upheld: a fifth of the minimum stake goes from the operator to the treasury.
        """
        arguments = (to_address(account), to_bytes(case_id, 32), upheld)
        return self._send("OracleCommittee", "ruleCanary", *arguments, dry_run=dry_run)

    def end_canary(self, account: str, case_id: bytes, *, dry_run: bool = False) -> TxResult:
        """Anyone, when the authority's time is over: the accusation is dropped."""
        arguments = (to_address(account), to_bytes(case_id, 32))
        return self._send("OracleCommittee", "endCanary", *arguments, dry_run=dry_run)

    def canary_accusation(self, account: str, case_id: bytes) -> CanaryAccusation:
        """Where it stands; NONE when there is none."""
        who, case = to_address(account), to_bytes(case_id, 32)
        state, until = self._call("OracleCommittee", "canaryAccusation", who, case)
        return CanaryAccusation(account=who, case_id=case, state=CanaryState(state), until=until)

    def accusations(self, account: str) -> int:
        """Accusations by canaries that have not ended; an operator cannot leave before."""
        return int(self._call("OracleCommittee", "accusations", to_address(account)))

    # -- reading -------------------------------------------------------------------------------

    def member(self, account: str) -> Member:
        """A member by account; role NONE for others."""
        return Member.from_abi(self._call("OracleCommittee", "memberOf", to_address(account)))

    def members(self) -> tuple[MemberInfo, ...]:
        """Present members in the order of joining, with their URLs."""
        urls: dict[str, str] = {}
        joined = self._events("OracleCommittee", "MemberJoined")
        updated = self._events("OracleCommittee", "MemberUpdated")
        for event in sorted(joined + updated, key=lambda e: (e.block_number, e.log_index)):
            urls[event["account"]] = event["url"]
        found = [MemberInfo(account=a, member=self.member(a), url=url) for a, url in urls.items()]
        return tuple(info for info in found if info.member.role != Role.NONE)

    def current_epoch(self) -> Epoch:
        """The committee that decides cases opened now. Raises NotFound before the first."""
        number = int(self._call("OracleCommittee", "currentEpoch"))
        if not number:
            raise NotFound("no epoch is active yet: the oracle admin announces and anyone activates one")
        return self.epoch(number)

    def epoch(self, number: int) -> Epoch:
        """The committee of an epoch. Raises NotFound."""
        signers = self._call("OracleCommittee", "signersOf", number)
        if not signers:
            raise NotFound(f"epoch {number} was not activated")
        threshold = self._call("OracleCommittee", "threshold", number)
        return Epoch(number=number, signers=tuple(signers), threshold=threshold)

    def seats(self, number: int) -> tuple[MemberInfo, ...]:
        """Who answers for each seat of an epoch, in seat order: account, keys, URL. Raises NotFound."""
        by_account = {info.account: info for info in self.members()}
        found = []
        for seat in range(len(self.epoch(number).signers)):
            account = to_address(self._call("OracleCommittee", "accountAt", number, seat))
            found.append(
                by_account.get(account) or MemberInfo(account=account, member=self.member(account), url="")
            )
        return tuple(found)

    def encryption_keys(self, number: int) -> tuple[bytes, ...]:
        """X25519 keys of an epoch's operators, in seat order, as registered; see `sealing_keys`."""
        return tuple(info.member.encryption_key for info in self.seats(number))

    def sealing_keys(self, number: int) -> tuple[bytes, ...]:
        """Keys to seal evidence or base tensors to: those of an epoch's operators that can be sealed to.

        The contract takes any 32 bytes for a key. A point of low order is left out, so that one operator cannot keep
        a committee from getting anything. Raises NotFound without the epoch, BadInput when fewer than its threshold
        are left: nothing sealed to them could be decided.
        """
        from zhiyi.delivery import ecies

        keys = self.encryption_keys(number)
        usable = tuple(key for key in keys if ecies.is_usable(key))
        threshold = self.epoch(number).threshold
        if len(usable) < threshold:
            raise BadInput(
                f"{len(usable)} of {len(keys)} operators of epoch {number} have an X25519 key that can be sealed to, "
                f"a verdict needs {threshold}: its operators have to register others"
            )
        return usable

    def encryption_key_of(self, account: str) -> tuple[bytes, int]:
        """A member's X25519 key and the unix seconds since when it is registered. Raises NotFound for others."""
        by = {"account": to_address(account)}
        joined = self._events("OracleCommittee", "MemberJoined", by)
        updated = self._events("OracleCommittee", "MemberUpdated", by)
        key, block = b"", 0
        for event in sorted(joined + updated, key=lambda e: (e.block_number, e.log_index)):
            if event["encryptionKey"] != key:
                key, block = event["encryptionKey"], event.block_number
        if not key:
            raise NotFound(f"{account} never joined as operator or fingerprinter")
        return key, self._chain.block(block).timestamp

    def counts(self, number: int) -> bool:
        """Whether signatures of an epoch count: it is active, or was replaced less than the overlap ago."""
        return bool(self._call("OracleCommittee", "epochCounts", number))

    def vacated_seats(self, number: int) -> tuple[int, ...]:
        """Seats of an epoch whose members asked to leave: their signatures do not count."""
        return seats_of(self._call("OracleCommittee", "vacatedSeats", number))

    def params(self) -> OracleParams:
        """What the deployment fixed for the committee: stakes, threshold, delays."""
        return OracleParams(
            min_threshold=self._call("OracleCommittee", "MIN_THRESHOLD"),
            max_seats=self._call("OracleCommittee", "MAX_SEATS"),
            min_operator_stake=self._call("OracleCommittee", "MIN_OPERATOR_STAKE"),
            min_fingerprinter_stake=self._call("OracleCommittee", "MIN_FINGERPRINTER_STAKE"),
            stake_reserve=self._call("LicenseEscrow", "stakeReserve"),
            announce_delay=self._call("OracleCommittee", "ANNOUNCE_DELAY"),
            overlap=self._call("OracleCommittee", "OVERLAP"),
            exit_delay=self._call("OracleCommittee", "EXIT_DELAY"),
        )

    def min_stake(self, role: Role) -> int:
        """wei."""
        return int(self._call("OracleCommittee", "minStake", int(role)))


def ascending(signers: Sequence[str]) -> list[str]:
    """Addresses in the order of an epoch's seats."""
    return sorted((to_address(signer) for signer in signers), key=lambda address: int(address, 16))


def _possession(signer: str | ProvenSigner) -> tuple[str, int, bytes]:
    """Address, deadline and signature as the contract takes them."""
    if isinstance(signer, str):
        return to_address(signer), 0, b""
    return signer.signer, signer.possession.deadline, signer.signature
