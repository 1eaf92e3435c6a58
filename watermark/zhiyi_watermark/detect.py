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

from zhiyi_watermark import image_finished, image_generated, image_weights, weights
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.image_finished import Dss
from zhiyi_watermark.image_generated import KgsReader
from zhiyi_watermark.image_weights import MAX_PICTURES, LkdReader
from zhiyi_watermark.payload import MAX_FINGERPRINT
from zhiyi_watermark.pictures import Picture, open_picture
from zhiyi_watermark.result import Detection
from zhiyi_watermark.stats import Order
from zhiyi_watermark.text_gaussian import MAX_TOKENS, Base, GswSpec
from zhiyi_watermark.text_gaussian import detect as written_by
from zhiyi_watermark.text_multibit import BinPlus
from zhiyi_watermark.text_stream import MAX_CHARACTERS, Tokenizer, canonical_text
from zhiyi_watermark.text_zerobit import ZeroBit

TEXT_SUFFIXES: Final = frozenset({".txt", ".md"})
PICTURE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
MAX_CASE_PIXELS: Final = 1 << 27  # of all pictures of a case
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


class PassedOver(NamedTuple):
    """A picture of a case that one suspect's mark is not looked for in."""

    model: str
    method: str
    path: Path
    reason: str


class Found(NamedTuple):
    """The best suspect, what its detector said, and all whose mark was detected."""

    model: str | None  # None where no suspect could be tried
    detection: Detection | None
    passing: tuple[Finding, ...] = ()  # the smallest p_global first
    passed_over: tuple[PassedOver, ...] = ()


def detect(
    found: str | Path | Sequence[str] | Sequence[Path],
    suspects: Sequence[Suspect],
    progress: Progress = no_progress,
) -> Found:
    """Whose mark is in what was found: a text as a str, or a path of a text, a picture or safetensors.

    Several texts, or paths of several pictures, are one case: all were committed before, each place counts once over
    all of them. A suspect of another architecture or tokenizer, or texts too small or too large for it, is passed
    over; it counts. A picture that a suspect's mark does not read is left out of the case for that suspect, and told:
    its size is no function of the key, so nothing is paid for that.
    Raises SpecError without a suspect of the object's kind, CarrierError on what can't be examined, as an empty
    text, UnavailableError on an animation.
    """
    paths, texts = _sorted_out(found)
    if texts is not None and sum(map(len, texts)) > MAX_CHARACTERS:
        raise CarrierError(
            f"the texts have more than {MAX_CHARACTERS} characters in all; give fewer, or parts"
        )
    if texts is not None and not any(canonical_text(text).strip() for text in texts):
        raise CarrierError("the text is empty: it has no visible character; give one with words")
    if len(paths) > MAX_PICTURES:
        raise CarrierError(f"{len(paths)} pictures were given, a case has at most {MAX_PICTURES}")
    pictures = _opened(paths) if paths and is_picture(paths[0]) else []
    what, kinds = (
        ("a text", (TextSuspect, WriterSuspect))
        if texts is not None
        else ("a picture", (PictureSuspect, DecoderSuspect))
        if pictures
        else ("weights", (WeightsSuspect,))
    )
    tried = [suspect for suspect in suspects if isinstance(suspect, kinds)]
    if not tried:
        raise SpecError(
            f"nothing to look for in {what}: none of the {len(suspects)} suspects marks such objects"
        )
    said: list[Finding] = []
    passed_over: list[PassedOver] = []
    ids: dict[int, list[list[int]]] = {}  # of the texts under each tokenizer
    for suspect in tried:
        read: list[Picture] = []
        if isinstance(suspect, PictureSuspect | DecoderSuspect):
            read, unread = _readable(suspect, paths, pictures)
            passed_over += unread
            if not read:
                continue
        try:
            if isinstance(suspect, WeightsSuspect):
                one = weights.trace(
                    paths[0],
                    suspect.kit,
                    suspect.licenses,
                    base=suspect.base,
                    models=len(tried),
                    progress=progress,
                )
            elif isinstance(suspect, PictureSuspect):
                one = suspect.mark.detect_case(read, suspect.users, suspect.fingerprints, models=len(tried))
            elif isinstance(suspect, DecoderSuspect):
                one = suspect.mark.detect_case(read, suspect.licenses, models=len(tried))
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
        except UnavailableError as error:
            if isinstance(suspect, PictureSuspect | DecoderSuspect):
                passed_over += [PassedOver(suspect.model, _method(suspect), p, str(error)) for p in paths]
            continue
        said.append(Finding(suspect.model, one))
    if not said:
        return Found(None, None, passed_over=tuple(passed_over))
    said.sort(key=_order)
    passing = tuple(finding for finding in said if finding.detection.decision == "detected")
    best = passing[0] if passing else said[0]
    return Found(best.model, best.detection, passing, tuple(passed_over))


def _opened(paths: Sequence[Path]) -> list[Picture]:
    """Raises CarrierError and UnavailableError as open_picture does, of several with the path, and over the limit."""
    out: list[Picture] = []
    pixels = 0
    for path in paths:
        try:
            out.append(open_picture(path))
        except (CarrierError, UnavailableError) as error:
            if len(paths) == 1:
                raise
            raise type(error)(f"{path}: {error}") from error
        pixels += out[-1].rgb.shape[0] * out[-1].rgb.shape[1]
        if pixels > MAX_CASE_PIXELS:
            raise CarrierError(
                f"the first {len(out)} of {len(paths)} pictures have {pixels} px, a case has at most "
                f"{MAX_CASE_PIXELS}; give fewer"
            )
    return out


def _method(suspect: PictureSuspect | DecoderSuspect) -> str:
    if isinstance(suspect, DecoderSuspect):
        return image_weights.METHOD
    return image_finished.METHOD if isinstance(suspect.mark, Dss) else image_generated.METHOD


def _readable(
    suspect: PictureSuspect | DecoderSuspect, paths: Sequence[Path], pictures: Sequence[Picture]
) -> tuple[list[Picture], list[PassedOver]]:
    """The pictures whose size the suspect's mark is read from, and the others."""
    of = (
        image_weights
        if isinstance(suspect, DecoderSuspect)
        else image_finished
        if isinstance(suspect.mark, Dss)
        else image_generated
    )
    read, unread = [], []
    for path, picture in zip(paths, pictures, strict=True):
        try:
            of.check_size(picture)
            read.append(picture)
        except UnavailableError as error:
            unread.append(PassedOver(suspect.model, of.METHOD, path, str(error)))
    return read, unread


def _sorted_out(found: str | Path | Sequence[str] | Sequence[Path]) -> tuple[list[Path], list[str] | None]:
    """Paths of pictures or of one checkpoint, else texts. Raises SpecError on none, or on a case of other kinds."""
    if isinstance(found, str):
        return [], [found]
    given = [found] if isinstance(found, Path) else list(found)
    if not given:
        raise SpecError("no text or picture was given to look into")
    paths = [one for one in given if isinstance(one, Path)]
    if len(given) == 1 and paths and is_text(paths[0]):
        return [], [read_text(paths[0])]
    if not paths:
        return [], [one for one in given if isinstance(one, str)]
    if len(paths) < len(given) or (len(paths) > 1 and not all(is_picture(path) for path in paths)):
        raise SpecError("a case is of texts alone, each a str, or of paths of pictures alone")
    return paths, None


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
