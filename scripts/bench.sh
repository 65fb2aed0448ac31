#!/usr/bin/env bash
# Measures banger on this machine, as docs/performance.md has it. `bench.sh PART…` measures parts only.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/setup.sh
missing=()
[ -x /usr/sbin/debootstrap ] || missing+=(debootstrap)
have curl || missing+=(curl)
have zstd || missing+=(zstd)
if [ "${#missing[@]}" != 0 ]; then
    root=()
    if [ "$(id -u)" != 0 ]; then root=(sudo); fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}"
fi
scripts/python-env.sh
scripts/build.sh release "$TARGET_DIR/dist"
cargo build --release --package banger-e2e --bin bench
PATH=$PATH:/usr/sbin BANGER_DIST=$TARGET_DIR/dist "$TARGET_DIR/release/bench" "$@" | tee "$TARGET_DIR/bench.md"
