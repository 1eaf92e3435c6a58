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

    function commit(string memory assetCid, string memory commitData) external returns (uint256 blockNumber);
    function getCommits(string memory assetCid) external view returns (uint256[] memory);

    /// @notice Anchors up to 2^20 leaves in the caller's stream for `topic`.
    function anchor(bytes32 topic, bytes32 root, uint32 leafCount, bytes32 cidDigest) external returns (bytes32 head);
    function headOf(address recorder, bytes32 topic) external view returns (bytes32);
    /// @notice SHA-256 tree of FairDelivery: node = sha256(0x01 | l | r), missing leaf = sha256(0x03).
    function verifyLeaf(bytes32 root, bytes32 leaf, uint32 index, uint32 leafCount, bytes32[] calldata path)
        external
        view
        returns (bool);
}
