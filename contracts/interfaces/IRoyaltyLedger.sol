// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ModelRecord, RoyaltyTerms} from "./IModelNFT.sol";

/// @notice Who has earned what of the royalties that the vault holds. Paying costs one slot, pulling is lazy.
/// gross(model) = all sales, prepare fees and slashes of the model. platform = gross * platformBps; ancestor i = gross * bps_i;
/// net = gross - platform - ancestors + what the model inherited as an ancestor; collaborator i = net * bps_i; the owner has the
/// rest, dust included. Every share rounds down. What the owner has not pulled goes with the model token.
interface IRoyaltyLedger {
    event RoyaltyPaid(uint64 indexed modelId, address indexed token, uint256 amount);
    event RoyaltyPulled(uint64 indexed modelId, address indexed account, address indexed token, uint256 amount);
    event RoyaltyInherited(uint64 indexed modelId, uint64 indexed ancestorId, address indexed token, uint256 amount);

    error NotTheVault(address caller);
    error TermsMismatch(uint64 modelId);
    error NoSuchShare(uint64 modelId, uint256 index);
    error NothingToPull(uint64 modelId, address token);
    error OwnerPullFrozen(uint64 modelId, uint40 until);

    function pay(uint64 modelId, address token, uint256 amount) external;

    /// @notice Each pays into the claimant's free balance in the vault; anyone may call.
    function pullPlatform(uint64 modelId, address token, ModelRecord calldata record, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount);
    function pullAncestor(uint64 modelId, address token, uint256 index, ModelRecord calldata record, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount);
    function pullCollaborator(
        uint64 modelId, address token, uint256 index, ModelRecord calldata record, RoyaltyTerms calldata terms
    ) external returns (uint256 amount);
    function pullOwner(uint64 modelId, address token, ModelRecord calldata record, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount);

    function gross(uint64 modelId, address token) external view returns (uint256);
    function inherited(uint64 modelId, address token) external view returns (uint256);
}
