#!/usr/bin/env bash
# Installs the system packages that the build, the demo and the tests need, and grpcurl; only what is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

check_rust() {
    local want have
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$( { rustc --version 2>/dev/null || true; } | awk '{ print $2 }')
    if [ -z "$have" ] || ! have cargo; then
        die "Rust $want or later is needed and was not found.
  With rustup:            curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
  Or a distribution that has it, for instance: apt-get install rustup && rustup default stable
  Then open a new shell, and run this again."
    fi
    version_at_least "${have%%-*}" "$want" || die "Rust $want or later is needed; this is $have.
  With rustup: rustup update stable
  Without:     install rustup (https://rustup.rs), since the distribution's Rust is too old."
}

grpcurl_bin=$(realpath -m "$TARGET_DIR/e2e-cache/bin")
missing=()
# need PACKAGE TEST…: PACKAGE unless the test succeeds.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
sbin() { [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ] || have "$1"; }

find_missing() {
    need gcc have cc
    need libc6-dev test -e /usr/include/stdio.h
    need make have make
    need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
    need qemu-system-x86 have qemu-system-x86_64
    need qemu-system-data test -e /usr/share/qemu/qboot.rom
    need docker-registry have docker-registry
    need skopeo have skopeo
    need umoci have umoci
    need mmdebstrap have mmdebstrap
    need busybox-static static_busybox
    need e2fsprogs sbin e2fsck
    need apt have apt-get
    need util-linux have setpriv
    need tar have tar
    need python3-venv python3 -c 'import ensurepip, venv'
    need openssh-client have ssh
    need rsync have rsync
    need golang-go has_grpcurl_or_go
}

# The tests look for grpcurl where programs are, and there.
has_grpcurl() { have grpcurl || [ -x "$grpcurl_bin/grpcurl" ]; }
has_grpcurl_or_go() { has_grpcurl || have go; }

# No distribution packages grpcurl. Without it the tests that use it are skipped, by name.
install_grpcurl() {
    local go version=v1.9.3
    if has_grpcurl; then return; fi
    go=$(go env GOVERSION 2>/dev/null) || {
        echo "grpcurl: there is no Go to build it with"
        return
    }
    version_at_least "${go#go}" 1.21 || version=v1.9.1
    say "go install grpcurl@$version"
    GOBIN=$grpcurl_bin go install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$version" ||
        echo "grpcurl: it could not be built"
}

# The busybox of the test images runs without a library.
static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }

# Kernels are fetched by name from apt's lists, which must be there and not point to files long gone.
lists_are_fresh() {
    [ -n "$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -2 -print -quit 2>/dev/null)" ] &&
        apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1
}

packages() {
    have apt-get || die "apt-get was not found: install qemu-system-x86, docker-registry, skopeo, umoci, busybox (static), e2fsprogs and a C compiler by hand"
    find_missing
    local root=()
    if [ "$(id -u)" != 0 ] && have sudo; then root=(sudo); fi
    if ! lists_are_fresh; then
        say "apt-get update"
        "${root[@]}" apt-get -q update || [ "${#missing[@]}" = 0 ] || die "the package lists could not be fetched"
    fi
    if [ "${#missing[@]}" = 0 ]; then
        echo "system packages: nothing is missing"
        return
    fi
    say "apt-get install ${missing[*]}"
    [ "$(id -u)" = 0 ] || have sudo || die "as root, run: apt-get install ${missing[*]}"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y install --no-install-recommends "${missing[@]}" </dev/null
}

main() {
    check_rust
    packages
    install_grpcurl
}

main
