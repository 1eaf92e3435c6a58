// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {CaseFile, CaseState, CourtParams, Decision, ICourtBase, Kind, Verdict} from "./ICourtBase.sol";
import {LicenseRecord} from "./ILicenseNFT.sol";

/// @notice What of the court lies in its extension; called at the court's address.
interface ICourtExtension is ICourtBase {
    /* SERVING: an accused sees what he is accused of, or is cleared */

    /// @notice The accused, once a case, while POSTED as guilty, or CHALLENGED as guilty or not: asks for the evidence, sealed to his key.
    /// The case waits for at most 24 hours; but for a cure nothing passes meanwhile.
    function requestService(CaseFile calldata file, bytes32 encryptionKey) external;
    /// @notice The reporter or an operator of the case's committee (its account or its signer) names the evidence, sealed to the accused (CIDv0 digest). The window
    /// that was running (to challenge, or to rule) starts anew, as does the time to restore a label.
    /// @param seat the operator's in the case's epoch; any number for the reporter
    function serve(CaseFile calldata file, uint256 seat, bytes32 digest) external;
    /// @notice Anyone: nobody served in time, cleared without prejudice.
    function clearUnserved(CaseFile calldata file) external;

    /* DEFENCE */

    /// @notice The accused names his defence (CIDv0 digest) to whoever decides.
    function fileDefence(CaseFile calldata file, bytes32 digest) external;
    /// @notice Anyone with k signatures over a passing probe, within 96 hours of notice (of being served, where the accused asked for it
    /// in that time), whatever is decided meanwhile: a DISCLOSURE case is closed and the suspension ends. The verdict is NOT_GUILTY, of
    /// the case's committee or a later one, under the case id `cureIdOf`, so that nobody who signed both contradicts himself.
    function cure(
        CaseFile calldata file, Verdict calldata verdict, address[] calldata signers, uint32 bitmap, bytes calldata signatures
    ) external;
    /// @notice The accused of a LEAK case opens a chunk of the copy he got, under the license's copy root; the appeal authority compares
    /// it with the mark found. At least one is needed for `ruleFault`.
    /// @param chunks of the copy; @param data plain bytes of chunk `index`; @param path as in FairDelivery
    function openChunk(
        CaseFile calldata file, LicenseRecord calldata record, uint32 chunks, uint32 index, bytes calldata data, bytes32[] calldata path
    ) external;
    /// @notice Whoever may rule, on a guilty LEAK verdict: the delivered copy does not carry the mark found, so the fingerprinter made
    /// another. Cleared; the fingerprinter's stake pays the deciding body as much as C, then the treasury half the license bond
    /// where that is in the native coin, at least the fixed penalty. The signers keep their stakes: the mark is there.
    function ruleFault(CaseFile calldata file, LicenseRecord calldata record) external;

    /* EXITS BY TIME */

    /// @notice Anyone, after `postBy`: the reporter's bond goes back. A LEAK case without a share ends by `shareMissed` instead.
    function lapse(CaseFile calldata file) external;
    /// @notice Anyone, once the time to open a share in a LEAK case is over and none was: the fingerprinter's stake pays half the license
    /// bond where that is in the native coin, at least the fixed penalty and at most what is free (nothing where every share had been
    /// opened in other cases); the reporter's bond goes back.
    function shareMissed(CaseFile calldata file, LicenseRecord calldata record) external;
    /// @notice Anyone: the authority was silent, the last instance may rule.
    function escalate(CaseFile calldata file) external;
    /// @notice Anyone: silent again, cleared without prejudice.
    function clearSilent(CaseFile calldata file) external;
    /// @notice Anyone, 14 d after a clearing without ruling: the license bond is no longer held by this case.
    function releaseHold(CaseFile calldata file) external;

    /* PAUSER */

    /// @notice Stops posting and the court's clock until then, unix seconds; at most 7 days in 30.
    function pausePosting(uint40 until) external;
    function resumePosting() external;

    /* VIEWS */

    /// @notice Court time now.
    function clock() external view returns (uint40);
    /// @param shareIndex 255 where none was opened
    function caseState(bytes32 caseId) external view returns (CaseState state, Decision decision, uint40 until, uint8 shareIndex);
    /// @param unpaidSeats signers of the verdict that have not been paid; @param held the case holds the license bond
    function caseDetail(bytes32 caseId) external view returns (address challenger, uint32 unpaidSeats, uint8 bucket, bool held);
    /// @return serviceAsked the accused has asked to be served
    /// @return chunkOpened he has opened a chunk of his copy
    /// @return cureBy court time, last second for a passing probe; 0 where there is nothing to cure, type(uint40).max while SERVING
    function defenceOf(bytes32 caseId) external view returns (bool serviceAsked, bool chunkOpened, uint40 cureBy);
    function caseIdOf(CaseFile calldata file) external pure returns (bytes32);
    /// @notice The case id of a verdict that cures: keccak256(abi.encode(keccak256("zhiyi.cure.v1"), caseId)).
    function cureIdOf(bytes32 caseId) external pure returns (bytes32);
    /// @notice EIP-712 digest that operators sign; domain "ZhiYiChain MisuseCourt", version "1".
    function verdictDigest(Verdict calldata verdict) external view returns (bytes32);
    function params() external view returns (CourtParams memory);
    function minReportBond() external view returns (uint256);
    /// @notice Least R of the next case: `minReportBond`, at least a hundredth of the bond that it would hold, where that is in the
    /// native coin; doubled for each case that holds the license's bond now and, for LEAK, for each share ever opened, at most eight
    /// times. Spending a license's shares on purpose gets dear before they run out.
    function minReportBondFor(uint256 licenseId, Kind kind) external view returns (uint256);
    function sharesOpened(uint256 licenseId) external view returns (uint16 bitmap);
    function slashedFor(uint256 licenseId, Kind kind) external view returns (uint256);
    /// @notice Highest bucket of a final guilty LEAK verdict against the license; an equal or lower one does not count again.
    function leakBucket(uint256 licenseId) external view returns (uint8);
    /// @notice Whether a final guilty verdict counted this subject against the license (TERMS) or, by its id, the model (OWNERSHIP,
    /// UNDECLARED_PARENT).
    function counted(uint256 id, bytes32 subject) external view returns (bool);
}
