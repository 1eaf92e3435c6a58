// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelNFT, ModelRecord, ModelStatus, RoyaltyTerms} from "./interfaces/IModelNFT.sol";
import {IRoyaltyLedger} from "./interfaces/IRoyaltyLedger.sol";
import {IVault} from "./interfaces/IVault.sol";
import {RoyaltyMath} from "./libraries/RoyaltyMath.sol";

/// @notice Counts who may take what of a model's income; the vault holds it. No administrator.
contract RoyaltyLedger is IRoyaltyLedger {
    /// @dev Names of the shares in `pulled`; the limits of RoyaltyMath keep the ranges apart.
    uint256 private constant PLATFORM = 0;
    uint256 private constant OWNER = 1;
    uint256 private constant COLLABORATOR = 16;
    uint256 private constant ANCESTOR = 32;

    IVault public immutable vault;
    IModelNFT public immutable models;
    address public immutable treasury;

    /// @inheritdoc IRoyaltyLedger
    mapping(uint64 modelId => bytes32 hash) public termsHash;
    /// @inheritdoc IRoyaltyLedger
    mapping(uint64 modelId => mapping(address token => uint256 amount)) public inherited;
    mapping(bytes32 share => uint256 amount) private _pulled;

    constructor(address vault_, address models_, address treasury_) {
        vault = IVault(vault_);
        models = IModelNFT(models_);
        treasury = treasury_;
    }

    /// @inheritdoc IRoyaltyLedger
    function openTerms(uint64 modelId, ModelRecord calldata record, RoyaltyTerms calldata terms) external {
        models.checkRecord(modelId, record);
        if (_hashTail(terms) != record.royaltyHash) revert TermsMismatch(modelId);
        termsHash[modelId] = record.royaltyHash;
        emit TermsOpened(modelId, record.royaltyHash);
    }

    /* PULLS */

    /// @inheritdoc IRoyaltyLedger
    function pullPlatform(uint64 modelId, address token, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount)
    {
        _checkTerms(modelId, terms);
        uint256 earned = RoyaltyMath.shareDown(gross(modelId, token), terms.platformBps);
        amount = _take(modelId, token, PLATFORM, earned);
        _payOut(modelId, token, treasury, amount);
    }

    /// @inheritdoc IRoyaltyLedger
    function pullAncestor(uint64 modelId, address token, uint256 index, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount)
    {
        _checkTerms(modelId, terms);
        if (index >= terms.ancestors.length) revert NoSuchShare(modelId, index);
        uint256 earned = RoyaltyMath.shareDown(gross(modelId, token), terms.ancestors[index].bps);
        amount = _take(modelId, token, ANCESTOR + index, earned);
        uint64 ancestorId = terms.ancestors[index].modelId;
        inherited[ancestorId][token] += amount;
        emit RoyaltyInherited(modelId, ancestorId, token, amount);
        vault.passRoyalty(modelId, ancestorId, token, amount);
    }

    /// @inheritdoc IRoyaltyLedger
    function pullCollaborator(
        uint64 modelId, address token, uint256 index, RoyaltyTerms calldata terms
    ) external returns (uint256 amount) {
        _checkTerms(modelId, terms);
        if (index >= terms.collaborators.length) revert NoSuchShare(modelId, index);
        uint256 earned = RoyaltyMath.shareDown(_net(modelId, token, terms), terms.collaborators[index].bps);
        amount = _take(modelId, token, COLLABORATOR + index, earned);
        _payOut(modelId, token, terms.collaborators[index].account, amount);
    }

    /// @inheritdoc IRoyaltyLedger
    function pullOwner(uint64 modelId, address token, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount)
    {
        _checkTerms(modelId, terms);
        ModelStatus memory status = models.statusOf(modelId);
        if (block.timestamp < status.frozenUntil) revert OwnerPullFrozen(modelId, status.frozenUntil);
        amount = _take(modelId, token, OWNER, _ownerShare(modelId, token, terms));
        _payOut(modelId, token, status.owner, amount);
    }

    /// @inheritdoc IRoyaltyLedger
    function settleOwner(uint64 modelId, address token, RoyaltyTerms calldata terms) external {
        if (msg.sender != address(vault)) revert NotTheVault(msg.sender);
        _checkTerms(modelId, terms);
        bytes32 key = _shareKey(modelId, token, OWNER);
        uint256 earned = _ownerShare(modelId, token, terms);
        uint256 amount = earned - _pulled[key];
        _pulled[key] = earned;
        if (amount != 0) _payOut(modelId, token, models.statusOf(modelId).owner, amount);
    }

    /* VIEWS */

    /// @inheritdoc IRoyaltyLedger
    function gross(uint64 modelId, address token) public view returns (uint256) {
        return vault.royaltyOf(modelId, token).gross;
    }

    /// @inheritdoc IRoyaltyLedger
    function pulled(uint64 modelId, address token, uint256 index) external view returns (uint256) {
        return _pulled[_shareKey(modelId, token, index)];
    }

    /* INTERNAL */

    function _checkTerms(uint64 modelId, RoyaltyTerms calldata terms) private view {
        if (_hashTail(terms) != termsHash[modelId]) revert TermsMismatch(modelId);
    }

    /// @dev keccak256(abi.encode(terms)) for terms that are the last argument: their calldata, to its end, after the offset 0x20.
    /// Calldata coded in another way than Solidity's has another hash and is refused. Saves 1,500 gas.
    function _hashTail(RoyaltyTerms calldata terms) private pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let free := mload(0x40)
            let size := sub(calldatasize(), terms)
            mstore(free, 0x20)
            calldatacopy(add(free, 0x20), terms, size)
            hash := keccak256(free, add(size, 0x20))
        }
    }

    function _net(uint64 modelId, address token, RoyaltyTerms calldata terms) private view returns (uint256) {
        return RoyaltyMath.netDown(gross(modelId, token), inherited[modelId][token], terms);
    }

    function _ownerShare(uint64 modelId, address token, RoyaltyTerms calldata terms) private view returns (uint256) {
        uint256 bps = RoyaltyMath.BPS - RoyaltyMath.collaboratorBps(terms.collaborators);
        return RoyaltyMath.shareDown(_net(modelId, token, terms), bps);
    }

    function _take(uint64 modelId, address token, uint256 index, uint256 earned) private returns (uint256 amount) {
        bytes32 key = _shareKey(modelId, token, index);
        amount = earned - _pulled[key];
        if (amount == 0) revert NothingToPull(modelId, token);
        _pulled[key] = earned;
    }

    function _payOut(uint64 modelId, address token, address account, uint256 amount) private {
        emit RoyaltyPulled(modelId, account, token, amount);
        vault.payRoyalty(modelId, token, account, amount);
    }

    function _shareKey(uint64 modelId, address token, uint256 index) private pure returns (bytes32) {
        return keccak256(abi.encode(modelId, token, index));
    }
}
