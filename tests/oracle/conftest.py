"""Roles and things of the oracle tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chain_stage import DAY, Node, Sold, World, build_world
from tiny_model import Registered, make_registered

from zhiyi.ipfs_node import EmbeddedNode


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
