#!/usr/bin/env bash
# Carries WORKSPACE_CASES random git histories into workspaces and back, kills the halves at WORKSPACE_KILLS points, and
# carries BANGER_VM_HISTORIES histories through a real VM.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

export WORKSPACE_CASES=${WORKSPACE_CASES:-1000} WORKSPACE_KILLS=${WORKSPACE_KILLS:-100}
export WORKSPACE_FIRST=${WORKSPACE_FIRST:-$RANDOM$RANDOM} BANGER_VM_HISTORIES=${BANGER_VM_HISTORIES:-30}
say "$WORKSPACE_CASES histories from $WORKSPACE_FIRST on, $WORKSPACE_KILLS kills"
cargo test --package banger-workspace --features client --test workspace -- round_trip:: kill:: --nocapture

scripts/setup.sh
dist=$(realpath -m "$TARGET_DIR/dist-test")
scripts/build.sh dev "$dist"
say "$BANGER_VM_HISTORIES histories through a VM"
BANGER_DIST=$dist BANGER_E2E=require cargo test --package banger-e2e --test e2e -- histories_go_into
