"""Measuring the confirm mark in the evidence. Imports no torch.

Promises: may be repeated; the same files give the same integers on every machine. The trace kit is not an
input: it names candidates elsewhere and never convicts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from zhiyi_oracle.errors import BadEvidence, JudgeError, Unable, names_at_fault
from zhiyi_watermark import weights
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.result import Detection
from zhiyi_watermark.stats import GRIND_CORRECTION_BITS

# A LEAK case names one license and opens one share of it: one key is tried, on one object, at one alignment.
HYPOTHESES: Final = 1


@dataclass(frozen=True)
class ConfirmJob:
    """All that a detection depends on."""

    suspect: Path  # file or folder of safetensors, opened and hashed
    base: Path  # folder with the registered tensors of the declared range, checked chunk by chunk
    spec: str  # WfpSpec, JSON, as registered
    share_index: int
    share_seed: bytes  # 32 bytes, opened on chain
    subject: bytes  # 32 bytes, canonical root of the suspect
    committee_key: bytes  # 32 bytes, of this case's committee


class Detector(Protocol):
    """Where detection runs: in this process, or on other machines."""

    def confirm(self, job: ConfirmJob) -> tuple[Detection, bytes]:
        """The detection and its digest for the committee."""
        ...


class InProcess:
    """Detection in this process, with numpy."""

    def confirm(self, job: ConfirmJob) -> tuple[Detection, bytes]:
        """The confirm test of one share, corrected for 2^40 ground keys and every share of the mark.

        Raises:
            BadEvidence: the suspect is no safetensors model, or lacks the declared tensors.
            Unable: this machine cannot read the files now.
            JudgeError: the specification or the base tensors are unusable: this operator's own files.
        """
        try:
            spec = weights.WfpSpec.from_json(job.spec)
            found = weights.confirm(
                job.suspect,
                job.base,
                spec,
                job.share_index,
                job.share_seed,
                hypotheses=HYPOTHESES,
                grind_bits=GRIND_CORRECTION_BITS,
            )
        except (UnavailableError, CarrierError) as exc:
            raise BadEvidence(f"the object cannot be tested: {exc}") from exc
        except SpecError as exc:
            raise JudgeError(f"the registered detector cannot be run: {exc}") from exc
        except OSError as exc:
            if names_at_fault(exc):
                raise BadEvidence(f"the object cannot be read: {exc.strerror}") from exc
            raise Unable(f"the object cannot be read on this machine: {exc}") from exc
        return found, found.digest(job.committee_key, job.subject)
