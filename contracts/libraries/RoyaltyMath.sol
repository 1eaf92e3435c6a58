// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Ancestor, RoyaltyTerms, Split} from "../interfaces/IModelNFT.sol";

/// @notice Shares of a model's income. Every share is a function that never falls when the income grows, and rounds down, so that
/// whoever pulls first takes nothing from whoever pulls last; at most 22 smallest units a model and token stay unassigned.
library RoyaltyMath {
    uint256 internal constant BPS = 10_000;
    /// @dev Bounds the loops of registration and the size of the terms that a pull carries.
    uint256 internal constant MAX_ANCESTORS = 10;
    uint256 internal constant MAX_COLLABORATORS = 10;
    /// @dev Half of the gross stays with whoever made the model.
    uint256 internal constant MAX_LINEAGE_BPS = 5_000;
    uint256 internal constant MAX_PLATFORM_BPS = 1_000;

    function shareDown(uint256 amount, uint256 bps) internal pure returns (uint256) {
        return amount * bps / BPS;
    }

    /// @notice What collaborators and owner share: the gross without platform and ancestors, and what was inherited.
    function netDown(uint256 gross, uint256 inherited, RoyaltyTerms calldata terms) internal pure returns (uint256) {
        return shareDown(gross, BPS - terms.platformBps - lineageBps(terms.ancestors)) + inherited;
    }

    function lineageBps(Ancestor[] calldata ancestors) internal pure returns (uint256 sum) {
        for (uint256 i = 0; i < ancestors.length; ++i) {
            sum += ancestors[i].bps;
        }
    }

    function collaboratorBps(Split[] calldata collaborators) internal pure returns (uint256 sum) {
        for (uint256 i = 0; i < collaborators.length; ++i) {
            sum += collaborators[i].bps;
        }
    }

    /// @notice Adds a parent to a child's flattened lineage: each ancestor of the parent gets its part of the parent's `bps`, rounded
    /// down; the parent keeps the rest. An ancestor whose part is nothing is left out, or no family could grow past ten generations.
    /// @param lineage space for one more than MAX_ANCESTORS is not needed: the caller's array bounds are checked by `merge`
    function inherit(Ancestor[] memory lineage, uint256 count, uint64 parentId, uint16 bps, Ancestor[] calldata grand)
        internal
        pure
        returns (uint256)
    {
        uint256 own = bps;
        for (uint256 i = 0; i < grand.length; ++i) {
            uint256 part = shareDown(bps, grand[i].bps);
            if (part == 0) continue;
            own -= part;
            count = _merge(lineage, count, grand[i].modelId, part);
        }
        return _merge(lineage, count, parentId, own);
    }

    function _merge(Ancestor[] memory lineage, uint256 count, uint64 modelId, uint256 bps) private pure returns (uint256) {
        for (uint256 i = 0; i < count; ++i) {
            if (lineage[i].modelId == modelId) {
                lineage[i].bps += uint16(bps);
                return count;
            }
        }
        if (count < lineage.length) lineage[count] = Ancestor(modelId, uint16(bps));
        return count + 1; // more than lineage.length tells the caller that it overflowed
    }
}
