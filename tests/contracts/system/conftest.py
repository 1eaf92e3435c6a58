"""The court's own test helpers know its files, verdicts and shares."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "court"))
