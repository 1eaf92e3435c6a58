// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {LicenseTerms} from "../libraries/LicenseTerms.sol";

contract LicenseTermsHarness {
    function areWithin(uint96 terms, uint96 source) external pure returns (bool) {
        return LicenseTerms.areWithin(terms, source);
    }
}
