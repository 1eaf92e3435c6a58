// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// Compiled with the project so that the deployment finds it: who may administer is OpenZeppelin's contract, unmodified.
import {AccessManager} from "@openzeppelin/contracts/access/manager/AccessManager.sol";
