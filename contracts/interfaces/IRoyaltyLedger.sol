// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ModelRecord, RoyaltyTerms} from "./IModelNFT.sol";

/// @notice Who has earned what of the royalties that the vault holds. Paying costs one slot there, pulling is lazy.
/// gross(model) = all sales, renewals, shares of resales, API income and owner's parts of slashes. platform = gross * platformBps; ancestor i = gross * bps_i;
/// net = gross * (1 - platformBps - sum bps_i) + what the model inherited as an ancestor; collaborator i = net * bps_i;
/// owner = net * (1 - sum of collaborators). Every share rounds down and is a function that never falls as gross and inherited grow,
/// so the sum of all pulls never exceeds what came in, in whatever order they come; the dust, below 23 smallest units a model and
/// token whatever the number of payments, stays. What the owner has not pulled goes with the model token.
interface IRoyaltyLedger {
    event TermsOpened(uint64 indexed modelId, bytes32 royaltyHash);
    event RoyaltyPulled(uint64 indexed modelId, address indexed account, address indexed token, uint256 amount);
    event RoyaltyInherited(uint64 indexed modelId, uint64 indexed ancestorId, address indexed token, uint256 amount);

    error NotTheVault(address caller);
    error TermsMismatch(uint64 modelId);
    error NoSuchShare(uint64 modelId, uint256 index);
    error NothingToPull(uint64 modelId, address token);
    error OwnerPullFrozen(uint64 modelId, uint40 until);

    /// @notice Anyone, once a model: the shares that its record commits to become known here, so that pulls need not bring the record.
    function openTerms(uint64 modelId, ModelRecord calldata record, RoyaltyTerms calldata terms) external;

    /// @notice Each pays into the claimant's free balance in the vault; anyone may call.
    function pullPlatform(uint64 modelId, address token, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount);
    /// @notice Moves ancestor `index`'s share into what that model inherited; its own owner and collaborators pull it there.
    function pullAncestor(uint64 modelId, address token, uint256 index, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount);
    function pullCollaborator(
        uint64 modelId, address token, uint256 index, RoyaltyTerms calldata terms
    ) external returns (uint256 amount);
    /// @notice To the model token's owner of now; not while the model is frozen.
    function pullOwner(uint64 modelId, address token, RoyaltyTerms calldata terms)
        external
        returns (uint256 amount);

    /// @notice Vault only, when the model token is sold: the owner's whole share in this token goes to him while he still is the owner.
    function settleOwner(uint64 modelId, address token, RoyaltyTerms calldata terms) external;

    /// @notice keccak256(abi.encode(RoyaltyTerms)), 0 until opened
    function termsHash(uint64 modelId) external view returns (bytes32);
    function gross(uint64 modelId, address token) external view returns (uint256);
    function inherited(uint64 modelId, address token) external view returns (uint256);
    /// @notice What share `index` has pulled: 0 platform, 1 owner, 16 + i collaborator i, 32 + i ancestor i.
    function pulled(uint64 modelId, address token, uint256 index) external view returns (uint256);
}
