// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What a license allows, packed in 96 bits so that it shares the owner's slot of the license token:
/// bits 0-7 flags | 8-23 territory | 24-63 expiry | 64-69 uses | 70-83 share of a derivative's income | 84-95 zero.
library LicenseTerms {
    uint8 internal constant COMMERCIAL = 1;
    uint8 internal constant RESALE = 2;
    uint8 internal constant SUBLICENSE = 4;
    uint8 internal constant DERIVATIVES = 8;
    /// @dev Outputs must carry the label that says they were generated.
    uint8 internal constant DISCLOSURE = 16;

    uint256 internal constant ALL_FLAGS = 31;
    /// @dev ISO 3166-1 numeric codes have three digits; 0 is worldwide.
    uint256 internal constant MAX_TERRITORY = 999;
    uint256 internal constant MAX_DERIVATIVE_BPS = 5_000;
    /// @dev 1 in the high bit of each 2-bit preference code.
    uint256 private constant HIGH_BITS = 0xAAA;

    function has(uint96 terms, uint8 flag) internal pure returns (bool) {
        return terms & flag == flag;
    }

    /// @return unix seconds, 0 for never
    function expiry(uint96 terms) internal pure returns (uint40) {
        return uint40(terms >> 24);
    }

    /// @return one bit a preference category, in the order of ERC-7517's six keys
    function useMask(uint96 terms) internal pure returns (uint16) {
        return uint16((terms >> 64) & 0x3F);
    }

    /// @return least share of its gross, in basis points, that a derivative registered under the license gives the model
    function derivativeBps(uint96 terms) internal pure returns (uint16) {
        return uint16((terms >> 70) & 0x3FFF);
    }

    function isWellFormed(uint96 terms) internal pure returns (bool) {
        return terms >> 84 == 0 && uint8(terms) <= ALL_FLAGS && uint16(terms >> 8) <= MAX_TERRITORY
            && derivativeBps(terms) <= MAX_DERIVATIVE_BPS;
    }

    /// @return whether the license is over at `time` (unix seconds); it is valid in the second before its expiry
    function hasExpired(uint96 terms, uint256 time) internal pure returns (bool) {
        uint40 end = expiry(terms);
        return end != 0 && time >= end;
    }

    /// @return whether `preferences` say notAllowed (3) for a category that the terms use
    function areRefused(uint96 terms, uint16 preferences) internal pure returns (bool) {
        uint256 notAllowed = (preferences & (uint256(preferences) << 1) & HIGH_BITS) >> 1; // bit 2i for category i
        uint256 uses = useMask(terms);
        for (uint256 i = 0; i < 6; ++i) {
            if ((uses >> i) & (notAllowed >> (2 * i)) & 1 == 1) return true;
        }
        return false;
    }
}
