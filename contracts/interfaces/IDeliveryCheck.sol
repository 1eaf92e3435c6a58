// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Order} from "./ILicenseEscrow.sol";

/// @notice The arithmetic of a complaint. Holds nothing, decides nothing else; the escrow asks it and moves the money.
interface IDeliveryCheck {
    /// @notice Whether chunk `index`, proven to be part of the delivery, decrypts under `key` to something else than the promised
    /// `plainLeaf`. Reverts (errors of FairDelivery) where the proof itself is bad. Does not check `key` against its commitment.
    /// @dev The signature is that of ILicenseEscrow.complain, so that the escrow passes on its own calldata.
    function complain(
        Order calldata order,
        bytes32 key,
        uint32 index,
        bytes calldata cipher,
        bytes32 plainLeaf,
        bytes32[] calldata path
    ) external view returns (bool);
}
