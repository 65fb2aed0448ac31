#!/usr/bin/env bash
# Measures banger on this machine, as docs/performance.md has it. `bench.sh PART…` measures parts only.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/setup.sh
if ! have debootstrap && [ ! -x /usr/sbin/debootstrap ]; then
    root=()
    if [ "$(id -u)" != 0 ]; then root=(sudo); fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends debootstrap
fi
scripts/build.sh release "$TARGET_DIR/dist"
cargo build --release --package banger-e2e --bin bench
PATH=$PATH:/usr/sbin BANGER_DIST=$TARGET_DIR/dist "$TARGET_DIR/release/bench" "$@" | tee "$TARGET_DIR/bench.md"
