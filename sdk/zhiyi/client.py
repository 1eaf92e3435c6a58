"""`Zhiyi`: the record on one chain, grouped by what one does. `AsyncZhiyi` has the same methods, awaited."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zhiyi.access import Access
from zhiyi.cases import Cases
from zhiyi.chain import Chain, ChainOptions
from zhiyi.deployment import Deployment
from zhiyi.errors import ConfigError
from zhiyi.evidence import Evidence
from zhiyi.group import Group
from zhiyi.identity import Identity
from zhiyi.licenses import Licenses
from zhiyi.models import Models
from zhiyi.offers import Offers
from zhiyi.oracles import Oracles
from zhiyi.orders import Orders
from zhiyi.oversight import Oversight
from zhiyi.regulator import Regulator
from zhiyi.royalties import Royalties
from zhiyi.sales import Sales
from zhiyi.signers import Signer
from zhiyi.usage import Usage
from zhiyi.vault import Vault

if TYPE_CHECKING:  # loaded only by those who use them
    from zhiyi.deliveries import Deliveries
    from zhiyi.ipfs import Ipfs


class Zhiyi:
    """A client of one deployment. Groups: models, offers, orders, licenses, vault, royalties, cases, oracles, …"""

    def __init__(self, chain: Chain, deployment: Deployment, *, ipfs: Ipfs | str | None = None) -> None:
        """For chains made elsewhere; `connect` is the usual way."""
        self.chain = chain
        self.deployment = deployment
        self._ipfs = ipfs
        chain.know(deployment)
        self.models = Models(chain, deployment)
        self.offers = Offers(chain, deployment)
        self.orders = Orders(chain, deployment)
        self.licenses = Licenses(chain, deployment)
        self.sales = Sales(chain, deployment)
        self.vault = Vault(chain, deployment)
        self.usage = Usage(chain, deployment)
        self.royalties = Royalties(chain, deployment)
        self.cases = Cases(chain, deployment)
        self.oracles = Oracles(chain, deployment)
        self.evidence = Evidence(chain, deployment)
        self.identity = Identity(chain, deployment)
        self.regulator = Regulator(chain, deployment)
        self.oversight = Oversight(chain, deployment)
        self.access = Access(chain, deployment)

    @classmethod
    def connect(
        cls,
        rpc: str | Sequence[str],
        *,
        signer: Signer | None = None,
        deployment: str | Path | Deployment | None = None,
        ipfs: Ipfs | str | None = None,
        options: ChainOptions | None = None,
    ) -> Self:
        """A client of the deployment behind `rpc`: an object, a file, else as `Deployment.load` finds it.

        Checks chain id and code. Raises ConfigError, WrongChain, IntegrityError, RpcUnavailable.
        """
        if isinstance(deployment, Deployment):
            book = deployment
        else:
            book = Deployment.load(deployment, chain_id=lambda: Chain(rpc, options=options).chain_id)
        chain = Chain(rpc, signer=signer, chain_id=book.chain_id, options=options)
        book.check(chain)
        return cls(chain, book, ipfs=ipfs)

    @property
    def account(self) -> str:
        """The signer's address. Raises ConfigError without a signer."""
        return self.chain.account

    @cached_property
    def delivery(self) -> Deliveries:
        """Checking, decrypting and disputing copies."""
        from zhiyi.deliveries import Deliveries

        return Deliveries(self.chain, self.deployment, lambda: self.ipfs)

    @cached_property
    def ipfs(self) -> Ipfs:
        """The IPFS client. Raises ConfigError when the client was made without one."""
        if self._ipfs is None:
            raise ConfigError(
                "this needs IPFS: connect with ipfs='http://127.0.0.1:5001', or run `zhiyi ipfs`"
            )
        if isinstance(self._ipfs, str):
            from zhiyi.ipfs import Ipfs

            return Ipfs(self._ipfs)
        return self._ipfs

    def with_signer(self, signer: Signer | None) -> Zhiyi:
        """The same deployment and endpoints for another account."""
        chain = Chain(
            self.chain.urls, signer=signer, chain_id=self.chain.chain_id, options=self.chain.options
        )
        return Zhiyi(chain, self.deployment, ipfs=self._ipfs)


class _AsyncGroup:
    """A group whose public methods run in a worker thread."""

    def __init__(self, group: Group | Chain) -> None:
        self._group = group

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method = getattr(self._group, name)
        if name.startswith("_") or not inspect.ismethod(method):
            raise AttributeError(f"{type(self._group).__name__} has no async method {name!r}")

        async def run(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(partial(method, *args, **kwargs))

        return run


class AsyncZhiyi:
    """`Zhiyi` for asyncio: every method of every group is awaited and runs in a worker thread."""

    def __init__(self, client: Zhiyi) -> None:
        self.sync = client
        self.chain = _AsyncGroup(client.chain)
        self.models = _AsyncGroup(client.models)
        self.offers = _AsyncGroup(client.offers)
        self.orders = _AsyncGroup(client.orders)
        self.licenses = _AsyncGroup(client.licenses)
        self.sales = _AsyncGroup(client.sales)
        self.vault = _AsyncGroup(client.vault)
        self.usage = _AsyncGroup(client.usage)
        self.royalties = _AsyncGroup(client.royalties)
        self.cases = _AsyncGroup(client.cases)
        self.oracles = _AsyncGroup(client.oracles)
        self.evidence = _AsyncGroup(client.evidence)
        self.identity = _AsyncGroup(client.identity)
        self.regulator = _AsyncGroup(client.regulator)
        self.oversight = _AsyncGroup(client.oversight)
        self.access = _AsyncGroup(client.access)
        self.delivery = _AsyncGroup(client.delivery)

    @classmethod
    async def connect(
        cls,
        rpc: str | Sequence[str],
        *,
        signer: Signer | None = None,
        deployment: str | Path | Deployment | None = None,
        ipfs: Ipfs | str | None = None,
        options: ChainOptions | None = None,
    ) -> Self:
        """As `Zhiyi.connect`."""
        make = partial(Zhiyi.connect, rpc, signer=signer, deployment=deployment, ipfs=ipfs, options=options)
        return cls(await asyncio.to_thread(make))

    @property
    def account(self) -> str:
        """The signer's address."""
        return self.sync.account
