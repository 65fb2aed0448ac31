#!/usr/bin/env bash
# The virtual environment of the Python SDK in target/python: the versions of its lock file, from pip's ordinary index,
# and the SDK itself as it stands. Made anew when what it is made of has changed.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
venv=$(realpath -m "$TARGET_DIR/python")
stamp=$(cat sdk-python/requirements.lock sdk-python/pyproject.toml <(python3 --version; pwd) | sha256sum)
[ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
rm -rf "$venv"
python3 -m venv "$venv"
pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" -r sdk-python/requirements.lock
"${pip[@]}" --no-deps --no-build-isolation -e sdk-python
echo "$stamp" >"$venv/stamp"
