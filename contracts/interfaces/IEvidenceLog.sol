// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What was said when: ERC-7053 commits to the letter, and Merkle batch anchors in one hash chain a stream.
interface IEvidenceLog {
    /// @dev ERC-7053
    event Commit(address indexed recorder, string indexed assetCid, string commitData);
    /// @param head keccak256(abi.encode(previous head, root, leafCount, cidDigest, block.timestamp)), the new head of the stream
    event BatchAnchored(
        address indexed recorder, bytes32 indexed topic, bytes32 root, uint32 leafCount, bytes32 cidDigest, bytes32 head
    );

    error EmptyCid();
    error EmptyBatch();
    error BatchTooLarge(uint32 leafCount, uint32 max);

    /// @notice ERC-7053: records a statement about the asset; anyone may, and nothing is ever removed.
    /// @dev The log holds only the hash of the indexed CID: put the CID into the commit data too.
    function commit(string memory assetCid, string memory commitData) external returns (uint256 blockNumber);
    /// @return numbers of the blocks that hold a `Commit` for the asset, oldest first
    function getCommits(string memory assetCid) external view returns (uint256[] memory);

    /// @notice Anchors up to 2^20 leaves in the caller's stream for `topic`.
    /// @param root SHA-256 tree of FairDelivery over the leaves; @param cidDigest sha2-256 digest of the CIDv0 of the batch, or 0
    function anchor(bytes32 topic, bytes32 root, uint32 leafCount, bytes32 cidDigest) external returns (bytes32 head);
    function headOf(address recorder, bytes32 topic) external view returns (bytes32);
    /// @notice Whether `leaf` is number `index` of `leafCount` under `root`. SHA-256 tree of FairDelivery: node =
    /// sha256(0x01 | l | r), missing leaf = sha256(0x03), path length exactly ceil(log2 leafCount).
    function verifyLeaf(bytes32 root, bytes32 leaf, uint32 index, uint32 leafCount, bytes32[] calldata path)
        external
        view
        returns (bool);
}
