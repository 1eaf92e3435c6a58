"""Making one buyer's copy: mark, encrypt, seal. Files in, files out; no chain. Imports no torch.

Promises: may be repeated with the same secrets and gives the same marked bytes; works in a scratch folder of
its own.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from zhiyi import delivery
from zhiyi.delivery import DeclaredRange, DeliveryFigures, Tree
from zhiyi.errors import IntegrityError
from zhiyi_oracle.errors import OracleError
from zhiyi_oracle.fingerprinter.copies import CopySecrets
from zhiyi_watermark import weights
from zhiyi_watermark.errors import WatermarkError


@dataclass(frozen=True)
class Source:
    """A registered model as the fingerprinter holds it."""

    folder: Path
    tree: Tree
    declared: DeclaredRange
    kit: weights.TraceKit


@dataclass(frozen=True)
class MadeCopy:
    """What the order has to say of the copy, and what marking did."""

    figures: DeliveryFigures
    key_commit: bytes
    mark_commit: bytes
    report: str  # MarkReport, JSON
    package: Path  # folder of the delivery package


def make_copy(
    source: Source,
    secrets: CopySecrets,
    *,
    license_id: int,
    buyer: str,
    work: Path,
    progress: delivery.Progress = lambda done, total: None,
) -> MadeCopy:
    """Marks and encrypts one copy into the folder `work`.

    1. Mark the declared tensors with the license's codeword and the 16 shares.
    2. The relative change of every tensor is within the registered bound.
    3. Encrypt chunk by chunk; `zhiyi.delivery.prepare` refuses a change outside the declared range.

    Raises:
        OracleError: the weights cannot be marked, or the bound is broken.
        ZhiyiError: of zhiyi.delivery.
    """
    marked = work / "marked"
    # 1
    try:
        report = weights.mark(
            source.folder, marked, source.kit.spec, source.kit.trace_key, license_id, secrets.seeds
        )
    except WatermarkError as exc:
        raise OracleError(f"the model in {source.folder} cannot be marked: {exc}") from exc
    for path in sorted(source.folder.rglob("*")):
        target = marked / path.relative_to(source.folder)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    # 2
    bound = source.declared.max_change_ppm / 1_000_000
    worst = max(report.relative_change.values())
    if worst > bound:
        raise IntegrityError(
            f"marking changes a tensor by {worst:.6f} of its norm, the model registered {bound:.6f}"
        )
    # 3
    prepared = delivery.prepare(
        marked, source.folder, source.tree, source.declared, secrets.key, work / "package", progress
    )
    shutil.rmtree(marked)
    return MadeCopy(
        figures=prepared.figures,
        key_commit=delivery.key_commit(secrets.key, license_id, buyer),
        mark_commit=delivery.mark_commit(license_id, secrets.seeds),
        report=json.dumps(asdict(report), sort_keys=True),
        package=prepared.folder,
    )
