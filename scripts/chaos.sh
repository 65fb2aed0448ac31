#!/usr/bin/env bash
# Disturbs VMs at random points: CHAOS_POINTS on VMs without processes, CHAOS_VM_POINTS on real ones. Each campaign
# prints its seed; BANGER_SEED repeats it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

scripts/setup.sh
dist=$(realpath -m "$TARGET_DIR/dist-test")
scripts/build.sh dev "$dist"
say "${CHAOS_POINTS:=20000} points on VMs without processes"
BANGER_POINTS=$CHAOS_POINTS cargo test --package bangerd --test api -- vms_disturbed --nocapture
say "${CHAOS_VM_POINTS:=400} points on real VMs"
BANGER_VM_POINTS=$CHAOS_VM_POINTS BANGER_DIST=$dist BANGER_E2E=require \
    cargo test --package banger-e2e --test e2e -- vms_disturbed
