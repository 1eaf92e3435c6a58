// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Who is verified.
interface IIdentityRegistry {
    /// @return tier the account holds now, 0 for none, expired or revoked
    function tierOf(address account) external view returns (uint8 tier);
}
