#!/usr/bin/env bash
# Tortures the sessions of a real VM: bangerd is killed TORTURE_KILLS times meanwhile. The run prints its seed;
# BANGER_SEED repeats it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/setup.sh
dist=$(realpath -m "$TARGET_DIR/dist-test")
scripts/build.sh dev "$dist"
say "${TORTURE_KILLS:=300} kills of bangerd under 50 sessions"
BANGER_TORTURE_KILLS=$TORTURE_KILLS BANGER_DIST=$dist BANGER_E2E=require \
    cargo test --package banger-e2e --test e2e -- under_torture
