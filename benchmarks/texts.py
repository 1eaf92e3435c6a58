"""Generated texts, kept: one file a series, token ids and what the mark cost, never made twice.

A series is one method at one strength on fixed prompts. Its file is benchmarks/texts/NAME.jsonl.gz, one text a line.
A text's key is a hash of everything that made it (Origin), so that a text made by other code, another model or from
another prompt has another key and is not taken for this one. Files are written whole, under another name first, after
each batch: an interrupted run leaves the batches it finished.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

FOLDER: Final = Path(__file__).resolve().parent / "texts"
LIMIT: Final = 10_000_000  # bytes of all files together


class StoreError(ValueError):
    """A file of texts is not what it should be."""


@dataclass(frozen=True)
class Origin:
    """What makes a text: the same origin gives the same tokens."""

    model: str  # the weights' pin
    series: str
    method: Mapping[str, Any]  # parameters, temperature, tokens, rows of a batch
    code: str  # what the generating code does, see text_series.code_version
    prompt: str  # hash of the prompts of the whole batch: a row's kernels see its neighbours
    index: int  # of the text in the series; draws and payload follow from it

    def key(self) -> str:
        """32 hex digits."""
        fields = {**vars(self), "method": dict(self.method)}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Text:
    """A generated text without its prompt."""

    key: str
    index: int
    tokens: tuple[int, ...]
    cost: float  # sum over the steps of E_marked[-ln p] - E_plain[-ln p] at the same contexts, nats

    def to_line(self) -> str:
        """One line of JSON; ids are 16-bit little-endian in base64."""
        raw = np.array(self.tokens, dtype="<u2").tobytes()
        packed = base64.b64encode(raw).decode()
        return json.dumps({"key": self.key, "index": self.index, "cost": self.cost, "tokens": packed})

    @staticmethod
    def from_line(line: str) -> Text:
        """Inverse of to_line. Raises StoreError."""
        try:
            found = json.loads(line)
            raw = base64.b64decode(found["tokens"], validate=True)
            tokens = tuple(np.frombuffer(raw, dtype="<u2").tolist())
            return Text(str(found["key"]), int(found["index"]), tokens, float(found["cost"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"not a line of a text: {line[:80]!r} ({error})") from error


class Store:
    """The texts of all series in one folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def path(self, series: str) -> Path:
        """The file of a series."""
        return self.folder / f"{series}.jsonl.gz"

    def read(self, series: str) -> dict[int, Text]:
        """All texts of a series by index, whatever made them. Raises StoreError on a damaged file."""
        path = self.path(series)
        if not path.exists():
            return {}
        try:
            lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise StoreError(f"{path} is damaged ({error}); take it from the repository again") from error
        return {text.index: text for text in map(Text.from_line, lines)}

    def current(self, series: str, keys: Mapping[int, str]) -> dict[int, Text]:
        """The texts whose key is the expected one. keys: by index."""
        return {i: text for i, text in self.read(series).items() if keys.get(i) == text.key}

    def add(self, series: str, texts: Iterable[Text]) -> None:
        """Puts texts into the series' file, in place of those with the same index."""
        merged = {**self.read(series), **{text.index: text for text in texts}}
        body = "".join(merged[i].to_line() + "\n" for i in sorted(merged)).encode()
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(series)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(gzip.compress(body, 9, mtime=0))
        scratch.replace(path)

    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.jsonl.gz"))
