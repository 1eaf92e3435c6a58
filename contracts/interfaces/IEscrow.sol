// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IEscrowExtension} from "./IEscrowExtension.sol";
import {ILicenseEscrow} from "./ILicenseEscrow.sol";
import {IVault} from "./IVault.sol";

/// @notice Everything that answers at the escrow's address.
interface IEscrow is ILicenseEscrow, IEscrowExtension, IVault {}
