"""Usage channels and identities: the moves of API users, providers and issuers."""

from __future__ import annotations

from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak
from market import DAY, ETHER, NATIVE
from reference_books import COMMERCIAL, Channel, Terms
from walk_machine import Machine, Move
from walk_stage import BUYERS, ISSUER, TEXT

CHANNELS = 4  # of one walk
CHANNEL_TYPE = "(address,address,address,address,uint96,uint40,uint64,uint256,bytes32)"
VOUCHER_TYPEHASH = keccak(text="Voucher(bytes32 channelId,uint96 cumulative)")
ATTESTATION_TYPE = (
    "Attestation(address issuer,address subject,bytes32 claimHash,uint8 tier,uint40 expiry,uint64 nonce,"
    "uint40 deadline)"
)
FAR = 2**40 - 1


class PeopleMoves(Machine):
    """Each method draws what it needs, sends one transaction and tells the books."""

    def people_moves(self) -> tuple[list[Move], list[Move]]:
        """What may follow now, and what follows only after waiting."""
        now: list[Move] = [("attest", {})]
        later: list[Move] = []
        if len(self.books.channels) < CHANNELS:
            now += [("open_channel", {})] * 2
        for number, channel in self.books.channels.items():
            if channel.closed:
                continue
            now += [
                (move, {"number": number})
                for move in ("redeem", "redeem", "redeem", "top_up", "request_close")
            ]
            later += [("close_channel", {"number": number})] * 2
        return now, later

    def people_thoughts(self) -> list[Move]:
        steps = ("redeem", "top_up", "request_close", "close_channel")
        moves: list[Move] = [
            (name, {"number": n}) for n in [*self.books.channels, bytes(32)] for name in steps
        ]
        return [
            *moves,
            ("attest", {"twisted": True}),
            ("revoke_attestation", {}),
            ("open_channel", {"twisted": True}),
        ]

    # ---------------------------------------------------------------- channels

    def open_channel(self, twisted: bool = False) -> None:
        model = self.pick(*self.stage.models)
        licensed = [
            n for n, own in self.books.licenses.items() if n >> 28 == model and Terms.of(own.terms).flags & COMMERCIAL
        ]  # fmt: skip
        license_id = self.pick(0, *licensed, *licensed)
        provider = self.books.licenses[license_id].holder if license_id else self.books.models[model].owner
        if twisted:
            provider = self.address(self.pick("sam", "anna"))
        payer = self.pick(*BUYERS, "hugo")
        self.requests += 1
        values = (
            self.address(payer), provider, self.address(self.pick(payer, "sam")), self.pick(*self.tokens),
            self.pick(ETHER // 3 + 1, 10**9 + 7, *([0] if twisted else [])),
            self.clock + self.pick(3, 30, 300) * DAY - (DAY * 400 if twisted and self.pick(True, False) else 0), model,
            license_id, self.requests.to_bytes(32, "big"),
        )  # fmt: skip
        by = payer if not twisted else self.pick(payer, "finn")
        number = self.number_of(values)
        self.step(
            lambda: self.books.open_channel(number, values, sender=self.address(by)),
            "UsageChannel",
            "open",
            values,
            by=by,
        )

    def number_of(self, values: tuple[Any, ...]) -> bytes:
        return keccak(encode(["address", CHANNEL_TYPE], [self.stage.faces["UsageChannel"].address, values]))

    def channel(self, number: bytes) -> Channel:
        """A channel that was opened, or one that never was."""
        emma = self.address("emma")
        nothing = (emma, emma, emma, NATIVE, 1, FAR, next(iter(self.stage.models)), 0, bytes(32))
        return self.books.channels.get(number) or Channel(nothing, 0, 0)

    def redeem(self, number: bytes) -> None:
        channel = self.channel(number)
        step = max(channel.deposited // 3, 1)
        cumulative = channel.redeemed + self.pick(step, step, 1, 0, channel.deposited)
        number = self.number_of(channel.terms)
        digest = self.stage.digest(
            "UsageChannel",
            keccak(encode(["bytes32", "bytes32", "uint96"], [VOUCHER_TYPEHASH, number, cumulative])),
        )
        genuine = self.pick(*[True] * 6, False)
        signature = self.stage.people[self.name(channel.signer) if genuine else "kai"].sign(digest)
        self.step(
            lambda: self.books.redeem(number, cumulative, genuine=genuine),
            "UsageChannel", "redeem", channel.terms, cumulative, signature, by="sam",
        )  # fmt: skip

    def top_up(self, number: bytes) -> None:
        channel = self.channel(number)
        by, amount = self.pick(*[self.name(channel.payer)] * 5, "sam"), self.pick(ETHER // 9, 3)
        number = self.number_of(channel.terms)
        self.step(
            lambda: self.books.top_up(number, amount, sender=self.address(by)),
            "UsageChannel", "topUp", channel.terms, amount, by=by,
        )  # fmt: skip

    def request_close(self, number: bytes) -> None:
        channel = self.channel(number)
        by, number = self.pick(*[self.name(channel.payer)] * 4, "sam"), self.number_of(channel.terms)
        self.step(
            lambda: self.books.request_close(number, sender=self.address(by)),
            "UsageChannel", "requestClose", channel.terms, by=by,
        )  # fmt: skip

    def close_channel(self, number: bytes) -> None:
        channel = self.channel(number)
        by, number = self.pick("sam", "sam", self.name(channel.provider)), self.number_of(channel.terms)
        if by == "sam" and number in self.books.channels:
            self.to_the_edge(channel.closable_at - 1)
        if self.step(
            lambda: self.books.close_channel(number, sender=self.address(by)),
            "UsageChannel", "close", channel.terms, by=by,
        ) and by != "sam":  # fmt: skip
            self.closed_by_provider.add(number)

    def end_channels(self) -> None:
        sam = self.address("sam")
        for number, channel in self.books.channels.items():
            if not channel.closed:
                self.clock = max(self.clock, channel.closable_at)
                closed = self.step(
                    lambda n=number: self.books.close_channel(n, sender=sam),
                    "UsageChannel", "close", channel.terms, by="sam",
                )  # fmt: skip
                assert closed

    # ---------------------------------------------------------------- identity

    def attest(self, twisted: bool = False) -> None:
        subject = self.pick(*BUYERS)
        account = self.address(subject)
        tier, expiry = self.pick(1, 2, *([0, 3] if twisted else [])), self.clock + self.pick(9, 400) * DAY
        nonce = self.books.attestations[account] + (self.pick(0, 1) if twisted else 0)
        values = (self.address(ISSUER), account, TEXT, tier, expiry, nonce, FAR)
        types = ["bytes32", "address", "address", "bytes32", "uint8", "uint40", "uint64", "uint40"]
        hash_ = keccak(encode(types, [keccak(text=ATTESTATION_TYPE), *values]))
        signature = self.stage.people[ISSUER].sign(self.stage.digest("IdentityRegistry", hash_))
        by = subject if not twisted else self.pick(*BUYERS)
        self.step(
            lambda: self.books.attest(account, tier, expiry, nonce, sender=self.address(by)),
            "IdentityRegistry", "attest", values, signature, by=by,
        )  # fmt: skip

    def revoke_attestation(self) -> None:
        account = self.address(self.pick(*BUYERS))
        self.step(
            lambda: self.books.revoke_attestation(account),
            "IdentityRegistry",
            "revoke",
            account,
            TEXT,
            by=ISSUER,
        )
