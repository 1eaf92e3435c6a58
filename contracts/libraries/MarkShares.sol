// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice The 16 share seeds of a confirm mark under one root: leaf = keccak256(abi.encode(DOMAIN, licenseId, index, seed)), so
/// that the shares of one license prove nothing about another; nodes keccak256(left | right) in index order, four levels.
library MarkShares {
    bytes32 internal constant DOMAIN = keccak256("zhiyi.share.v1");
    uint256 internal constant COUNT = 16;
    uint256 internal constant LEVELS = 4;

    function contains(bytes32 root, uint256 licenseId, uint256 index, bytes32 seed, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        if (index >= COUNT || proof.length != LEVELS) return false;
        bytes32 node = keccak256(abi.encode(DOMAIN, licenseId, index, seed));
        for (uint256 level; level < LEVELS; ++level) {
            node = index >> level & 1 == 0
                ? keccak256(abi.encode(node, proof[level]))
                : keccak256(abi.encode(proof[level], node));
        }
        return node == root;
    }
}
