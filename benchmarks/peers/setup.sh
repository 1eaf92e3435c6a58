#!/usr/bin/env bash
# Environments of the benchmark's peers, under build/peers. Safe to repeat: when nothing changed it does nothing.
# A peer is installed without its dependencies, which it would pin to old releases; it sees the project's packages instead.
set -euo pipefail
cd "$(dirname "$0")/../.."

for lock in benchmarks/peers/*.lock; do
  name=$(basename "$lock" .lock)
  place=build/peers/$name
  stamp=$({ cat "$lock" benchmarks/peers/setup.sh; .venv/bin/python --version; } | sha256sum | cut -c1-16)
  if [ "$(cat "$place/.ready" 2>/dev/null || true)" = "$stamp" ]; then
    echo "[peers] $name is up to date"
    continue
  fi
  echo "[peers] creating $place"
  rm -rf "$place"
  .venv/bin/python -m venv --without-pip "$place"
  shared=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  own=$("$place/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "import site; site.addsitedir('$shared')" >"$own/project.pth"
  .venv/bin/uv pip install -q --python "$place/bin/python" --no-deps --require-hashes -r "$lock"
  echo "$stamp" >"$place/.ready"
done
