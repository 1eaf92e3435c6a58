"""The training of the small image model can be repeated and resumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import train_image_model as tiny
from fetch_model import FetchError
from image_data import NAMES, Batch, FolderPictures, texture

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

TOY = tiny.Plan(
    vae_channels=(32, 40), vae_steps=4, vae_batch=2, unet_channels=(8, 16, 16), unet_batch=2, warmup=2, width=16
)  # fmt: skip


def textures(step: int, size: int) -> Batch:
    """Pictures that need nothing fetched."""
    rng = np.random.default_rng([7, step])
    captions = [list(NAMES)[int(rng.integers(0, len(NAMES)))] for _ in range(size)]
    return Batch(np.stack([texture(rng) for _ in range(size)]), np.full(size, -1), captions)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_textures_are_functions_of_their_seed() -> None:
    a, b = (texture(np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(a, b)
    assert a.shape == (64, 64, 3)
    assert not np.array_equal(a, texture(np.random.default_rng(6)))


def test_squares_of_a_folder_are_functions_of_their_step_and_of_one_split(tmp_path: Path) -> None:
    for n in range(40):
        path = tmp_path / ("deeper" if n % 2 else "") / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40 + n, 60), (n, 255 - n, 7)).save(path)
    (tmp_path / "notes.txt").write_text("no picture")

    def seen(folder: FolderPictures) -> set[int]:
        return {int(picture[0, 0, 0]) for step in range(20) for picture in folder.batch(step, 16).pictures}

    ours, theirs = (FolderPictures(split, tmp_path, 32) for split in ("train", "check"))
    assert seen(ours) | seen(theirs) == set(range(40))
    assert not seen(ours) & seen(theirs)
    one = ours.batch(3, 8)
    assert one.pictures.shape == (8, 32, 32, 3)
    assert np.array_equal(one.pictures, FolderPictures("train", tmp_path, 32).batch(3, 8).pictures)
    with pytest.raises(FetchError, match="squares of 64"):
        FolderPictures("train", tmp_path, 64).batch(0, 8)
    with pytest.raises(FetchError, match="has 0 pictures"):
        FolderPictures("train", tmp_path / "none", 64)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"GIF89a")
    with pytest.raises(FetchError, match=r"\.png can't be read"):
        ours.batch(0, 8)


def test_the_autoencoder_begins_near_a_linear_map() -> None:
    """Random weights give under 10 dB."""
    assert tiny.psnr(tiny.new_vae(tiny.Plan()), textures(0, 8).pictures) > 24


def test_an_interrupted_autoencoder_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = tiny.train_vae(TOY, textures, tmp_path / "a").state_dict()
    tiny.train_vae(TOY, textures, tmp_path / "b", steps=2)
    parts = tiny.train_vae(TOY, textures, tmp_path / "b").state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_an_interrupted_denoiser_is_the_uninterrupted_one_and_goes_on_from_its_export(tmp_path: Path) -> None:
    with pytest.raises(tiny.FetchError, match="--stage vae"):
        tiny.finished_vae(TOY, textures, tmp_path, tmp_path / "none")
    tiny.train_vae(TOY, textures, tmp_path, steps=1)
    with pytest.raises(tiny.FetchError, match="1 of 4 steps"):
        tiny.finished_vae(TOY, textures, tmp_path, tmp_path / "none")
    tiny.train_vae(TOY, textures, tmp_path)
    vae = tiny.finished_vae(TOY, textures, tmp_path, tmp_path / "none")
    whole = tiny.train_unet(TOY, textures, vae, tmp_path / "a", steps=4)
    tiny.train_unet(TOY, textures, vae, tmp_path / "b", steps=2)
    parts = tiny.train_unet(TOY, textures, vae, tmp_path / "b", steps=4)
    assert parts["step"] == 4
    for kind in ("model", "mean"):
        assert all(torch.equal(value, parts[kind][name]) for name, value in whole[kind].items())

    (tmp_path / "unet.pt").write_bytes((tmp_path / "a" / "unet.pt").read_bytes())
    tiny.export(TOY, vae, tmp_path, tmp_path / "out")
    later = tiny.train_unet(TOY, textures, vae.float(), tmp_path / "c", steps=4, folder=tmp_path / "out")
    assert later["step"] == later["warm_from"] == 4  # nothing done: the exported weights as they are
    for name, value in later["model"].items():
        assert torch.allclose(value.float(), whole["mean"][name].float(), atol=1e-3)
