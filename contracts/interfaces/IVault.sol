// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What the license bond slot holds: one word.
struct Bond {
    uint96 amount; // left
    uint96 price; // paid for the license; caps what its owner may get out of a slash
    uint16 openCases;
    uint40 releaseRequestedAt; // 0: not requested
    uint8 tokenIndex; // 0: native coin
}

struct Stake {
    uint128 staked; // wei, locked part included
    uint128 locked; // wei, deposits of open orders
}

/// @notice The only place that holds money. Every peer moves it by a typed call that the vault's own records bound.
interface IVault {
    /* EVENTS */

    event Deposited(address indexed account, address indexed token, uint256 amount);
    event Withdrawn(address indexed account, address indexed token, address to, uint256 amount);
    event Credited(address indexed account, address indexed token, uint256 amount, bytes32 indexed cause);
    event StakeAdded(address indexed account, uint256 amount);
    event StakeRemoved(address indexed account, uint256 amount);
    event StakeSlashed(address indexed account, address indexed to, uint256 amount);
    event BondSlashed(uint256 indexed licenseId, uint256 amount, uint256 left);
    event CaseBondLocked(bytes32 indexed caseId, address indexed payer, uint256 amount);
    event CaseBondPaid(bytes32 indexed caseId, address indexed to, uint256 amount);
    event TokenListed(address indexed token, uint8 index, bool listed);

    /* ERRORS */

    error NotAPeer(address caller);
    error TokenNotListed(address token);
    error BalanceTooSmall(address account, address token, uint256 given, uint256 needed);
    error StakeTooSmall(address account, uint256 given, uint256 needed);
    error BondTooSmall(uint256 licenseId, uint256 given, uint256 needed);
    error CaseBondTooSmall(bytes32 caseId, uint256 given, uint256 needed);
    error RoyaltyPoolTooSmall(address token, uint256 given, uint256 needed);
    error TransferFailed(address token, address to, uint256 amount);
    error TransferTaxed(address token, uint256 given, uint256 received);
    error NothingToDo();

    /* ANYONE */

    function depositNative(address to) external payable;
    function depositToken(address token, uint256 amount, address to) external;
    /// @notice The caller's free balance leaves to `to`. Never paused.
    function withdraw(address token, uint256 amount, address to) external;
    function balanceOf(address account, address token) external view returns (uint256);
    function stakeOf(address account) external view returns (Stake memory);
    function bondOf(uint256 licenseId) external view returns (Bond memory);
    function caseBondOf(bytes32 caseId) external view returns (uint256);
    function royaltyPool(address token) external view returns (uint256);
    function treasury() external view returns (address);
    function tokenAt(uint8 index) external view returns (address);

    /* COMMITTEE: stakes of operators and fingerprinters, in the native coin, out of the account's free balance */

    function addStake(address account, uint256 amount) external;
    /// @notice Back to the account's free balance; never the locked part.
    function removeStake(address account, uint256 amount) external;

    /* COMMITTEE, COURT */

    /// @notice Takes min(amount, staked - locked) and credits it to `to`.
    function slashStake(address account, uint256 amount, address to) external returns (uint256 slashed);

    /* COURT */

    function lockCaseBond(bytes32 caseId, address payer, uint256 amount) external;
    function payCaseBond(bytes32 caseId, address to, uint256 amount) external;
    /// @notice Counts an open case on a license that has a bond: the bond stays while any is open.
    function holdBond(uint256 licenseId) external;
    function unholdBond(uint256 licenseId) external;
    /// @notice Takes min(amount, left) of one license's bond: reporterCut to the reporter, ownerCut (<= the price paid) into the
    /// model's royalties, the rest to the treasury.
    function slashBond(uint256 licenseId, uint256 amount, address reporter, uint16 reporterBps) external returns (uint256 slashed);

    /* ROYALTIES */

    function payRoyalty(address token, address to, uint256 amount) external;
}
