// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManager as OpenZeppelinAccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";

/// @notice Who may administer: OpenZeppelin's contract, nothing added. It is here so that the project's build has it.
contract AccessManager is OpenZeppelinAccessManager {
    constructor(address initialAdmin) OpenZeppelinAccessManager(initialAdmin) {}
}
