#!/usr/bin/env bash
# The whole suite. Each step is run, whatever the others said, unless nothing after it can work. Ends with
# `N passed, N failed, N skipped`, and with 0 if and only if nothing failed.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

quick=no
[ "${1:-}" = --quick ] && quick=yes
passed=0
failed=0
skipped=0
problems=()
log=$TARGET_DIR/test.log
mkdir -p "$TARGET_DIR"
begun=$EPOCHREALTIME

# step NAME COMMAND…: counts as one test.
step() {
    local name=$1 from=$EPOCHREALTIME
    shift
    say "$name"
    if "$@"; then
        passed=$((passed + 1))
        echo "$name: ok ($(since "$from") s)"
    else
        failed=$((failed + 1))
        problems+=("$name")
        echo "$name: FAILED ($(since "$from") s)"
        return 1
    fi
}

# skip NAME WHY
skip() {
    say "$1"
    echo "SKIPPED: $1: $2"
    skipped=$((skipped + 1))
    problems+=("skipped: $1: $2")
}

finish() {
    say "all of it took $(since "$begun") s"
    [ ${#problems[@]} = 0 ] || printf '%s\n' "${problems[@]}"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] || exit 1
    exit 0
}

# count LOG: adds up what cargo's test binaries and the suite with VMs said. A test that says it cannot run here
# is counted as skipped, though its binary had to report it as passed.
count() {
    local p f s n
    read -r p f s n < <(awk '
        /^test result: / { p += $4; f += $6; s += $8 }
        /^e2e: [0-9]+ passed/ { p += $2; f += $4; s += $6 }
        /^SKIPPED / { n++ }
        END { print p + 0, f + 0, s + 0, n + 0 }' "$1")
    passed=$((passed + p - n))
    failed=$((failed + f))
    skipped=$((skipped + s + n))
    while read -r line; do problems+=("$line"); done < <(
        grep -aE '^(test .* \.\.\. (FAILED|ignored)|e2e failed: |e2e .* \.\.\. SKIPPED|SKIPPED )' "$1" | sort -u
    )
}

# How long one run of cargo's tests may take: a test that hangs is a failure that is told, not one that is waited for.
RUN_MINUTES=40
# Failures that are run again, alone. More than these are no accident of a busy machine.
AGAIN_MAX=3

# failures LOG: the names of the tests that failed.
failures() {
    sed -nE 's/^test (.*) \.\.\. FAILED$/\1/p; s/^e2e failed: //p' "$1" | sort -u
}

# flaky TEST: failed, and passed when it was run again.
flaky() {
    failed=$((failed - 1))
    passed=$((passed + 1))
    problems+=("flaky: $1 failed, and passed when it was run again")
}

# again NAME LOG ARGUMENTS…: runs the few tests that failed once more, alone, and tells which of them pass then. Such
# a test is a defect too, of its own or of what it tests: it is listed as flaky, by name, and never hidden.
again() {
    local name=$1 first=$2 second=$TARGET_DIR/test-again.log test
    shift 2
    local tests=()
    readarray -t tests < <(failures "$first")
    [ ${#tests[@]} -gt 0 ] && [ ${#tests[@]} -le "$AGAIN_MAX" ] || return 0
    # What is left over is no test: it is what the others did.
    ! grep -qxF nothing_is_left_behind <(printf '%s\n' "${tests[@]}") || return 0
    say "$name: once more, what failed"
    timeout --kill-after=10 "${RUN_MINUTES}m" cargo test --workspace --no-fail-fast "$@" "${tests[@]}" 2>&1 | tee "$second"
    for test in "${tests[@]}"; do
        if grep -qaF -e "test $test ... ok" -e "e2e $test ... ok" "$second" &&
            ! failures "$second" | grep -qxF "$test"; then
            flaky "$test"
        fi
    done
}

# cargo_test NAME ARGUMENTS… [-- ARGUMENTS OF THE TESTS…]: runs, shows and counts. A run that breaks off before its
# tests counts as failed.
cargo_test() {
    local name=$1 from=$EPOCHREALTIME status before=$failed
    shift
    say "$name"
    timeout --kill-after=10 "${RUN_MINUTES}m" cargo test --workspace --no-fail-fast "$@" 2>&1 | tee "$log"
    status=$?
    count "$log"
    if [ "$status" != 0 ] && [ "$failed" = "$before" ]; then
        failed=$((failed + 1))
        problems+=("$name broke off")
    elif [ "$status" != 0 ] && [ "$status" -lt 124 ]; then
        case $* in
            "--test e2e") again "$name" "$log" --test e2e -- ;;
            *) again "$name" "$log" -- --exact ;;
        esac
    fi
    echo "$name: $(since "$from") s"
}

# python_tests NAME ARGUMENTS…: runs pytest and counts by its report. A run that breaks off counts as failed. What fails
# is run once more, as with cargo's tests.
python_tests() {
    local name=$1 from=$EPOCHREALTIME report ids=$TARGET_DIR/python-failed p="" f=0 s=0 test
    report=$(realpath -m "$TARGET_DIR/python.xml")
    shift
    say "$name"
    if ! python_run "$report" "$ids" "$@" && [ "$f" = 0 ]; then
        failed=$((failed + 1))
        problems+=("$name broke off")
    fi
    passed=$((passed + ${p:-0}))
    failed=$((failed + f))
    skipped=$((skipped + s))
    while read -r line; do problems+=("$line"); done <"$log"
    if [ "$f" -gt 0 ] && [ "$f" -le "$AGAIN_MAX" ]; then
        local tests=()
        readarray -t tests <"$ids"
        say "$name: once more, what failed"
        for test in "${tests[@]}"; do
            if python_run "$report" "$ids" -q "$test" && [ "$p" = 1 ]; then
                flaky "$test"
            fi
        done
    fi
    echo "$name: $(since "$from") s"
}

# python_run REPORT IDS ARGUMENTS…: sets p, f and s to what passed, failed and was skipped.
python_run() {
    local report=$1 ids=$2 status counts
    shift 2
    rm -f "$report"
    : >"$ids"
    : >"$log"
    p="" f=0 s=0
    (cd sdk-python && timeout --kill-after=10 "${RUN_MINUTES}m" "$python" -m pytest --junitxml="$report" "$@")
    status=$?
    counts=$("$python" sdk-python/tests/count.py "$report" "$log" "$ids") || return 1
    read -r p f s <<<"$counts"
    return "$status"
}

# The Python SDK, in a virtual environment of the versions in its lock file.
python_sdk() {
    local venv
    venv=$(realpath -m "$TARGET_DIR/python")
    if ! python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        skip "python" "no Python 3.10 or later with venv is installed (apt-get install python3-venv)"
        return
    fi
    python=$venv/bin/python
    step "python environment" scripts/python-env.sh || return
    step "python format" "$python" -m ruff format --check --quiet sdk-python
    step "python lint" "$python" -m ruff check --quiet sdk-python
    step "python generated code" "$python" sdk-python/generate.py --check
    step "python types" sh -c "cd sdk-python && '$python' -m mypy --cache-dir '$venv/mypy'"
    if [ "$quick" = yes ]; then
        python_tests "python tests without VMs" -q -m "not real"
    else
        BANGER_DIST=$dist BANGER_E2E=require python_tests "python tests" -q
    fi
}

shell_syntax() {
    local file
    for file in scripts/*.sh .ci/run; do bash -n "$file" || return 1; done
    ! have shellcheck || shellcheck -S warning scripts/*.sh .ci/run
}

lint_protos() {
    local buf
    if have buf; then
        buf=(buf)
    elif have npm; then
        # From the npm registry, kept by npm's own cache.
        buf=(npm exec --yes --package @bufbuild/buf@1.75.0 -- buf)
    else
        return 0
    fi
    "${buf[@]}" lint
}

# Every `make TARGET` and every path that the documents name exists. Prose makes other things.
documents() {
    local target path bad=0
    for target in $(grep -ohE '(`|\$ )make [a-z]+' README.md ARCHITECTURE.md CONTRIBUTING.md docs/*.md | sed 's/.* //' | sort -u); do
        grep -qE "^$target:" Makefile || {
            echo "the documents name \`make $target\`, which is not there"
            bad=1
        }
    done
    while IFS=: read -r file path; do
        [ -e "$(dirname "$file")/$path" ] || {
            echo "$file links to $path, which is not there"
            bad=1
        }
    done < <(grep -oHE '\]\([^)#:]+\)' README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md docs/*.md | sed -E 's/\]\((.*)\)/\1/')
    return "$bad"
}

step "format" cargo fmt --all --check
step "shell scripts" shell_syntax
step "documents" documents
if have buf || have npm; then step "proto lint" lint_protos; else skip "proto lint" "neither buf nor npm is installed"; fi
if cargo clippy --version >/dev/null 2>&1; then
    step "clippy" cargo clippy --workspace --all-targets -- -D warnings
else
    skip "clippy" "the clippy component is not installed"
fi
if [ "$quick" = yes ]; then
    BANGER_E2E=done cargo_test "tests of the crates"
    python_sdk
    finish
fi
# Absolute: cargo runs each test in its own package.
dist=$(realpath -m "$TARGET_DIR/dist-test")
step "build" scripts/build.sh dev "$dist" || finish
BANGER_DIST=$dist BANGER_E2E=require cargo_test "tests with real VMs" --test e2e
BANGER_E2E=done BANGER_TEST_KERNEL_DIR=$(realpath -m "$TARGET_DIR/e2e-cache/guest-kernel") \
    cargo_test "tests of the crates" -- --show-output
python_sdk
finish
