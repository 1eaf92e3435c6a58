#!/usr/bin/env bash
# One environment from the lock files: .venv (Python) and node_modules (compiler, node, contract libraries). Safe to repeat: when
# nothing changed it does nothing. TORCH=... chooses another torch requirement (by default the pinned release).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
die() { printf '[setup] error: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3; do
    if "$candidate" -c 'import sys; raise SystemExit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "no Python 3.11 or 3.12 found (looked for python3.11, python3.12, python3); install one or set PYTHON=/path/to/python"
}

python=$(find_python)
command -v node >/dev/null || die "node is not installed; Node 20 or newer is needed for the Solidity compiler"
node_major=$(node -p 'process.versions.node.split(".")[0]')
[ "$node_major" -ge 20 ] || die "node $(node --version) is too old; Node 20 or newer is needed"
command -v npm >/dev/null || die "npm is not installed"
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || say "note: the pinned Anvil and Kubo packages are for Linux x86-64; on $(uname -s)-$(uname -m) put anvil on PATH and set ZHIYI_IPFS"

stamp=$({ cat requirements.lock package-lock.json pyproject.toml sdk/zhiyi/delivery/native.c; "$python" --version; } | sha256sum | cut -c1-16)
if [ "$(cat .venv/.ready 2>/dev/null || true)" = "$stamp" ] && [ -d node_modules ]; then
  say "environment is up to date"
  exit 0
fi

if [ ! -x .venv/bin/python ]; then
  say "creating .venv with $("$python" --version)"
  "$python" -m venv .venv || die "could not create a virtual environment; is the venv module of $python installed (python3-venv)?"
fi
say "installing uv"
.venv/bin/python -m pip install -q --disable-pip-version-check 'uv>=0.9,<1'
if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
  say "installing ${TORCH:-torch==2.13.0} (the largest package: this takes a minute or two)"
  .venv/bin/python -m pip install -q --disable-pip-version-check "${TORCH:-torch==2.13.0}"
fi
say "installing $(grep -cE '^[a-z0-9]' requirements.lock) locked Python packages"
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --require-hashes -r requirements.lock
.venv/bin/uv pip install -q --python .venv/bin/python --no-deps -e .
if command -v "${CC:-cc}" >/dev/null; then
  say "compiling the delivery's hashing loops (optional: Python does the same, slower)"
  .venv/bin/python -m zhiyi.delivery >/dev/null || say "not compiled; Python does it"
fi
say "installing locked npm packages"
npm ci --no-audit --no-fund --ignore-scripts --silent
echo "$stamp" >.venv/.ready
say "done"
