// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {AccessManaged} from "@openzeppelin/contracts/access/manager/AccessManaged.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {Attestation, IIdentityRegistry} from "./interfaces/IIdentityRegistry.sol";
import {Signatures} from "./libraries/Signatures.sol";

/// @notice Who is verified, and by whom. IDENTITY_ADMIN names issuers; it cannot attest, and no issuer can list an account that does
/// not send the attestation itself.
contract IdentityRegistry is IIdentityRegistry, EIP712, AccessManaged {
    struct Entry {
        address issuer;
        uint8 tier;
        uint40 expiry; // unix seconds
    }

    bytes32 private constant ATTESTATION_TYPEHASH = keccak256(
        "Attestation(address issuer,address subject,bytes32 claimHash,uint8 tier,uint40 expiry,uint64 nonce,uint40 deadline)"
    );
    uint8 private constant MAX_TIER = 3; // two bits in a license's terms

    mapping(address account => Entry) private _entries;
    /// @inheritdoc IIdentityRegistry
    mapping(address issuer => uint8 maxTier) public issuerTier;
    /// @inheritdoc IIdentityRegistry
    mapping(address issuer => mapping(address subject => uint64)) public nonceOf;

    constructor(address authority_) EIP712("ZhiYiChain IdentityRegistry", "1") AccessManaged(authority_) {}

    /* IDENTITY_ADMIN */

    /// @inheritdoc IIdentityRegistry
    function setIssuer(address issuer, uint8 maxTier) external restricted {
        if (maxTier > MAX_TIER) revert TierOutOfRange(maxTier, MAX_TIER);
        _setIssuer(issuer, maxTier);
    }

    /* ISSUER */

    /// @inheritdoc IIdentityRegistry
    function resign() external {
        _setIssuer(msg.sender, 0);
    }

    /// @inheritdoc IIdentityRegistry
    function revoke(address subject, bytes32 reasonHash) external {
        ++nonceOf[msg.sender][subject];
        if (_entries[subject].issuer == msg.sender) delete _entries[subject];
        emit AttestationRevoked(subject, msg.sender, reasonHash);
    }

    /* SUBJECT */

    /// @inheritdoc IIdentityRegistry
    function attest(Attestation calldata attestation, bytes calldata signature) external {
        address issuer = attestation.issuer;
        if (msg.sender != attestation.subject) revert NotTheSubject(msg.sender, attestation.subject);
        uint8 max = issuerTier[issuer];
        if (attestation.tier == 0 || attestation.tier > max) revert TierOutOfRange(attestation.tier, max);
        if (block.timestamp >= attestation.expiry) revert AttestationExpired(attestation.expiry);
        if (block.timestamp > attestation.deadline) revert AttestationExpired(attestation.deadline);
        uint64 nonce = nonceOf[issuer][msg.sender];
        if (attestation.nonce != nonce) revert WrongNonce(attestation.nonce, nonce);
        if (!Signatures.areValid(issuer, attestationDigest(attestation), signature)) revert AttestationUnsigned(issuer);

        nonceOf[issuer][msg.sender] = nonce + 1;
        _entries[msg.sender] = Entry(issuer, attestation.tier, attestation.expiry);
        emit Attested(msg.sender, issuer, attestation.claimHash, attestation.tier, attestation.expiry, nonce);
    }

    /// @inheritdoc IIdentityRegistry
    function withdraw() external {
        address issuer = _entries[msg.sender].issuer;
        if (issuer == address(0)) revert NotAttested(msg.sender);
        delete _entries[msg.sender];
        emit AttestationWithdrawn(msg.sender, issuer);
    }

    /* VIEWS */

    /// @inheritdoc IIdentityRegistry
    function tierOf(address account) external view returns (uint8) {
        Entry memory entry = _entries[account];
        if (block.timestamp >= entry.expiry) return 0;
        uint8 max = issuerTier[entry.issuer];
        return entry.tier < max ? entry.tier : max;
    }

    /// @inheritdoc IIdentityRegistry
    function attestationOf(address account) external view returns (address issuer, uint8 tier, uint40 expiry) {
        Entry memory entry = _entries[account];
        return (entry.issuer, entry.tier, entry.expiry);
    }

    /// @inheritdoc IIdentityRegistry
    function attestationDigest(Attestation calldata attestation) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ATTESTATION_TYPEHASH, attestation)));
    }

    /* INTERNAL */

    function _setIssuer(address issuer, uint8 maxTier) private {
        issuerTier[issuer] = maxTier;
        emit IssuerSet(issuer, maxTier);
    }
}
