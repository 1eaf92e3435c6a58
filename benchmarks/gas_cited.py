"""What the same steps cost in other systems: cited figures, set beside our rows in gas.md."""

from __future__ import annotations

from typing import NamedTuple

from report import Row


class Cited(NamedTuple):
    """A figure of another system for what our row does."""

    row: str
    what: str
    source: str  # system: step
    gas: int


CITED = (
    Cited("register", "register a model, its terms with it", "Story: register", 292_000),
    Cited("register", "the same", "Story: register, then attach terms", 292_000 + 348_000),
    Cited("commit", "ERC-7053 commit", "ERC-7053 reference implementation", 59_000),
    Cited("open_native", "open an order", "FairSwap: initialize and accept", 214_000),
    Cited("open_native", "the same", "FDE", 163_000),
    Cited("reveal", "reveal the key", "FairSwap", 56_000),
    Cited("reveal", "the same", "FDE", 63_000),
    Cited("settle_repeat", "settle, license issued", "Story: mint a license, repeat", 721_000),
    Cited("settle_first", "the same, first", "Story: mint a license, first", 1_154_000),
    Cited("purchase_repeat", "whole purchase", "FairDEx, as published, about", 600_000),
    Cited("complaint_4gib", "complaint, 4 GiB file", "FairSwap: 1 GiB file", 158_000),
    Cited("open_case", "open a case", "Story: raiseDispute", 329_000),
    Cited("verdict_3of5", "verdict, 3 of 5, stored", "EigenLayer: 3 of 5, verified only", 144_000),
    Cited("verdict_5of7", "verdict, 5 of 7, stored", "EigenLayer: 5 of 7, verified only", 224_000),
    Cited("execute_repeat", "finalize, slash, revoke", "Story: dispute ruling, without a slash", 97_000),
    Cited("renew", "pay a royalty (a renewal of a license)", "Story: pay a royalty", 166_000),
    Cited("royalty_pull", "pull a royalty", "Story: claim a royalty", 339_000),
    Cited("anchor", "anchor a batch of up to 2^20 items", "EAS: attest one item", 46_000),
)

SOURCES = """
Story: Story Protocol's asset registry, licensing, royalty and dispute modules. FairSwap (CCS 2018), FDE (Fair Data
Exchange, CCS 2024), FairDEx: fair exchange of files for coins. EigenLayer: its BLS signature checker. EAS: Ethereum
Attestation Service. Their steps do not do the same as ours in every respect: the last column says how far apart they
are, not which contract is better written.
"""


def table(rows: list[Row]) -> str:
    """Markdown. Raises KeyError when a row that is compared was not measured."""
    ours = {row.id: row.value for row in rows}
    lines = ["| step | ours | other | cited | ours / cited |", "|---|---|---|---|---|"]
    for cited in CITED:
        gas = ours[cited.row]
        lines.append(
            f"| {cited.what} | {gas:,.0f} | {cited.source} | {cited.gas:,} | {gas / cited.gas:.2f} |"
        )
    return "\n".join(lines) + "\n" + SOURCES
