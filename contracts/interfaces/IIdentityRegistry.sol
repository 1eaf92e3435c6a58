// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice What an issuer signs about an account, EIP-712. Nothing here tells a person: `claimHash` is opened, with its salt, only to
/// whom the subject shows the documents.
struct Attestation {
    address issuer;
    address subject;
    bytes32 claimHash; // of a random salt of 32 bytes and of what was verified
    uint8 tier; // 1 to 3
    uint40 expiry; // unix seconds; counts until the second before
    uint64 nonce; // `nonceOf(issuer, subject)`
    uint40 deadline; // unix seconds; recorded then at the latest
}

/// @notice Who is verified.
interface IIdentityRegistry {
    event IssuerSet(address indexed issuer, uint8 maxTier);
    event Attested(
        address indexed subject, address indexed issuer, bytes32 indexed claimHash, uint8 tier, uint40 expiry, uint64 nonce
    );
    /// @dev Whatever the issuer had signed for the subject is void, recorded or not.
    event AttestationRevoked(address indexed subject, address indexed issuer, bytes32 reasonHash);
    event AttestationWithdrawn(address indexed subject, address indexed issuer);

    error TierOutOfRange(uint8 given, uint8 max);
    error NotTheSubject(address caller, address subject);
    error WrongNonce(uint64 given, uint64 needed);
    error AttestationExpired(uint40 time);
    error AttestationUnsigned(address issuer);
    error NotAttested(address account);

    /* IDENTITY_ADMIN */

    /// @notice IDENTITY_ADMIN: names an issuer and the highest tier that what it attests counts for; 0 removes it. Its attestations
    /// stop counting then, and count again if it is named again.
    function setIssuer(address issuer, uint8 maxTier) external;

    /* ISSUER */

    /// @notice An issuer leaves at once, as one should whose key is lost.
    function resign() external;
    /// @notice An issuer takes back what it attested and makes void what it signed for the subject and was not recorded. Nobody else's
    /// attestation is touched.
    function revoke(address subject, bytes32 reasonHash) external;

    /* SUBJECT */

    /// @notice The subject records what an issuer signed, in place of what it recorded before: nobody is listed without wanting it.
    /// @param signature the issuer's: 65 bytes low-s, or ERC-1271
    function attest(Attestation calldata attestation, bytes calldata signature) external;
    /// @notice The subject's attestation stops counting. The events stay.
    function withdraw() external;

    /* VIEWS */

    /// @return tier the account holds now, 0 for none, expired or revoked
    function tierOf(address account) external view returns (uint8 tier);
    /// @notice What the account recorded last, whether it counts or not; zeros for none.
    function attestationOf(address account) external view returns (address issuer, uint8 tier, uint40 expiry);
    /// @return maxTier 0 for whoever is no issuer
    function issuerTier(address issuer) external view returns (uint8 maxTier);
    /// @notice Of the next attestation of this issuer for this subject.
    function nonceOf(address issuer, address subject) external view returns (uint64);
    /// @notice What the issuer signs.
    function attestationDigest(Attestation calldata attestation) external view returns (bytes32);
}
