#!/usr/bin/env bash
# build.sh release|dev|agent DIR: builds, and puts the binaries into DIR, the agent beside bangerd.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
profile=$1
dist=$2

# A fixed address saves the relocations of a large program at each start, under emulation a fifth of it.
build_agent() {
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static" \
        cargo build --release --package banger-agent --target "$AGENT_TARGET"
    put "$TARGET_DIR/$AGENT_TARGET/release/banger-agent"
}

# put FILE…: replaces by rename, since a running program cannot be written to.
put() {
    local file
    mkdir -p "$dist"
    for file in "$@"; do
        cp "$file" "$dist/.new.$$"
        mv "$dist/.new.$$" "$dist/${file##*/}"
    done
}

case $profile in
agent) build_agent ;;
release)
    build_agent
    cargo build --release --package bangerd --package banger-cli
    put "$TARGET_DIR/release/bangerd" "$TARGET_DIR/release/banger"
    echo "built: $dist/bangerd $dist/banger $dist/banger-agent"
    ;;
dev)
    build_agent
    # With all targets, so that the tests that follow use the same build of every dependency.
    cargo build --workspace --all-targets
    put "$TARGET_DIR/debug/bangerd" "$TARGET_DIR/debug/banger"
    ;;
*) die "usage: build.sh release|dev|agent DIR" ;;
esac
