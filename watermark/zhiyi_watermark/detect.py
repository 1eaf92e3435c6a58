"""One detector for what was found, a text, a picture or weights, against every mark that the records of models name.

A Suspect says how objects of one model may be marked and who could be named. All suspects of the object's kind are
counted in p_global before the first is looked for, those that cannot be tried included. The one with the smallest
p_global is told, and every one that passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from zhiyi_watermark import weights
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.image_generated import KgsReader
from zhiyi_watermark.image_weights import LkdReader
from zhiyi_watermark.payload import MAX_FINGERPRINT
from zhiyi_watermark.pictures import open_picture
from zhiyi_watermark.result import Detection
from zhiyi_watermark.stats import Order
from zhiyi_watermark.text_gaussian import MAX_TOKENS, Base, GswSpec
from zhiyi_watermark.text_gaussian import detect as written_by
from zhiyi_watermark.text_multibit import BinPlus
from zhiyi_watermark.text_stream import MAX_CHARACTERS, Tokenizer, canonical_text
from zhiyi_watermark.text_zerobit import ZeroBit

TEXT_SUFFIXES: Final = frozenset({".txt", ".md"})
PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
_MAX_BYTES: Final = 4 * MAX_CHARACTERS  # of a text file in UTF-8


Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class TextSuspect:
    """A key under which a text may have been generated."""

    model: str  # as the caller calls it
    mark: BinPlus | ZeroBit
    tokenizer: Tokenizer
    users: int | Collection[int] = 0  # BIN+: the registered user numbers, or how many
    fingerprints: int | Collection[int] = (
        MAX_FINGERPRINT + 1
    )  # BIN+ with 64 bits: the same for the licenses' numbers


@dataclass(frozen=True)
class WeightsSuspect:
    """A model whose copies carry the trace mark."""

    model: str
    kit: weights.TraceKit
    licenses: Sequence[int]  # all that were ever registered
    base: Path | None = None  # its tensors, where they are at hand: more is found


@dataclass(frozen=True)
class WriterSuspect:
    """A model whose copies are marked so that their texts show it (GSW)."""

    model: str
    base: Base  # loaded once for all texts and suspects that have it
    spec: GswSpec
    keys: Mapping[int, bytes]  # of every license that was ever registered


@dataclass(frozen=True)
class PictureSuspect:
    """A key under which a picture may have been marked, when finished (DSS) or while it was generated (KGS)."""

    model: str
    mark: Dss | KgsReader
    users: int | Collection[int]  # the registered user numbers, or how many
    fingerprints: int | Collection[int] = MAX_FINGERPRINT + 1  # the same for the numbers of licenses


@dataclass(frozen=True)
class DecoderSuspect:
    """A model whose copies are marked so that the pictures they decode show it (LKD)."""

    model: str
    mark: LkdReader
    licenses: Sequence[int]  # all that were ever registered


Suspect = TextSuspect | WriterSuspect | WeightsSuspect | PictureSuspect | DecoderSuspect


class Finding(NamedTuple):
    """A suspect and what its detector said."""

    model: str
    detection: Detection


class Found(NamedTuple):
    """The best suspect, what its detector said, and all whose mark was detected."""

    model: str | None  # None where no suspect could be tried
    detection: Detection | None
    passing: tuple[Finding, ...] = ()  # the smallest p_global first


def detect(
    found: str | Path | Sequence[str], suspects: Sequence[Suspect], progress: Progress = no_progress
) -> Found:
    """Whose mark is in what was found: a text as a str, or a path of a text, a picture or safetensors.

    Several texts are one case: all were committed before, each place counts once over all of them. A suspect of another
    architecture or tokenizer, or texts too short or too long for it, is passed over; it counts.
    Raises SpecError without a suspect of the object's kind, CarrierError on what can't be examined, UnavailableError on
    an animation.
    """
    if isinstance(found, str):
        texts: list[str] | None = [found]
    elif isinstance(found, Path):
        texts = [read_text(found)] if is_text(found) else None
    else:
        texts = list(found)
    if texts == []:
        raise SpecError("no text was given to look into")
    if texts is not None and sum(map(len, texts)) > MAX_CHARACTERS:
        raise CarrierError(
            f"the texts have more than {MAX_CHARACTERS} characters in all; give fewer, or parts"
        )
    picture = open_picture(found) if isinstance(found, Path) and is_picture(found) else None
    what, kinds = (
        ("a text", (TextSuspect, WriterSuspect))
        if texts is not None
        else ("a picture", (PictureSuspect, DecoderSuspect))
        if picture
        else ("weights", (WeightsSuspect,))
    )
    tried = [suspect for suspect in suspects if isinstance(suspect, kinds)]
    if not tried:
        raise SpecError(
            f"nothing to look for in {what}: none of the {len(suspects)} suspects marks such objects"
        )
    said: list[Finding] = []
    ids: dict[int, list[list[int]]] = {}  # of the texts under each tokenizer
    for suspect in tried:
        try:
            if isinstance(suspect, WeightsSuspect):
                assert isinstance(found, Path)
                one = weights.trace(
                    found,
                    suspect.kit,
                    suspect.licenses,
                    base=suspect.base,
                    models=len(tried),
                    progress=progress,
                )
            elif isinstance(suspect, PictureSuspect):
                assert picture is not None
                one = suspect.mark.detect(picture, suspect.users, suspect.fingerprints, models=len(tried))
            elif isinstance(suspect, DecoderSuspect):
                assert picture is not None
                one = suspect.mark.detect(picture, suspect.licenses, models=len(tried))
            elif isinstance(suspect, WriterSuspect):
                assert texts is not None
                one = _written(suspect, texts, len(tried), progress)
            else:
                assert texts is not None
                tokenizer = suspect.tokenizer
                if id(tokenizer) not in ids:
                    ids[id(tokenizer)] = [
                        tokenizer.encode(canonical_text(text), add_special_tokens=False) for text in texts
                    ]
                one = _generated(suspect, ids[id(tokenizer)], len(tried))
        except UnavailableError:
            continue
        said.append(Finding(suspect.model, one))
    if not said:
        return Found(None, None)
    said.sort(key=_order)
    passing = tuple(finding for finding in said if finding.detection.decision == "detected")
    best = passing[0] if passing else said[0]
    return Found(best.model, best.detection, passing)


def _order(finding: Finding) -> Order:
    assert finding.detection.order is not None  # a detector made it
    return finding.detection.order


def _generated(suspect: TextSuspect, ids: list[list[int]], tried: int) -> Detection:
    if isinstance(suspect.mark, BinPlus):
        return suspect.mark.detect_case(ids, suspect.users, suspect.fingerprints, models=tried)
    return suspect.mark.detect_case(ids, models=tried)


def _written(suspect: WriterSuspect, texts: list[str], tried: int, progress: Progress) -> Detection:
    tokens = suspect.base.encode(texts, suspect.spec)
    if sum(map(len, tokens)) > MAX_TOKENS:  # padding must not keep others from being looked for
        raise UnavailableError(f"the texts have more than {MAX_TOKENS} tokens, too many for a gradient")
    q = suspect.base.gradient(tokens, suspect.spec, progress)
    return written_by(q, suspect.spec, suspect.keys, models=tried)


def is_text(path: Path) -> bool:
    """Whether a path is taken for a text: by its suffix."""
    return path.suffix.lower() in TEXT_SUFFIXES and not path.is_dir()


def is_picture(path: Path) -> bool:
    """Whether a path is taken for a picture: by its suffix."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()


def read_text(path: Path) -> str:
    """A UTF-8 file. Raises CarrierError on a missing, too large or other file."""
    if path.exists() and not path.is_file():
        raise CarrierError(f"{path} is no plain file; give a text file")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CarrierError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise CarrierError(f"{path} has more than {_MAX_BYTES} bytes; give a part of it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CarrierError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8 text") from error
