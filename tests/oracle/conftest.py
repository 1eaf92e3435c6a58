"""Roles and things of the oracle tests."""

from __future__ import annotations

import pytest
from tiny_model import Registered, make_registered


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """The model of most tests; nobody changes it."""
    return make_registered(tmp_path_factory.mktemp("registered") / "model")
