"""Naming candidates for a weights file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import Registered, make_registered

from zhiyi.errors import BadInput, IntegrityError, NotFound
from zhiyi_oracle.tracer.trace_weights import read_kit, trace_weights
from zhiyi_watermark import weights

LICENSES = [(1 << 28) | n for n in range(1, 40)]


@pytest.fixture(scope="module")
def marked(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("marked") / "copy"
    seeds = [bytes([i]) * 32 for i in range(16)]
    weights.mark(registered.folder, out, registered.spec, registered.kit.trace_key, LICENSES[7], seeds)
    return out


def test_the_license_is_named_among_all(registered: Registered, marked: Path) -> None:
    found, detection = trace_weights(marked, {1: registered.kit}, {1: LICENSES})
    assert (found.found, found.model_id, found.license_id) == (True, 1, LICENSES[7])
    assert (found.models_tried, found.licenses_tried) == (1, len(LICENSES))
    assert detection is not None
    assert detection.hypotheses == len(LICENSES)


def test_every_model_tried_is_counted(registered: Registered, marked: Path, tmp_path: Path) -> None:
    other = weights.TraceKit.derive(b"\7" * 32, registered.spec)
    found, detection = trace_weights(marked, {1: registered.kit, 2: other}, {1: LICENSES, 2: [(2 << 28) | 1]})
    assert (found.model_id, found.license_id, found.models_tried) == (1, LICENSES[7], 2)
    assert detection is not None
    assert detection.hypotheses == 2 * len(LICENSES)


def test_the_registered_model_names_nobody(registered: Registered) -> None:
    found, _ = trace_weights(registered.folder, {1: registered.kit}, {1: LICENSES})
    assert not found.found
    assert found.license_id is None


def test_without_licenses_nobody_can_be_named(registered: Registered, marked: Path) -> None:
    found, detection = trace_weights(marked, {1: registered.kit}, {1: []})
    assert not found.found
    assert detection is None


def test_pickles_links_and_junk_are_refused(registered: Registered, tmp_path: Path) -> None:
    kits, licenses = {1: registered.kit}, {1: LICENSES}
    for name in ("model.bin", "model.PT", "x.ckpt"):
        (tmp_path / name).write_bytes(b"\x80\x04")
        with pytest.raises(BadInput, match="pickle"):
            trace_weights(tmp_path / name, kits, licenses)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "weights.pkl").write_bytes(b"x")
    with pytest.raises(BadInput, match="pickle"):
        trace_weights(folder, kits, licenses)
    (tmp_path / "link").symlink_to(registered.folder)
    with pytest.raises(NotFound):
        trace_weights(tmp_path / "link", kits, licenses)
    with pytest.raises(NotFound):
        trace_weights(tmp_path / "none", kits, licenses)
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"\xff" * 100)
    with pytest.raises(IntegrityError, match="malformed"):
        trace_weights(junk, kits, licenses)


def test_kits_are_read_with_a_limit(tmp_path: Path, registered: Registered) -> None:
    path = tmp_path / "kit.json"
    path.write_text(registered.kit.to_json())
    assert read_kit(path).commitment() == registered.kit.commitment()
    path.write_text("{}")
    with pytest.raises(BadInput, match="no trace kit"):
        read_kit(path)
    path.write_bytes(b" " * (1 << 20) + b" ")
    with pytest.raises(BadInput, match="at most"):
        read_kit(path)


def test_another_models_tensors_name_nobody(registered: Registered, tmp_path: Path) -> None:
    other = make_registered(tmp_path / "other", seed=3)
    found, _ = trace_weights(other.folder, {1: registered.kit}, {1: LICENSES})
    assert not found.found


@pytest.mark.parametrize(
    "module",
    ["zhiyi_oracle.judge.cli", "zhiyi_oracle.fingerprinter.cli", "zhiyi_oracle.tracer.trace_weights"],
)
def test_no_torch_is_imported(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
