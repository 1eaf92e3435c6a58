// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

library Signatures {
    /// @notice Whether `signer` signed `digest`: a 65-byte low-s ECDSA signature of its key, else ERC-1271 if it has code.
    /// @dev The key comes first: an account delegated by EIP-7702 has code and signs with its key, and a plain account is spared the
    /// 2,600 gas of asking for its code.
    function areValid(address signer, bytes32 digest, bytes calldata signature) internal view returns (bool) {
        (address recovered, ECDSA.RecoverError err,) = ECDSA.tryRecoverCalldata(digest, signature);
        if (err == ECDSA.RecoverError.NoError && recovered == signer) return true;
        return signer.code.length != 0 && SignatureChecker.isValidERC1271SignatureNowCalldata(signer, digest, signature);
    }
}
