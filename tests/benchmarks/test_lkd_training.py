"""The training of LKD, and of its peer, can be repeated and resumed; what it exports is what it trained."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import train_lkd as lkd
from image_data import Batch, texture
from zhiyi_watermark.errors import UnavailableError
from zhiyi_watermark.image_weights import (
    Extractor,
    Layer,
    Modulation,
    Parts,
    decoder_config,
    decoder_hash,
    issue,
    word,
)

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from peers import stable_signature as peer  # noqa: E402

KEY = bytes(range(32))
NET = bytes(range(2, 34))  # hash of an extractor
TOY = lkd.Plan(
    bits=8, rank=2, channels=(8, 16, 24), strides=(2, 2, 2), pool=32, batch=8, steps=6, warmup=2, few=4, loud=12.0,
    enough_at_first=0.3, enough=0.3, bits_a_step=2.0, strength_a_step=0.4, group=2,
)  # fmt: skip


def textures(step: int, size: int) -> Batch:
    """Pictures that need nothing fetched."""
    rng = np.random.default_rng([7, step])
    return Batch(np.stack([texture(rng) for _ in range(size)]), np.full(size, -1), [""] * size)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an AutoencoderKL of random weights, four px a cell, with attention."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("lkd") / "vae"
    diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    ).save_pretrained(folder)
    return folder


def test_folding_is_what_was_trained(vae: Path, tmp_path: Path) -> None:
    decoder = lkd.Modulated(lkd.load_vae(vae), lkd.layer_names(vae), TOY)
    modulation = decoder.modulation(vae, NET.hex())
    parts = {f"{n}.{p}": torch.from_numpy(v) for n, layer in modulation.layers.items()
             for p, v in layer._asdict().items()}  # fmt: skip
    decoder.load(parts)  # as rounded
    issue(vae, tmp_path / "copy", modulation, KEY, 5)
    z = torch.randn((2, 4, 16, 16), generator=torch.Generator().manual_seed(1))
    signs = torch.from_numpy(word(KEY, 5, TOY.bits, NET)).float().expand(2, -1)
    with torch.no_grad():
        changed, plain = decoder.decode(z, signs), decoder.decode(z, None)
        copy = lkd.load_vae(tmp_path / "copy").decode(z).sample
    assert float((changed - plain).abs().max()) > 1e-2
    assert float((changed - copy).abs().max()) < 1e-4
    assert torch.equal(plain, lkd.load_vae(vae).decode(z).sample)  # nothing stays switched on


def test_training_begins_as_loud_as_planned(vae: Path) -> None:
    decoder = lkd.Modulated(lkd.load_vae(vae), lkd.layer_names(vae), TOY)
    pool = lkd.pool_of(decoder.vae, textures, 16)
    lkd._fresh(TOY, decoder, pool)
    words = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (16, 8)) * 2.0 - 1).float()
    words[:, TOY.few :] = 0
    with torch.no_grad():
        made = decoder.decode(pool.latents.float(), words).clamp(-1, 1)
    error = float((made - (pool.pictures.float() / 127.5 - 1)).square().mean())
    assert abs(10 * np.log10(4 / error) - TOY.loud) < 3


def test_an_interrupted_training_is_the_uninterrupted_one(vae: Path, tmp_path: Path) -> None:
    whole = lkd.train(TOY, vae, textures, tmp_path / "a")
    lkd.train(TOY, vae, textures, tmp_path / "b", steps=4)
    parts = lkd.train(TOY, vae, textures, tmp_path / "b")
    assert (whole["step"], parts["step"]) == (6, 6)
    assert whole["curriculum"] == parts["curriculum"]
    assert whole["curriculum"][0] == TOY.bits
    assert whole["curriculum"][2] > 0.5  # under attack
    for name in ("reader", "modulation"):
        assert whole[name].keys() == parts[name].keys()
        assert all(torch.equal(value, parts[name][key]) for key, value in whole[name].items())
    with pytest.raises(lkd.FetchError, match="bits of the saved state is 8"):
        lkd.train(TOY._replace(bits=16), vae, textures, tmp_path / "a")


def test_what_is_exported_reads_as_it_was_trained(
    vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And training lowers the loss, goes on from the export, and the check tells its figures."""
    monkeypatch.setattr(lkd, "SAY_EVERY", 20)
    plan = TOY._replace(
        steps=160,
        few=8,
        loud=6.0,
        quiet=6.0,
        enough_at_first=2.0,
        enough=2.0,
        warmup=10,
        rate=4e-3,
        rate_of_words=2e-3,
    )
    work, out = tmp_path / "work", tmp_path / "out"
    with pytest.raises(lkd.FetchError, match="--stage train first"):
        lkd.export(plan, vae, textures, work, out)
    state = lkd.train(plan, vae, textures, work)
    assert state["log"][-1][1] < 0.8 * state["log"][0][1]
    out.mkdir()
    for name in (lkd.FIGURES, lkd.EXTRACTOR, "README.md"):
        (out / name).write_text("of before")
    lkd.export(plan, vae, textures, work, out)
    assert not (out / lkd.FIGURES).exists()  # they were of other weights
    assert (out / "README.md").read_text() == "of before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "work"]
    parts = Parts.load(out)
    told = json.loads((out / lkd.LOG).read_text(encoding="utf-8"))
    assert (told["step"], len(told["log"])) == (160, 8)
    assert sum(f.stat().st_size for f in out.iterdir()) < 200_000

    extractor = Extractor.load(out / "extractor.safetensors")
    reader = lkd.new_reader(plan)
    reader.load_state_dict(state["reader"])
    decoder = lkd.Modulated(lkd.load_vae(vae), lkd.layer_names(vae), plan)
    decoder.load(state["modulation"])
    pool = lkd.pool_of(decoder.vae, textures, 16, first=9)
    words = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (16, 8)) * 2.0 - 1).float()
    with torch.no_grad():
        marked = lkd.to_bytes(decoder.decode(pool.latents.float(), words))
        floats = reader.eval()((marked.float() - 128) / 128).numpy()
    whole = np.stack([extractor.logits(p) for p in marked.permute(0, 2, 3, 1).numpy()]).astype(float)
    assert np.corrcoef(floats.ravel(), whole.ravel())[0, 1] > 0.99
    assert float(((floats > 0) == (words.numpy() > 0)).mean()) > 0.75

    figures = lkd.check(plan, vae, textures, out, copies=8, pictures=2, licenses=50)
    assert figures["bits_clean"] > 0.65
    assert set(figures["bits"]) == set(lkd.attacks.SUITE)
    assert figures["issue_seconds"] > 0
    assert 5 < figures["psnr"] < 40
    assert figures["of"]["decoder"] == decoder_hash(vae)
    assert figures["of"]["extractor"] == parts.extractor.net_hash().hex()
    assert all(len(value) == 64 for value in figures["of"].values())

    further = lkd.train(plan._replace(steps=162), vae, textures, tmp_path / "fresh", exported=out)
    assert (further["step"], further["since"]) == (162, 160)
    name = "decoder.conv_in.right"
    exported = Modulation.load(out / "modulation.safetensors").layers["decoder.conv_in"].right
    assert float((further["modulation"][name] - torch.from_numpy(exported)).abs().max()) < 0.01


def test_what_was_trained_with_another_decoder_is_refused(
    vae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a seller would get the modulation and extractor of the public example, stamped as his own."""
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(vae, tmp_path / "other"))
    file = other / "diffusion_pytorch_model.safetensors"
    save_file({name: value * 1.5 for name, value in load_file(file).items()}, file)
    plan, work, out = TOY._replace(steps=1), tmp_path / "work", tmp_path / "out"
    lkd.train(plan, vae, textures, work)
    lkd.export(plan, vae, textures, work, out)
    both = f"{decoder_hash(vae)}.*{decoder_hash(other)}"
    with pytest.raises(lkd.FetchError, match=both):
        lkd.train(plan, other, textures, work)
    with pytest.raises(lkd.FetchError, match=both):
        lkd.export(plan, other, textures, work, out)
    with pytest.raises(lkd.FetchError, match=both):
        lkd.train(plan, other, textures, tmp_path / "fresh", exported=out)
    shutil.copyfile(vae / "diffusion_pytorch_model.safetensors", file)
    config = json.loads((vae / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(
        json.dumps(config | {"act_fn": "relu"})
    )  # the same weights, other pictures
    both = 'act_fn "relu", the modulation was trained with "silu"'
    with pytest.raises(lkd.FetchError, match=both):
        lkd.train(plan, other, textures, work)
    with pytest.raises(lkd.FetchError, match=both):
        lkd.export(plan, other, textures, work, out)
    with pytest.raises(lkd.FetchError, match=both):
        lkd.train(plan, other, textures, tmp_path / "fresh", exported=out)
    with pytest.raises(UnavailableError, match=both):
        lkd.check(plan, other, textures, out, copies=1, pictures=1, licenses=9)
    assert not (tmp_path / "fresh").exists()
    state = torch.load(work / "lkd.pt", weights_only=True)
    assert state["decoder"] == decoder_hash(vae)
    assert state["config"] == decoder_config(vae)
    capsys.readouterr()
    lkd.train(plan, vae, textures, work)
    assert "nothing left to train" in capsys.readouterr().out
    for name in ("decoder", "config"):
        torch.save({k: v for k, v in state.items() if k != name}, work / "lkd.pt")  # of before it was told
        with pytest.raises(lkd.FetchError, match="is not told"):
            lkd.train(plan, vae, textures, work)
        with pytest.raises(lkd.FetchError, match="is not told"):
            lkd.export(plan, vae, textures, work, out)


def test_the_checkpoint_is_its_owners_and_goes_through_no_link(tmp_path: Path) -> None:
    victim, saved = tmp_path / "victim", tmp_path / "work" / "lkd.pt"
    victim.write_text("of somebody else")
    saved.parent.mkdir()
    saved.with_suffix(".tmp").symlink_to(victim)
    lkd._save(saved, {"step": 1})
    assert victim.read_text() == "of somebody else"
    assert not saved.is_symlink()
    assert saved.stat().st_mode & 0o777 == 0o600
    assert lkd._load(saved) == {"step": 1}
    assert [path.name for path in saved.parent.iterdir()] == ["lkd.pt"]


def test_a_silent_bit_counts_half(vae: Path, tmp_path: Path) -> None:
    """As in the table, so that a net that says nothing has half of the bits right."""
    rng = np.random.default_rng(1)
    for q, share in (([3, -1, 0, 0], 0.75), ([0, 0, 0, 0], 0.5), ([-3, 1, 2, -1], 0.0)):
        signs = np.array([1, -1, -1, 1], dtype=np.int8)
        assert lkd.share_right(np.array(q, dtype=np.int8), signs) == share
    decoder = lkd.Modulated(lkd.load_vae(vae), lkd.layer_names(vae), TOY)
    first = Layer(
        rng.integers(-9, 9, (4, 3, 3, 3)).astype(np.int8), np.zeros(4, np.int32), np.ones(4, np.int32), 2
    )
    mute = Extractor((first,), np.zeros((TOY.bits, 4), np.int8), np.zeros(TOY.bits, np.int64), 1, 64)
    mute.save(tmp_path / lkd.EXTRACTOR)
    decoder.modulation(vae, mute.net_hash().hex()).save(tmp_path / lkd.MODULATION)
    figures = lkd.check(TOY, vae, textures, tmp_path, copies=1, pictures=1, licenses=9)
    assert set(figures["bits"].values()) == {0.5}


def test_folders_that_hold_no_decoder_are_told(vae: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(lkd.FetchError, match="is no AutoencoderKL"):
        lkd.load_vae(tmp_path)
    file = "diffusion_pytorch_model.safetensors"
    lacking = Path(shutil.copytree(vae, tmp_path / "lacking"))
    tensors = load_file(vae / file)
    del tensors["decoder.conv_out.weight"]
    save_file(tensors, lacking / file)
    with pytest.raises(lkd.FetchError, match=r"lacks 1 tensors, decoder\.conv_out\.weight the first"):
        lkd.load_vae(lacking)
    (lacking / file).rename(lacking / "diffusion_pytorch_model.bin")
    with pytest.raises(lkd.FetchError, match="no AutoencoderKL can be loaded"):
        lkd.load_vae(lacking)


def test_an_export_that_fails_leaves_the_former(
    vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(made: Path, out: Path) -> None:
        raise OSError("no space left")

    work, out = tmp_path / "work", tmp_path / "out"
    lkd.train(TOY._replace(steps=1), vae, textures, work)
    lkd.export(TOY, vae, textures, work, out)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (out, *out.iterdir())}
    assert modes.pop("out") == 0o700  # secret like a key
    assert set(modes.values()) == {0o600}
    told, net = json.loads((out / lkd.LOG).read_text(encoding="utf-8")), Parts.load(out).extractor
    assert told["net_hash"] == net.net_hash().hex()
    assert told["detector_hash"] == net.spec_hash().hex()
    assert told["detector_hash_turned"] == net.spec_hash(wide=True).hex()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    lkd.train(TOY._replace(steps=2), vae, textures, work)
    monkeypatch.setattr(lkd, "take_place", full)
    with pytest.raises(OSError, match="no space left"):
        lkd.export(TOY, vae, textures, work, out)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.undo()
    missing: list[str] = []

    def look(event: str, arguments: tuple[object, ...]) -> None:
        """Before whatever touches the file system: a kill could come there."""
        if looking and event.startswith(("os.", "shutil.", "open")) and not (out / lkd.EXTRACTOR).is_file():
            missing.append(f"{event} {arguments}")

    looking = [True]  # a hook stays
    sys.addaudithook(look)
    try:
        lkd.export(TOY, vae, textures, work, out)
    finally:
        looking.clear()
    assert not missing
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert after.keys() == before.keys()
    assert after != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "work"]


def test_the_curriculum_waits_while_bits_are_wrong() -> None:
    plan = lkd.Plan()
    start = now = lkd.Curriculum(plan.few, plan.loud)
    for _ in range(500):
        now = now.after(0.6, plan)
    assert now[:3] == start[:3]
    for _ in range(200):
        now = now.after(1.0, plan)
    assert plan.few < now.active < plan.bits
    assert (now.decibels, now.strength) == (plan.loud, 0.0)
    for _ in range(6000):
        now = now.after(1.0, plan)
    assert (now.active, now.decibels, now.strength) == (plan.bits, plan.quiet, 1.0)
    assert 10 * np.log10(4 / now.budget) == pytest.approx(plan.quiet)


def test_the_rates_rise_and_fall() -> None:
    plan = lkd.Plan()
    assert plan.rate_at(plan.steps // 2, 0) == 1.0
    assert plan.rate_at(plan.steps, 0) == pytest.approx(0.05)
    assert plan.rate_at(300, 300) == pytest.approx(1 / plan.warmup)


@pytest.mark.parametrize("quality", [80, 50, 25])
def test_the_proxy_is_near_jpeg(quality: int) -> None:
    picture = textures(1, 1).pictures[0]
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    real = np.asarray(Image.open(file), dtype=float)
    made = (
        lkd.to_bytes(lkd.jpeg(lkd.to_tensor(picture[None]), quality))[0]
        .permute(1, 2, 0)
        .numpy()
        .astype(float)
    )
    assert ((made - real) ** 2).mean() < 0.35 * ((picture - real) ** 2).mean()


@pytest.mark.parametrize("distort", [d for d, _ in lkd.DISTORTIONS], ids=lambda d: str(d.__name__))
def test_attacks_let_the_gradient_through(distort: Any) -> None:
    x = lkd.to_tensor(textures(2, 2).pictures).requires_grad_(True)
    made = distort(x, 0.7, np.random.default_rng(4))
    again = distort(x, 0.7, np.random.default_rng(4))
    assert made.shape == x.shape
    assert torch.equal(made, again)
    made.square().sum().backward()
    assert x.grad is not None
    assert float((x.grad != 0).float().mean()) > 0.3


def test_the_peer_is_fine_tuned_to_its_message_and_resumes(vae: Path, tmp_path: Path) -> None:
    plan = TOY._replace(steps=4)
    whole = peer.train_extractor(plan, textures, tmp_path / "a")
    peer.train_extractor(plan, textures, tmp_path / "b", steps=2)
    parts = peer.train_extractor(plan, textures, tmp_path / "b")
    assert all(torch.equal(v, parts["reader"][k]) for k, v in whole["reader"].items())
    with pytest.raises(ValueError, match="8 pictures cannot whiten 8 bits"):
        peer.whitened(plan, whole, textures(0, 8).pictures)
    made = peer.whitened(plan, whole, textures(0, 64).pictures)
    with torch.no_grad():
        out = made.logits(lkd.to_tensor(textures(0, 64).pictures)).double().numpy()
    shared = np.cov(out.T)
    assert np.abs(shared - np.eye(8)).max() < 0.05
    message = np.array([0, 1, 1, 0, 1, 0, 0, 1], dtype=np.uint8)
    pool = lkd.pool_of(lkd.load_vae(vae), textures, 16)
    copy = peer.finetune(vae, made, message, pool, steps=12)
    before, after = pool.pictures, lkd.to_bytes(copy.decode(pool.latents.float()).sample)
    shares = [
        float((peer.read(made, p.permute(0, 2, 3, 1).numpy()) == message).mean()) for p in (before, after)
    ]
    assert shares[1] > shares[0] + 0.1
    original = lkd.load_vae(vae)
    assert torch.equal(original.encoder.conv_in.weight, copy.encoder.conv_in.weight)
