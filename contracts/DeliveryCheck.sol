// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IDeliveryCheck} from "./interfaces/IDeliveryCheck.sol";
import {Delivery, Order} from "./interfaces/IEscrowBase.sol";
import {FairDelivery} from "./libraries/FairDelivery.sol";

/// @notice Stateless; no administrator. Apart from the escrow only because of the limit on a contract's size.
contract DeliveryCheck is IDeliveryCheck {
    /// @inheritdoc IDeliveryCheck
    function complain(
        Order calldata order,
        bytes32 key,
        uint32 index,
        bytes calldata cipher,
        bytes32 plainLeaf,
        bytes32[] calldata path
    ) external view returns (bool) {
        Delivery calldata delivery = order.delivery;
        return FairDelivery.chunkIsWrong(
            delivery.deliveryRoot, delivery.chunks, delivery.chunkSize, delivery.suite, key, index, cipher, plainLeaf, path
        );
    }
}
