#!/usr/bin/env bash
# Fuzzes the readers of hostile bytes, FUZZ_SECONDS (60) for each target of fuzz/. Where cargo-fuzz or a nightly
# compiler is missing it says so and runs the same functions over mutations of the corpus instead.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}

missing=
cargo fuzz --version >/dev/null 2>&1 || missing="cargo-fuzz (cargo install cargo-fuzz --locked)"
cargo +nightly --version >/dev/null 2>&1 || missing="${missing:+$missing and }a nightly compiler (rustup toolchain install nightly)"
if [ -n "$missing" ]; then
    echo "SKIPPED: libFuzzer: missing: $missing"
    echo "running mutations of the corpus instead, $seconds s for each target"
    BANGER_FUZZ_SECONDS=$seconds BANGER_FUZZ_MUTATIONS=1000000000 cargo test -p banger-image --test image -- fuzz:: --nocapture
    exit
fi

for target in $(cargo +nightly fuzz list); do
    echo "== $target"
    # The sanitizer is for unsafe code, of which there is none here; without it ten times as much is tried.
    cargo +nightly fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -max_len=16384 -timeout=20 -rss_limit_mb=2048
done
