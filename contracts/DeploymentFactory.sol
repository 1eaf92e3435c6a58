// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CREATE3} from "solady/utils/CREATE3.sol";
import {IDeploymentFactory} from "./interfaces/IDeploymentFactory.sol";

/// @notice Holds no money and nothing of the running system depends on it: it is of use until it is closed.
contract DeploymentFactory is IDeploymentFactory {
    /// @inheritdoc IDeploymentFactory
    address public immutable owner;
    /// @inheritdoc IDeploymentFactory
    uint256 public immutable startBlock = block.number;

    /// @inheritdoc IDeploymentFactory
    bool public closed;
    /// @inheritdoc IDeploymentFactory
    mapping(bytes32 name => bytes32) public initCodeHashOf;

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotFactoryOwner(msg.sender, owner);
        if (closed) revert FactoryClosed();
        _;
    }

    constructor(address owner_) {
        owner = owner_;
    }

    /// @inheritdoc IDeploymentFactory
    function create(bytes32 name, bytes calldata initCode) external onlyOwner returns (address at) {
        at = addressOf(name);
        if (initCodeHashOf[name] != 0) revert NameTaken(name, at);
        bytes32 hash = keccak256(initCode);
        initCodeHashOf[name] = hash;
        emit ContractCreated(name, at, hash);
        CREATE3.deployDeterministic(initCode, name);
    }

    /// @inheritdoc IDeploymentFactory
    function close() external onlyOwner {
        closed = true;
        emit DeploymentClosed();
    }

    /// @inheritdoc IDeploymentFactory
    function addressOf(bytes32 name) public view returns (address) {
        return CREATE3.predictDeterministicAddress(name);
    }
}
