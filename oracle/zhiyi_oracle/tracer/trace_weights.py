"""Whose copy a weights file is, by the trace kits of registered models. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from zhiyi.client import Zhiyi
from zhiyi.delivery import Bundle
from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi.types import U64, U256, TraceKey, Value, model_of_license
from zhiyi_oracle.tracer.candidate import Candidate, candidates
from zhiyi_watermark import weights
from zhiyi_watermark.detect import Found, Progress, WeightsSuspect, detect, no_progress
from zhiyi_watermark.errors import CarrierError, SpecError, UnavailableError
from zhiyi_watermark.result import Detection
from zhiyi_watermark.tensorfile import PICKLED, Checkpoint

MAX_FILE_BYTES: Final = 64 << 30
MAX_KIT_BYTES: Final = 1 << 20


class WeightsTrace(Value):
    """The best candidate, if any; `also` are further licenses under the same threshold (colluders)."""

    found: bool
    decision: str | None  # None where no model's kit fits the file
    bucket: int  # -log10 p_global, every model and license tried counted, rounded down to 0, 12, 20 or 40
    model_id: U64 | None
    license_id: U256 | None
    also: tuple[U256, ...]
    candidates: tuple[Candidate, ...]  # of every model whose mark was detected
    informed: tuple[U64, ...]  # models whose base tensors were given
    models_tried: int
    licenses_tried: int


def read_kit(path: Path) -> weights.TraceKit:
    """A trace kit from its file. Raises BadInput when too large or malformed."""
    if not path.is_file() or path.stat().st_size > MAX_KIT_BYTES:
        raise BadInput(f"{path} is no trace kit: a file of at most {MAX_KIT_BYTES} bytes is needed")
    try:
        return weights.TraceKit.from_json(path.read_text(encoding="utf-8"))
    except (SpecError, OSError, UnicodeDecodeError) as exc:
        raise BadInput(f"{path} is no trace kit: {exc}") from exc


def licenses_of(client: Zhiyi, model_id: int) -> list[int]:
    """Every license id under which an order of the model was ever opened: ended ones leak as well."""
    found = {order.delivery.license_id for order in client.orders.list()}
    return sorted(i for i in found if model_of_license(i) == model_id)


def key_of(client: Zhiyi, model_id: int, kit: weights.TraceKit) -> TraceKey | None:
    """Since when (and until when) the kit counts: from its commitment on chain on. None where it never was committed.

    Committed twice, the first time counts. Raises NotFound without such a model.
    """
    commitment = kit.commitment()
    return next((key for key in client.models.trace_keys(model_id) if key.commit == commitment), None)


def check_base(base: Path, kit: weights.TraceKit) -> None:
    """Raises BadInput unless a file or folder has the tensors in which the kit's mark lies."""
    try:
        weights.check_base(base, kit.spec)
    except (CarrierError, UnavailableError, OSError) as exc:
        raise BadInput(f"{base} holds no base tensors for the kit: {exc}") from exc


def check_object(path: Path) -> None:
    """Refuses what must not be parsed: pickles, links, too many bytes; reads headers, no tensors.

    Raises:
        BadInput, NotFound: it must not be read; IntegrityError: a header is malformed.
    """
    if path.is_symlink() or not path.exists():
        raise NotFound(f"{path} is not there, or is a link; give the file itself")
    if path.is_dir():
        size = sum(length for _, length in Bundle.scan(path).files)
    else:
        if path.suffix.lower() in PICKLED:
            raise BadInput(
                f"{path.name} may hold a pickle, which runs code when loaded: convert it to safetensors"
            )
        size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BadInput(f"{path} has {size} bytes, at most {MAX_FILE_BYTES} are examined")
    try:
        Checkpoint(path).close()
    except UnavailableError as exc:
        raise BadInput(f"{path} can't be traced: {exc}") from exc
    except CarrierError as exc:
        raise _malformed(path, exc) from exc


def _malformed(path: Path, why: CarrierError) -> IntegrityError:
    return IntegrityError(f"{path} is malformed: {why}; do not load it with anything else either")


def trace_weights(
    path: Path,
    kits: Mapping[int, weights.TraceKit],
    licenses: Mapping[int, Sequence[int]],
    bases: Mapping[int, Path] | None = None,
    progress: Progress = no_progress,
) -> tuple[WeightsTrace, Detection | None]:
    """The candidate license of a safetensors file or folder, over all models whose kit is given (by model id).

    licenses: the registered license ids of each model; bases: the registered tensors of models that are traced by the
    difference to them. The detection is secret to whoever holds the kits.

    Raises:
        BadInput, NotFound: the object must not or cannot be examined; IntegrityError: it is malformed.
    """
    check_object(path)
    tried = {model: ids for model, ids in licenses.items() if model in kits and ids}
    given = bases or {}
    suspects = [
        WeightsSuspect(str(model), kits[model], ids, given.get(model)) for model, ids in sorted(tried.items())
    ]
    try:
        best = detect(path, suspects, progress) if suspects else Found(None, None)
    except CarrierError as exc:
        raise _malformed(path, exc) from exc
    except SpecError as exc:
        raise BadInput(f"{path} cannot be traced with these kits: {exc}") from exc
    count = sum(len(ids) for ids in tried.values())
    said = best.detection
    named = said is not None and said.license is not None and best.model is not None
    trace = WeightsTrace(
        found=named,
        decision=said.decision if said else None,
        bucket=said.bucket if said else 0,
        model_id=int(best.model) if named and best.model else None,
        license_id=said.license if said else None,
        also=said.also if said and named else (),
        candidates=candidates(best),
        informed=tuple(model for model in sorted(tried) if model in given),
        models_tried=len(tried),
        licenses_tried=count,
    )
    return trace, said
