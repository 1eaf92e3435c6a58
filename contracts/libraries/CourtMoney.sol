// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Who gets what part of a reporter's bond, and what a slash is. Parts round down; what is left over goes to the treasury or
/// stays with whoever would have paid.
library CourtMoney {
    uint256 internal constant BPS = 10_000;
    /// @dev Spending all sixteen shares takes bonds of 2,303 times the minimum; an honest reporter never needs more than 256 times.
    uint256 internal constant MAX_DOUBLINGS = 8;
    uint256 private constant HOLD_PARTS = 100;

    /// @notice R split into the signers' fee f and the rest.
    function feeDown(uint256 reportBond, uint256 feeBps) internal pure returns (uint256 fee, uint256 rest) {
        fee = reportBond * feeBps / BPS;
        rest = reportBond - fee;
    }

    /// @notice A dismissed reporter's bond: half to the accused, the odd wei to the treasury.
    function halvesDown(uint256 rest) internal pure returns (uint256 toAccused, uint256 toTreasury) {
        toAccused = rest / 2;
        toTreasury = rest - toAccused;
    }

    /// @notice Half of the license bond that a case can no longer reach, at least the fixed penalty.
    function missedShareDown(uint256 fixedPenalty, uint256 bond) internal pure returns (uint256) {
        return bond / 2 > fixedPenalty ? bond / 2 : fixedPenalty;
    }

    /// @notice The least R before it doubles: the fixed minimum, at least a hundredth of the license bond that the case holds. Whoever
    /// keeps a bond from its owner by false reports loses all of that where he is found out, a fifth where nothing is found.
    function leastReportUp(uint256 minimum, uint256 bond) internal pure returns (uint256) {
        uint256 part = (bond + HOLD_PARTS - 1) / HOLD_PARTS;
        return part > minimum ? part : minimum;
    }

    /// @notice R doubled `times` times, at most MAX_DOUBLINGS times.
    function doubledUp(uint256 reportBond, uint256 times) internal pure returns (uint256) {
        return reportBond << (times < MAX_DOUBLINGS ? times : MAX_DOUBLINGS);
    }

    /// @notice min(table - already slashed for the kind, left); the table is in parts of the bond as it was before any slash.
    /// @param slashedAll what all cases took of this bond so far
    function slashDown(uint96 left, uint96 slashedAll, uint96 slashedForKind, uint16 tableBps) internal pure returns (uint96) {
        unchecked {
            // 96 and 16 bits in 256: nothing overflows.
            uint256 table = (uint256(left) + slashedAll) * tableBps / BPS;
            if (table <= slashedForKind) return 0;
            uint256 due = table - slashedForKind;
            return due < left ? uint96(due) : left;
        }
    }
}
