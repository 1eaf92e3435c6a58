// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Creates the contracts of one deployment at addresses that depend on this factory and their names only, so that
/// contracts can name each other at construction and lie at the same addresses on every chain.
/// @dev The factory itself is to be created by CREATE2 from (owner, salt). A contract's address follows from the factory's and
/// its name (CREATE3), not from its code or arguments: `initCodeHashOf` says what they were.
interface IDeploymentFactory {
    event ContractCreated(bytes32 indexed name, address indexed at, bytes32 initCodeHash);
    event DeploymentClosed();

    error NotFactoryOwner(address caller, address owner);
    error FactoryClosed();
    error NameTaken(bytes32 name, address at);

    /// @notice The only account that creates and closes. It never changes and has no other power.
    function owner() external view returns (address);

    /// @notice Block of the factory's own creation: no contract of this deployment is older.
    function startBlock() external view returns (uint256);

    /// @notice True once nothing can be created any more.
    function closed() external view returns (bool);

    /// @notice Hash of the creation code with constructor arguments that `name` was created from, 0 while it does not exist.
    function initCodeHashOf(bytes32 name) external view returns (bytes32);

    /// @notice Where `name` lies or will lie.
    function addressOf(bytes32 name) external view returns (address);

    /// @notice Creates a contract from its creation code, arguments appended. By the owner, once a name.
    function create(bytes32 name, bytes calldata initCode) external returns (address at);

    /// @notice Ends the owner's power for good.
    function close() external;
}
