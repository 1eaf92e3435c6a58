"""What detectors read of attacked pictures, kept: one file a condition, never made twice.

A condition is one attack; its file is benchmarks/pictures/NAME.npz with an item for every picture and mark. An item's
key is a hash of everything that made it (Origin), so what was made with another model, other code or other parameters
has another key, is never taken for this, and leaves the file when something is added. Files are written whole, under
another name first: an interrupted run leaves what it finished.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

FOLDER: Final = Path(__file__).resolve().parent / "pictures"
LIMIT: Final = 12_000_000  # bytes of all files together
Place = tuple[str, int]  # mark, picture


class StoreError(ValueError):
    """A file of inversions is not what it should be."""


@dataclass(frozen=True)
class Origin:
    """What makes an item."""

    model: str  # hash of the weights
    code: str  # what the making code does
    settings: Mapping[str, Any]  # of drawing and inverting
    condition: Mapping[str, Any]  # the attack and its parameters
    mark: str
    prompt: str
    index: int  # of the picture; its noise and the attack's draws follow from it

    def key(self) -> str:
        """32 hex digits."""
        return hashlib.sha256(json.dumps(vars(self), sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Item:
    """What was read of one picture."""

    key: str
    mark: str
    index: int
    data: bytes

    @property
    def place(self) -> Place:
        """Mark and picture: one item each in a file."""
        return self.mark, self.index


class Store:
    """The items of all conditions in one folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def path(self, condition: str) -> Path:
        """The file of a condition."""
        return self.folder / f"{condition}.npz"

    def read(self, condition: str) -> dict[Place, Item]:
        """All items of a condition, whatever made them. Raises StoreError on a damaged file."""
        path = self.path(condition)
        if not path.exists():
            return {}
        try:
            with np.load(path, allow_pickle=False) as file:
                rows = json.loads(zlib.decompress(file["items"].tobytes()))
                body = zlib.decompress(file["body"].tobytes(), wbits=-15)
            if sum(length for *_, length in rows) != len(body):
                raise ValueError("its items are not as long as it says")
            items, at = [], 0
            for key, mark, index, length in rows:
                items.append(Item(str(key), str(mark), int(index), body[at : at + length]))
                at += length
        except (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            raise StoreError(f"{path} is damaged ({error}); take it from the repository again") from error
        return {item.place: item for item in items}

    def current(self, condition: str, keys: Mapping[Place, str]) -> dict[Place, Item]:
        """The items whose key is the expected one."""
        return {place: item for place, item in self.read(condition).items() if keys.get(place) == item.key}

    def add(self, condition: str, items: Iterable[Item], keys: Mapping[Place, str]) -> None:
        """Puts items into the condition's file; those in it that have other keys than these go."""
        merged = {**self.current(condition, keys), **{item.place: item for item in items}}
        found = [merged[place] for place in sorted(merged)]
        rows = [[item.key, item.mark, item.index, len(item.data)] for item in found]
        # values of inverted noise have no repeats to find: their code alone is 2 % over their entropy
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        body = packer.compress(b"".join(item.data for item in found)) + packer.flush()
        out = io.BytesIO()
        np.savez(
            out,
            items=np.frombuffer(zlib.compress(json.dumps(rows).encode(), 9), dtype=np.uint8),
            body=np.frombuffer(body, dtype=np.uint8),
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(condition)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(out.getvalue())
        scratch.replace(path)

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.npz"))
