"""`python -m zhiyi.delivery` compiles the hashing loops and says what came of it; no compiler is no failure."""

from __future__ import annotations

import subprocess
import sys

from zhiyi.delivery import native


def main() -> int:
    """Build, check and report."""
    try:
        built = native.build()
        lanes = "through OpenSSL" if native.Library(built).uses_openssl else "two messages at a time"
    except (OSError, ValueError, subprocess.CalledProcessError) as exc:
        native.discard()
        sys.stdout.write(f"{exc}: hashing stays in Python, which is slower but the same\n")
        return 0
    sys.stdout.write(f"compiled hashing is ready: {built.name}, {lanes}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
