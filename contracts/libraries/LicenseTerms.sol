// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What a license allows, packed so that it shares the owner's slot of the license token: bits 0-7 flags | 8-17 territory |
/// 18-57 expiry | 58-63 uses | 64-76 share of a derivative's income | 77-89 share of a price passed on | 90-91 tier | 92-95 zero.
library LicenseTerms {
    uint8 internal constant COMMERCIAL = 1;
    uint8 internal constant RESALE = 2;
    uint8 internal constant SUBLICENSE = 4;
    uint8 internal constant DERIVATIVES = 8;
    /// @dev Outputs must carry the label that says they were generated.
    uint8 internal constant DISCLOSURE = 16;
    /// @dev Later versions of the model are owed to the holder without a new price.
    uint8 internal constant UPDATES = 32;

    uint256 internal constant BITS = 92;
    uint256 internal constant ALL_FLAGS = 63;
    uint256 private constant EXPIRY_SHIFT = 18;
    uint96 private constant EXPIRY_MASK = uint96(type(uint40).max) << 18;
    /// @dev ISO 3166-1 numeric codes have three digits; 0 is worldwide.
    uint256 internal constant MAX_TERRITORY = 999;
    uint256 internal constant MAX_DERIVATIVE_BPS = 5_000;
    uint256 internal constant MAX_ONWARD_BPS = 5_000;
    /// @dev 1 in the high bit of each 2-bit preference code.
    uint256 private constant HIGH_BITS = 0xAAA;

    function has(uint96 terms, uint8 flag) internal pure returns (bool) {
        return terms & flag == flag;
    }

    /// @return unix seconds, 0 for never
    function expiry(uint96 terms) internal pure returns (uint40) {
        return uint40(terms >> EXPIRY_SHIFT);
    }

    /// @return one bit a preference category, in the order of ERC-7517's six keys
    function useMask(uint96 terms) internal pure returns (uint16) {
        return uint16((terms >> 58) & 0x3F);
    }

    /// @return least share of its gross, in basis points, that a derivative registered under the license gives the model
    function derivativeBps(uint96 terms) internal pure returns (uint16) {
        return uint16((terms >> 64) & 0x1FFF);
    }

    /// @return ISO 3166-1 numeric code, 0 for worldwide
    function territory(uint96 terms) internal pure returns (uint16) {
        return uint16((terms >> 8) & 0x3FF);
    }

    /// @return part in basis points of a resale's or sublicense's price, and of API income under the license, that goes to the model
    function onwardBps(uint96 terms) internal pure returns (uint16) {
        return uint16((terms >> 77) & 0x1FFF);
    }

    /// @return identity tier, 0 to 3, that a holder must have when he buys
    function minTier(uint96 terms) internal pure returns (uint8) {
        return uint8((terms >> 90) & 3);
    }

    function withExpiry(uint96 terms, uint40 end) internal pure returns (uint96) {
        return (terms & ~EXPIRY_MASK) | (uint96(end) << uint96(EXPIRY_SHIFT));
    }

    function isWellFormed(uint96 terms) internal pure returns (bool) {
        return terms >> BITS == 0 && uint8(terms) <= ALL_FLAGS && territory(terms) <= MAX_TERRITORY
            && derivativeBps(terms) <= MAX_DERIVATIVE_BPS && onwardBps(terms) <= MAX_ONWARD_BPS;
    }

    /// @return whether `terms` give no right that `source` does not give, and drop no duty or share that it imposes
    function areWithin(uint96 terms, uint96 source) internal pure returns (bool) {
        uint8 rights = uint8(terms) & ~DISCLOSURE;
        uint40 end = expiry(source);
        return rights & ~uint8(source) == 0 && (has(terms, DISCLOSURE) || !has(source, DISCLOSURE))
            && (territory(source) == 0 || territory(terms) == territory(source))
            && (end == 0 || (expiry(terms) != 0 && expiry(terms) <= end)) && useMask(terms) & ~useMask(source) == 0
            && derivativeBps(terms) >= derivativeBps(source) && onwardBps(terms) >= onwardBps(source)
            && minTier(terms) >= minTier(source);
    }

    /// @return whether the license is over at `time` (unix seconds); it is valid in the second before its expiry
    function hasExpired(uint96 terms, uint256 time) internal pure returns (bool) {
        uint40 end = expiry(terms);
        return end != 0 && time >= end;
    }

    /// @return whether `preferences` say notAllowed (3) for a category that the terms use
    function areRefused(uint96 terms, uint16 preferences) internal pure returns (bool) {
        uint256 notAllowed = (preferences & (uint256(preferences) << 1) & HIGH_BITS) >> 1; // bit 2i for category i
        notAllowed = (notAllowed | notAllowed >> 1) & 0x333;
        notAllowed = (notAllowed | notAllowed >> 2) & 0xF0F;
        return useMask(terms) & (notAllowed | notAllowed >> 4) != 0; // bit i for category i
    }
}
