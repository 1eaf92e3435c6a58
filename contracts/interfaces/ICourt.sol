// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IAccessManaged} from "@openzeppelin/contracts/access/manager/IAccessManaged.sol";
import {IERC5267} from "@openzeppelin/contracts/interfaces/IERC5267.sol";
import {ICourtExtension} from "./ICourtExtension.sol";
import {IMisuseCourt} from "./IMisuseCourt.sol";

/// @notice Everything that answers at the court's address.
interface ICourt is IMisuseCourt, ICourtExtension, IAccessManaged, IERC5267 {
    /// @notice Rules on challenged verdicts; ORACLE_ADMIN does not appoint it.
    function APPEAL_AUTHORITY() external view returns (address);
}
