// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {CaseFile, ICourtBase, Kind, Verdict} from "./ICourtBase.sol";
import {LicenseRecord} from "./ILicenseNFT.sol";

/// @notice What follows from a verdict: the half of the court that most cases need.
///
/// A case moves OPEN -> POSTED -> (CHALLENGED -> ESCALATED) -> an end, with a stop at SERVING where the accused asks for it; callers
/// bring the `CaseFile` of `CaseOpened`, the contract keeps one word. Every state has an exit that anyone may call once its time is
/// over. A deadline is the last second that counts, in court time: unix seconds less the seconds for which posting was paused, see
/// `clock`.
///
/// | end | reporter's bond R, less the signers' fee f | challenge bond C, license bond, stakes |
/// |---|---|---|
/// | LAPSED: no verdict in time | R back, no fee | - |
/// | CLOSED: no share in time | R back, no fee | fingerprinter's stake pays half the bond in native coin, at least a fixed penalty |
/// | CLOSED: inconclusive, unlicensed, already counted | to the reporter | C to the deciding body |
/// | CLOSED: label restored in time | to the reporter | C back; the deciding body's where it ruled before |
/// | CLOSED: evidence unavailable | to the treasury | C to the deciding body |
/// | CLOSED by a ruling that the evidence does decide | R whole to the reporter, who may bring it again | C back |
/// | DISMISSED | half to the accused, half to the treasury | C to the deciding body |
/// | EXECUTED | to the reporter | slash: reporter <= 10 %, model's royalties <= the price paid, treasury the rest; C to the deciding body |
/// | EXECUTED, a ruling overturned "not guilty" | R whole to the reporter | slash as above; C back |
/// | CLEARED by ruling | R whole to the accused | C back |
/// | CLEARED, the copy never had the mark | to the accused | C back; costs and a penalty from the fingerprinter's stake |
/// | CLEARED by silence, or unserved | to the reporter | C back; the license bond stays 14 d more |
///
/// A ruling that overturns takes the fee f from the signers, and where somebody challenged as much as C, for the deciding body, from
/// their stakes; no stake answers for having found nothing, which a reporter who hides his evidence can bring about. Where nobody is accused, the treasury stands in.
interface IMisuseCourt is ICourtBase {
    /* CASE */

    /// @notice The bond R is taken from the reporter's free balance in the vault; value sent is added to that balance first.
    /// LEAK, TERMS and DISCLOSURE name a settled license of the model; UNLICENSED, UNDECLARED_PARENT and OWNERSHIP name none.
    /// A LEAK case needs a license bond, a license older than `markAge` and an unopened confirm share; a DISCLOSURE case a license whose
    /// terms ask for disclosure and that has not ended. R must reach `minReportBondFor`.
    function openCase(uint256 licenseId, uint64 modelId, Kind kind, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        external
        payable
        returns (bytes32 caseId);
    /// @notice Opens a DISCLOSURE case: outputs under this license do not carry the label that its terms ask for.
    function reportDisclosureDisabled(uint256 licenseId, bytes32 evidenceHash, bytes32 evidenceDigest, uint96 bond)
        external
        payable
        returns (bytes32 caseId);
    /// @notice The license's fingerprinter opens one unused share of the confirm mark, after the case fixed its evidence and in the first
    /// half of the posting window, `postBy - postWindow / 2`: the other half is for measuring and posting.
    /// @param proof four nodes, index order: leaf = keccak256(abi.encode(keccak256("zhiyi.share.v1"), licenseId, index, seed)),
    /// node = keccak256(l | r)
    function openShare(
        CaseFile calldata file, LicenseRecord calldata record, uint8 index, bytes32 seed, bytes32[] calldata proof, bytes32 baseDigest
    ) external;
    /// @notice Anyone who holds k signatures of the case's committee over one verdict. Guilty needs bucket >= 12 (LEAK, TERMS), the share
    /// opened in this case (LEAK), three samples (TERMS, which then goes to the appeal authority); it suspends the license (DISCLOSURE).
    function postVerdict(
        CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, bytes calldata signatures
    ) external;

    /* APPEAL */

    /// @notice Guilty: anyone but who would rule, in the first third of the window the accused alone. Anything else: the reporter.
    /// The bond C is taken like R.
    function challenge(CaseFile calldata file) external payable;
    /// @notice The case's authority while CHALLENGED, the last instance while ESCALATED. A TERMS verdict of not guilty without a bucket
    /// that is overturned slashes by the table's lowest row; one that decided nothing never convicts.
    function rule(CaseFile calldata file, bool uphold) external;

    /* END */

    /// @notice Anyone: ends a posted verdict whose window is over, with the payments of the table: FINAL_GUILTY, DISMISSED or CLOSED.
    function finalize(CaseFile calldata file) external;
    /// @notice Anyone: slashes, revokes, pays. Finalizes first where the window is over.
    /// Slash = min(table by bucket - already slashed for this kind, bond left); OWNERSHIP and UNDECLARED_PARENT freeze the model for 30
    /// days, which the regulator may lift, once a subject; UNLICENSED leaves a record only; DISCLOSURE waits for the time to cure.
    function execute(CaseFile calldata file) external;
    /// @notice Anyone: the account behind a seat that signed the verdict gets its part of the fee.
    function claimFee(CaseFile calldata file, uint256 seat) external;
}
