// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {FairDelivery} from "../libraries/FairDelivery.sol";

/// @notice Lets tests and benchmarks call the library. Never deployed to a real chain.
contract DeliveryHarness {
    /// @dev Sent as a transaction by the benchmark, so not a view.
    event Checked(bool wrong);

    function chunkIsWrong(
        bytes32 deliveryRoot,
        uint256 chunks,
        uint256 chunkSize,
        uint8 suite,
        bytes32 key,
        uint256 index,
        bytes calldata cipher,
        bytes32 plainLeaf,
        bytes32[] calldata path
    ) public view returns (bool) {
        return FairDelivery.chunkIsWrong(deliveryRoot, chunks, chunkSize, suite, key, index, cipher, plainLeaf, path);
    }

    function spend(
        bytes32 deliveryRoot,
        uint256 chunks,
        uint256 chunkSize,
        uint8 suite,
        bytes32 key,
        uint256 index,
        bytes calldata cipher,
        bytes32 plainLeaf,
        bytes32[] calldata path
    ) external {
        emit Checked(FairDelivery.chunkIsWrong(deliveryRoot, chunks, chunkSize, suite, key, index, cipher, plainLeaf, path));
    }

    /// @notice The check by a caller that already uses `used` bytes of memory.
    function verifyWithMemory(uint256 used, bytes32 root, bytes32 leaf, uint256 index, uint256 leaves, bytes32[] calldata path)
        external
        view
        returns (bool)
    {
        bytes memory taken = new bytes(used);
        bool right = FairDelivery.verify(root, leaf, index, leaves, path);
        for (uint256 i; i < used; ++i) require(taken[i] == 0, "the caller's memory was written to");
        return right;
    }

    function verify(bytes32 root, bytes32 leaf, uint256 index, uint256 leaves, bytes32[] calldata path)
        external
        view
        returns (bool)
    {
        return FairDelivery.verify(root, leaf, index, leaves, path);
    }

    function depthOf(uint256 leaves) external pure returns (uint256) {
        return FairDelivery.depthOf(leaves);
    }

    function plainLeafOf(uint256 index, bytes calldata data) external view returns (bytes32) {
        return FairDelivery.plainLeafOf(index, data);
    }
}
