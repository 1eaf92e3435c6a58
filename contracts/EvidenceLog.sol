// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEvidenceLog} from "./interfaces/IEvidenceLog.sol";
import {FairDelivery} from "./libraries/FairDelivery.sol";

/// @notice Append-only; holds no money, has no administrator, calls nobody.
contract EvidenceLog is IEvidenceLog {
    /// @dev 2^20 leaves keep a proof at 20 hashes.
    uint32 internal constant MAX_LEAVES = 1 << 20;
    /// @dev Cells of 40 bits, six to a word: a commit that is not the first of its word writes one warm slot instead of two.
    uint256 private constant CELL_BITS = 40;
    uint256 private constant CELLS = 6;
    uint256 private constant CELL_MASK = (1 << CELL_BITS) - 1;

    /// @dev Packed array of cells: cell 0 counts the commits, cell n holds the block number of the n-th.
    mapping(bytes32 cidHash => mapping(uint256 word => uint256 cells)) private _commits;
    mapping(address recorder => mapping(bytes32 topic => bytes32 head)) private _heads;

    /* COMMITS */

    /// @inheritdoc IEvidenceLog
    function commit(string calldata assetCid, string calldata commitData) external returns (uint256 blockNumber) {
        if (bytes(assetCid).length == 0) revert EmptyCid();
        mapping(uint256 => uint256) storage words = _commits[keccak256(bytes(assetCid))];
        blockNumber = block.number;
        uint256 first = words[0] + 1; // cell 0 is the low one: this counts up
        uint256 place = first & CELL_MASK;
        uint256 cell = blockNumber << (CELL_BITS * (place % CELLS));
        if (place < CELLS) {
            words[0] = first | cell;
        } else {
            words[0] = first;
            words[place / CELLS] |= cell;
        }
        emit Commit(msg.sender, assetCid, commitData);
    }

    /// @inheritdoc IEvidenceLog
    function getCommits(string calldata assetCid) external view returns (uint256[] memory blocks) {
        mapping(uint256 => uint256) storage words = _commits[keccak256(bytes(assetCid))];
        uint256 count = words[0] & CELL_MASK;
        blocks = new uint256[](count);
        for (uint256 place = 1; place <= count; ++place) {
            blocks[place - 1] = (words[place / CELLS] >> (CELL_BITS * (place % CELLS))) & CELL_MASK;
        }
    }

    /* ANCHORS */

    /// @inheritdoc IEvidenceLog
    function anchor(bytes32 topic, bytes32 root, uint32 leafCount, bytes32 cidDigest) external returns (bytes32 head) {
        if (leafCount == 0) revert EmptyBatch();
        if (leafCount > MAX_LEAVES) revert BatchTooLarge(leafCount, MAX_LEAVES);
        head = keccak256(abi.encode(_heads[msg.sender][topic], root, leafCount, cidDigest, block.timestamp));
        _heads[msg.sender][topic] = head;
        emit BatchAnchored(msg.sender, topic, root, leafCount, cidDigest, head);
    }

    /// @inheritdoc IEvidenceLog
    function headOf(address recorder, bytes32 topic) external view returns (bytes32) {
        return _heads[recorder][topic];
    }

    /// @inheritdoc IEvidenceLog
    function verifyLeaf(bytes32 root, bytes32 leaf, uint32 index, uint32 leafCount, bytes32[] calldata path)
        external
        view
        returns (bool)
    {
        if (index >= leafCount || path.length != FairDelivery.depthOf(leafCount)) return false;
        return FairDelivery.verify(root, leaf, index, leafCount, path);
    }
}
