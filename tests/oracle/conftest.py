"""Roles and things of the oracle tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chain_stage import DAY, Node, Sold, World, build_world
from tiny_model import MODEL_KEY, Registered, make_registered

from zhiyi.cli import main
from zhiyi.ipfs_node import EmbeddedNode
from zhiyi.keys import KeyKind, save_key


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """The model of most tests; nobody changes it."""
    return make_registered(tmp_path_factory.mktemp("registered") / "model")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Node, IPFS, contracts, committee and a registered model; shared, because only time moves on."""
    folder = tmp_path_factory.mktemp("world")
    with Node() as node, EmbeddedNode(folder / "ipfs") as ipfs:
        yield build_world(folder, node, ipfs.api)


@pytest.fixture(scope="session")
def sold(world: World) -> Sold:
    """Two purchases from offer to license, eight days ago."""
    service, registered = world.make_fingerprinter(), world.registered
    service.add_model(world.model_id, registered.folder, registered.kit.to_json(), registered.declared)
    first, first_copy = world.buy(service, "buyer1", 1)
    second, second_copy = world.buy(service, "buyer2", 1)
    world.node.travel(8 * DAY)
    return Sold(service, first, second, first_copy, second_copy)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`zhiyi --json` with these words, without a chain; what it prints."""

    def call(*words: str | int | Path, fails: int = 0) -> Any:
        capsys.readouterr()
        try:
            main(["--json", *map(str, words)])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        text = capsys.readouterr().out
        assert code == fails, text
        return json.loads(text) if text.strip() else None

    return call


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Trace key of the model."""
    path = tmp_path / "model.key"
    save_key(path, KeyKind.TRACE, MODEL_KEY, unsafe_plain=True)
    return path
