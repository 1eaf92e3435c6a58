"""Fair delivery: speed of preparing, verifying and decrypting a copy; gas of a complaint; the choices not taken.

    python benchmarks/delivery.py            # 2 GiB, 5 rounds, about six minutes; writes docs/benchmarks/delivery.*
    python benchmarks/delivery.py --quick    # 64 MiB, writes nothing

Speeds are CPU seconds of one core, user and system, the median of the rounds, each phase in a process of its own
without torch. The floor reads the same files and passes them through SHA-256 and ChaCha20 without keeping anything;
ours reads, hashes twice, builds both trees, encrypts and writes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from report import Row, environment, write

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
KEY = bytes(range(1, 33))
TENSORS = 64
MARKED = range(8, 20)  # 12 of 64 tensors in one interval: 19 % of the bytes
COMPLAINT_GAS = 158_000  # budget of the whole transaction
SETTLEMENT_GAS = 45_000  # what the escrow does around the check, order calldata included, as planned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="64 MiB and two rounds; writes nothing")
    parser.add_argument("--phase", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        print(json.dumps(PHASES[options.phase[0]](Path(options.phase[1]))))
        return 0
    size, rounds = (64 * MIB, 2) if options.quick else (2048 * MIB, 5)
    rows = speed_rows(size, rounds) + hash_rows() + gas_rows()
    for row in rows:
        met = {None: "", True: "met", False: "NOT MET"}[row.met]
        print(f"{row.id:34} {row.value:12.4g} {row.unit:10} {met}")
    if not options.quick:
        from zhiyi.delivery import native

        hashing = (
            "compiled loops" if native.LIBRARY else "Python (build zhiyi.delivery.native for more speed)"
        )
        write(
            "delivery",
            "python benchmarks/delivery.py",
            rows,
            environment=environment(hardfork="prague", hashing=hashing, bytes=str(size)),
            notes=NOTES,
        )
    return 0 if all(row.met is not False for row in rows) else 1


# -- speed ---------------------------------------------------------------------------------------


def speed_rows(size: int, rounds: int) -> list[Row]:
    """prepare_ratio, verify_ratio, peak_mib, ecies_ratio and the same ratios without the compiled loops."""
    with tempfile.TemporaryDirectory(prefix="zhiyi-bench-") as name:
        folder = Path(name)
        make_bundles(folder, size)
        runs: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for phase in ("floor", "prepare", "verify", "seal"):
                runs.setdefault(phase, []).append(run_phase(phase, folder))
        for phase in ("prepare", "verify"):
            runs[f"{phase}_python"] = [run_phase(phase, folder, native=False)]
    floor = [run["cpu"] for run in runs["floor"]]
    gib = size / (1024 * MIB)

    def ratio(phase: str) -> float:
        return statistics.median(low / run["cpu"] for low, run in zip(floor, runs[phase], strict=False))

    def speed(phase: str) -> float:
        return gib / statistics.median(run["cpu"] for run in runs[phase])

    against = ("SHA-256 + ChaCha20 pass, GiB/s", speed("floor"))
    peak = max(run["mib"] for phase in ("prepare", "verify") for run in runs[phase])
    rows = [
        Row("peak_mib", "largest resident memory of preparing and verifying", peak, "MiB", rounds, 300, "<="),
    ]
    for phase, what in (("prepare", "preparing a copy"), ("verify", "verifying and decrypting a copy")):
        name = f"{phase}_ratio"
        rows.append(Row(name, f"{what}, over the pass", ratio(phase), "ratio", rounds, 0.4, ">=", against))
        rows.append(Row(f"{phase}_speed", what, speed(phase), "GiB/s", rounds, against=against))
        python = ratio(f"{phase}_python")
        rows.append(Row(f"{name}_python", f"{what}, without the compiled loops", python, "ratio", 1))
    sealing = "sealing the package to the buyer, over the pass"
    rows.append(Row("ecies_ratio", sealing, ratio("seal"), "ratio", rounds, against=against))
    return rows


def make_bundles(folder: Path, size: int) -> None:
    """A registered and a marked bundle of `size` bytes of noise; the marked one differs in every chunk of its range."""
    from zhiyi.delivery import Bundle, Tree, range_for_tensors

    base, marked = folder / "base", folder / "marked"
    base.mkdir()
    marked.mkdir()
    each = size // TENSORS // 2 * 2
    header: dict[str, Any] = {
        f"layers.{k}.weight": {
            "dtype": "BF16",
            "shape": [each // 2],
            "data_offsets": [k * each, (k + 1) * each],
        }
        for k in range(TENSORS)
    }
    text = json.dumps(header).encode()
    noise = random.Random(1)
    with open(base / "model.safetensors", "wb") as one, open(marked / "model.safetensors", "wb") as other:
        for file in (one, other):
            file.write(struct.pack("<Q", len(text)) + text)
        for k in range(TENSORS):
            data = noise.randbytes(each)
            one.write(data)
            other.write(noise.randbytes(each) if k in MARKED else data)
    for place in (base, marked):
        (place / "config.json").write_text('{"model_type": "synthetic"}')
    bundle = Bundle.scan(base)
    declared = range_for_tensors(base, bundle, [f"layers.{k}.weight" for k in MARKED], max_change_ppm=50_000)
    tree = Tree(bundle.leaves(base))
    tree.save(folder / "registered_leaves.bin")
    (folder / "registered.json").write_text(
        json.dumps({"root": tree.root.hex(), "range": declared.to_json()})
    )


def run_phase(phase: str, folder: Path, *, native: bool = True) -> dict[str, float]:
    """One phase in a process of its own, on one core."""
    made = subprocess.run(
        [sys.executable, __file__, "--phase", phase, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ZHIYI_NATIVE": "1" if native else "0"},
    )
    result: dict[str, float] = json.loads(made.stdout)
    return result


def phase_floor(folder: Path) -> dict[str, float]:
    """One plain SHA-256 + ChaCha20 pass over the files."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    start = time.process_time()
    digest, stream = sha256(), Cipher(algorithms.ChaCha20(KEY, bytes(16)), None).encryptor()
    data, out = bytearray(256 * 1024), bytearray(256 * 1024)
    for path in sorted((folder / "marked").iterdir()):
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(data):
                digest.update(memoryview(data)[:got])
                stream.update_into(memoryview(data)[:got], memoryview(out)[:got])
    return _cost(start)


def phase_prepare(folder: Path) -> dict[str, float]:
    """`zhiyi.delivery.prepare`, loading the registered leaves included."""
    from zhiyi.delivery import DeclaredRange, Tree, prepare

    # what the round before wrote goes only now, so that writing meets memory that the machine already has: in a
    # virtual machine the first touch of a page is the host's work but counts as ours
    shutil.rmtree(folder / "package", ignore_errors=True)
    start = time.process_time()
    value = json.loads((folder / "registered.json").read_text())
    tree = Tree((folder / "registered_leaves.bin").read_bytes())
    declared = DeclaredRange.from_json(value["range"])
    made = prepare(folder / "marked", folder / "base", tree, declared, KEY, folder / "package")
    cost = _cost(start)
    figures = {name: v.hex() if isinstance(v, bytes) else v for name, v in made.figures._asdict().items()}
    (folder / "figures.json").write_text(json.dumps(figures))
    return cost


def phase_verify(folder: Path) -> dict[str, float]:
    """`verify_before_payment` and `decrypt`, loading the registered leaves included."""
    from zhiyi.delivery import DeclaredRange, DeliveryFigures, Registered, decrypt, verify_before_payment

    shutil.rmtree(folder / "copy", ignore_errors=True)
    start = time.process_time()
    value = json.loads((folder / "registered.json").read_text())
    said = json.loads((folder / "figures.json").read_text())
    roots = bytes.fromhex(said.pop("copy_root")), bytes.fromhex(said.pop("delivery_root"))
    figures = DeliveryFigures(*roots, **said)
    declared = DeclaredRange.from_json(value["range"])
    leaves = (folder / "registered_leaves.bin").read_bytes()
    registered = Registered(bytes.fromhex(value["root"]), declared.hash(), leaves, declared)
    verify_before_payment(folder / "package", figures, registered)
    del leaves, registered
    decrypt(folder / "package", figures, KEY, folder / "copy")
    return _cost(start)


def phase_seal(folder: Path) -> dict[str, float]:
    """The outer layer to the buyer."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from zhiyi.delivery import ecies

    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    start = time.process_time()
    ecies.seal_folder(folder / "package", [public], folder / "package.sealed")
    cost = _cost(start)
    (folder / "package.sealed").unlink()
    return cost


def _cost(start: float) -> dict[str, float]:
    # VmHWM is of this process alone; getrusage also remembers the process that it was forked from
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return {"cpu": time.process_time() - start, "mib": int(peak.split()[1]) / 1024}


PHASES = {"floor": phase_floor, "prepare": phase_prepare, "verify": phase_verify, "seal": phase_seal}


# -- the choices not taken: hash and keystream off chain -----------------------------------------


def hash_rows() -> list[Row]:
    """What each hash and keystream costs off chain, per chunk size, hashing one call a chunk as Python must."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    from zhiyi.delivery import hashing, native

    data, rounds = memoryview(bytearray(random.Random(2).randbytes(4 * MIB))), 5
    out = bytearray(len(data))

    def rate(work: Any, size: int = len(data)) -> float:
        best = []
        for _ in range(rounds):
            start = time.process_time()
            work()
            best.append(size / (time.process_time() - start) / 1e9)
        return statistics.median(best)

    def ctr(size: int, block: Any) -> Any:
        return lambda: b"".join([block(k) for k in range(size // 64)])

    def chacha() -> None:
        Cipher(algorithms.ChaCha20(KEY, bytes(16)), None).encryptor().update_into(data, out)

    def per_chunk(hash_: Any, size: int) -> Any:
        return lambda: [hash_(data[at : at + size]).digest() for at in range(0, len(data), size)]

    keystream = 256 * 1024
    rows = [
        Row("keystream_chacha20", "ChaCha20, one OpenSSL call", rate(chacha), "GB/s", rounds),
        Row(
            "keystream_blake2b_ctr",
            "BLAKE2b-CTR, one hashlib call for 64 bytes",
            rate(ctr(keystream, lambda k: blake2b(k.to_bytes(8, "little"), key=KEY).digest()), keystream),
            "GB/s",
            rounds,
        ),
    ]
    for size in (256, 512, 704, 896, 1024, 2048, 4096):
        for name, hash_ in (("sha256", sha256), ("blake2b", blake2b)):
            what = f"{name}, one Python call for {size} bytes"
            rows.append(Row(f"hash_{name}_{size}", what, rate(per_chunk(hash_, size)), "GB/s", rounds))
        if native.LIBRARY is not None:
            looped = rate(lambda size=size: hashing.plain_leaves(0, data, size))
            rows.append(
                Row(
                    f"hash_sha256_loop_{size}", f"sha256, compiled loop, {size} bytes", looped, "GB/s", rounds
                )
            )
    return rows


# -- gas -----------------------------------------------------------------------------------------


def gas_rows() -> list[Row]:
    """Gas of the check as a whole transaction, for a 4 GiB file, by chunk size and keystream."""
    from gas_of_delivery import measure

    names = {
        "chacha20": "ChaCha20, seven blocks a word",
        "chacha20_rows": "ChaCha20, one block in four rows of four lanes",
        "blake2b_ctr": "BLAKE2b-CTR, precompile 0x09",
    }
    rows = []
    for keystream, size, gas in measure((256, 512, 704, 896, 1024, 2048, 4096)):
        chosen = (keystream, size) == ("chacha20", 704)
        rows.append(
            Row(
                f"check_gas_{keystream}_{size}",
                f"chunk check alone as a transaction, {names[keystream]}, SHA-256, {size} bytes",
                gas,
                "gas",
                1,
                COMPLAINT_GAS - SETTLEMENT_GAS if chosen else None,
                "<=" if chosen else None,
            )
        )
    return rows


NOTES = f"""
`check_gas_chacha20_704` leaves {SETTLEMENT_GAS:,} gas of the {COMPLAINT_GAS:,} of a whole complaint to the escrow
(order calldata, order hash, state, credits, event); `complaint_4gib` in gas.json is the whole. Why these choices:
docs/decisions/0001-delivery-hash-and-cipher.md.
"""

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    raise SystemExit(main())
