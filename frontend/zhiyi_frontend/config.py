"""Settings of the page, from the environment. There is no secret among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError

from zhiyi.errors import ConfigError
from zhiyi.types import Value


class PageConfig(Value):
    """What the page shows and how it keeps up."""

    index_url: str = "sqlite:///zhiyi-index.db"
    rpc: tuple[str, ...] = ("http://127.0.0.1:8545",)
    deployment: Path | None = None  # None: the file that ZHIYI_DEPLOYMENT names
    ipfs: str | None = None  # where metadata is read; None: no names are shown
    sync_seconds: Annotated[float, Field(ge=0.2, le=3600)] = 5.0
    page_rows: Annotated[int, Field(ge=1, le=100)] = 25
    coin: Annotated[str, Field(min_length=1, max_length=12)] = "ETH"  # of the chain, 18 decimals
    hosts: tuple[str, ...] = ()  # names under which the page answers; empty: any

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """From ZHIYI_INDEX, ZHIYI_RPC, ZHIYI_DEPLOYMENT, ZHIYI_IPFS and ZHIYI_PAGE_*. Raises ConfigError."""
        deployment = environment.get("ZHIYI_DEPLOYMENT")
        fields: dict[str, object] = {
            "deployment": Path(deployment) if deployment else None,
            "ipfs": environment.get("ZHIYI_IPFS") or None,
        }
        if "ZHIYI_INDEX" in environment:
            fields["index_url"] = environment["ZHIYI_INDEX"]
        if "ZHIYI_PAGE_COIN" in environment:
            fields["coin"] = environment["ZHIYI_PAGE_COIN"]
        for name, key in (("rpc", "ZHIYI_RPC"), ("hosts", "ZHIYI_PAGE_HOSTS")):
            if environment.get(key):
                fields[name] = tuple(part.strip() for part in environment[key].split(",") if part.strip())
        try:
            if "ZHIYI_PAGE_SYNC_SECONDS" in environment:
                fields["sync_seconds"] = float(environment["ZHIYI_PAGE_SYNC_SECONDS"])
            return cls.model_validate(fields)
        except (ValidationError, ValueError) as exc:
            raise ConfigError(f"the page's settings (ZHIYI_PAGE_*) are not usable: {exc}") from exc
