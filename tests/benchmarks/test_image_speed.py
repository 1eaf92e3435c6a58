"""The speeds of the marks of pictures are of things that work; no time is asserted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "watermark"))

from test_lkd import small_extractor

import image_speed as bench
from image_series import Marked


def test_an_extractor_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert bench.weights(1, tmp_path / "extractor.safetensors") == []


def test_an_extractor_is_timed_on_pictures_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "extractor.safetensors"
    small_extractor().save(path)
    assert bench._lkd_rate(str(path), 2, 64) > 0


def test_a_row_says_at_which_size_the_extractor_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "LKD_LICENSES", 50)
    monkeypatch.setattr(bench, "photograph", lambda side: np.zeros((side, side, 3), dtype=np.uint8))
    path = tmp_path / "extractor.safetensors"
    small_extractor().save(path)
    own = small_extractor().side
    said = {row.id: row for row in bench.weights(1, path, 1)}
    for id_, side in (("lkd_detect_per_s", 256), ("lkd_detect_native_per_s", 128)):
        how = f"as they are and at {own} px" if side <= 2 * own else f"at {own} px alone"
        assert said[id_].what == f"pictures of {side} x {side} px read {how}, two processes"
        assert said[id_].value > 0
    assert (said["lkd_detect_per_s"].target, said["lkd_detect_native_per_s"].target) == (50, None)


def test_a_peer_that_does_not_read_is_not_timed() -> None:
    class Process:
        def __init__(self, wrong: int) -> None:
            self.wrong = wrong

        def embed(self, method: str, picture: np.ndarray, bits: np.ndarray) -> Marked:
            self.bits = bits
            return Marked(picture, 2.0)

        def read(self, method: str, pictures: list[np.ndarray], bits: int) -> list[tuple[np.ndarray, float]]:
            said = self.bits.copy()
            said[: self.wrong] ^= 1
            return [(said, 3.0)]

    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    assert bench.rivagan(Process(0), picture, 2) == [5.0, 5.0]  # type: ignore[arg-type]  # stands for the process
    with pytest.raises(RuntimeError, match="does not read"):
        bench.rivagan(Process(8), picture, 2)  # type: ignore[arg-type]  # stands for the process


def test_parts_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["image_speed.py", "--only", "wfp"])
    with pytest.raises(SystemExit, match="no mark wfp; there are dss, kgs, lkd"):
        bench.main()
