"""The record as database tables: events of one deployment, and the models, orders, licenses and cases they make."""

from zhiyi.index.sync import Counts, Head, Index, SyncReport, preferences_agree
from zhiyi.index.tables import CaseRow, DocumentRow, EventRow, LicenseRow, ModelRow, OrderRow

__all__ = [
    "CaseRow",
    "Counts",
    "DocumentRow",
    "EventRow",
    "Head",
    "Index",
    "LicenseRow",
    "ModelRow",
    "OrderRow",
    "SyncReport",
    "preferences_agree",
]
