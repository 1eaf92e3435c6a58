"""ZhiYiChain SDK: Python's view of the record.

from zhiyi import Zhiyi, KeystoreSigner
z = Zhiyi.connect("http://127.0.0.1:8545", signer=KeystoreSigner("key.json", password), deployment="deployment.json")
print(z.models.get(1).owner)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zhiyi.errors import ZhiyiError

if TYPE_CHECKING:  # loaded on first use: `import zhiyi` stays quick
    from zhiyi.client import AsyncZhiyi, Zhiyi
    from zhiyi.deployment import Deployment
    from zhiyi.signers import CallbackSigner, KeystoreSigner, LocalSigner, Signer, UnsignedSigner

__version__ = "0.1.0"

__all__ = [
    "AsyncZhiyi",
    "CallbackSigner",
    "Deployment",
    "KeystoreSigner",
    "LocalSigner",
    "Signer",
    "UnsignedSigner",
    "Zhiyi",
    "ZhiyiError",
    "__version__",
]

_HOMES = {
    "AsyncZhiyi": "zhiyi.client",
    "CallbackSigner": "zhiyi.signers",
    "Deployment": "zhiyi.deployment",
    "KeystoreSigner": "zhiyi.signers",
    "LocalSigner": "zhiyi.signers",
    "Signer": "zhiyi.signers",
    "UnsignedSigner": "zhiyi.signers",
    "Zhiyi": "zhiyi.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zhiyi' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
