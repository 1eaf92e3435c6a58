// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice The index-ordered SHA-256 tree of the project: node = sha256(0x01 | l | r); places without a leaf hold sha256(0x03).
library MerkleBatch {
    /// @return ceil(log2 leafCount): every leaf's path has exactly this length
    function depth(uint32 leafCount) internal pure returns (uint256) {
        uint256 d = 0;
        while ((uint256(1) << d) < leafCount) ++d;
        return d;
    }

    /// @dev A wrong number, count or path length is a wrong proof, not an error.
    function contains(bytes32 root, bytes32 leaf, uint32 index, uint32 leafCount, bytes32[] calldata path)
        internal
        pure
        returns (bool)
    {
        if (index >= leafCount || path.length != depth(leafCount)) return false;
        bytes32 node = leaf;
        for (uint256 i = 0; i < path.length; ++i) {
            node = (index >> i) & 1 == 0
                ? sha256(abi.encodePacked(bytes1(0x01), node, path[i]))
                : sha256(abi.encodePacked(bytes1(0x01), path[i], node));
        }
        return node == root;
    }
}
