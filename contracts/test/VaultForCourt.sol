// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {OrderState} from "../interfaces/IEscrowBase.sol";
import {ILicenseNFT, LicenseRecord} from "../interfaces/ILicenseNFT.sol";
import {Bond} from "../interfaces/IVault.sol";
import {Vault} from "../Vault.sol";
import {Peers, VaultBase} from "../VaultBase.sol";

/// @notice The real vault with a short cut to a settled license, so that the court's tests need no purchase.
contract VaultForCourt is Vault {
    ILicenseNFT public immutable licenses;
    mapping(uint256 licenseId => uint40) private _settledAt;

    constructor(
        address authority,
        address committee_,
        address court_,
        address royalties_,
        address treasury_,
        address licenses_,
        uint128 stakeReserve_
    ) AccessManaged(authority)
        VaultBase(
            Peers({
                models: address(0),
                licenses: address(0),
                royalties: royalties_,
                committee: committee_,
                court: court_,
                channels: address(0),
                identity: address(0),
                deliveryCheck: address(0),
                treasury: treasury_,
                stakeReserve: stakeReserve_
            })
        )
    {
        licenses = ILicenseNFT(licenses_);
    }

    /// @notice Value sent is the license bond.
    function place(uint256 licenseId, address holder, uint96 price, uint96 terms, LicenseRecord calldata record) external payable {
        _settledAt[licenseId] = uint40(block.timestamp);
        _bonds[licenseId] = Bond(uint96(msg.value), price, 0, 0, 0);
        licenses.issue(holder, licenseId, terms, record);
    }

    /// @notice The bond's amount counts in another token; only to be looked at.
    function putInToken(uint256 licenseId, uint8 tokenIndex) external {
        _bonds[licenseId].tokenIndex = tokenIndex;
    }

    function orderState(uint256 licenseId) external view returns (OrderState, uint40, bytes26) {
        uint40 since = _settledAt[licenseId];
        return (since == 0 ? OrderState.NONE : OrderState.SETTLED, since, 0);
    }
}
