"""The page: server-rendered, read-only, Chinese and English, from the index alone. `create_app` makes it."""

from zhiyi_frontend.app import create_app
from zhiyi_frontend.config import PageConfig

__all__ = ["PageConfig", "create_app"]
