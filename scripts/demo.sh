#!/usr/bin/env bash
# The whole of banger in one go: install, build, serve a real image from a real registry, pull it, boot it, run
# commands in it, clean up. Its state is kept in .demo, so that a second run is quick. `demo.sh --stop` ends what
# an interrupted run left.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

demo=$PWD/.demo
dist=$PWD/$TARGET_DIR/dist
[ "${TARGET_DIR#/}" = "$TARGET_DIR" ] || dist=$TARGET_DIR/dist
export BANGER_HOST=unix://$demo/s
stages=()
begun=$EPOCHREALTIME

# stage NAME COMMAND…: a heading, the command, its time.
stage() {
    local name=$1 from=$EPOCHREALTIME
    shift
    say "$name"
    "$@"
    stages+=("$(printf '%-42s %8s s' "$name" "$(since "$from")")")
}

# show WORDS…: a command as a user types it, then what it says.
show() {
    printf '$ banger'
    printf ' %q' "$@"
    printf '\n'
    "$dist/banger" "$@" </dev/null
}

# Ends the process whose number is in a file, if it is still that program, working on the demo's state.
end() {
    local file=$1 program=$2 pid
    [ -f "$file" ] || return 0
    pid=$(cat "$file")
    if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$program" ] && grep -qF "$demo/" "/proc/$pid/cmdline"; then
        kill "$pid" 2>/dev/null || true
        wait_for 30 is_gone "$pid" || kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$file"
}
is_gone() { [ ! -e "/proc/$1" ] || [ "$(awk '{ print $3 }' "/proc/$1/stat" 2>/dev/null)" = Z ]; }

clean_up() {
    if [ -S "$demo/s" ] && [ -x "$dist/banger" ]; then
        "$dist/banger" vm list -q 2>/dev/null | xargs -r "$dist/banger" vm remove >/dev/null 2>&1 || true
    fi
    # Also one that the command at the end started: the lock of the state names it.
    if [ -s "$demo/state/bangerd.lock" ]; then cp "$demo/state/bangerd.lock" "$demo/bangerd.pid"; fi
    end "$demo/bangerd.pid" bangerd
    end "$demo/registry.pid" docker-registry
    rm -rf "$demo/image" "$demo/s"
}

start_daemon() {
    mkdir -p "$demo"
    "$dist/bangerd" --state-dir "$demo/state" --socket "$demo/s" >"$demo/bangerd.log" 2>&1 &
    echo $! >"$demo/bangerd.pid"
    wait_for 30 "$dist/banger" host info || {
        tail -n 20 "$demo/bangerd.log" >&2
        die "bangerd did not start; its log is $demo/bangerd.log"
    }
    show host info
}

# The port stays the same from run to run while it is free, and with it the image's name.
start_registry() {
    local port
    port=$(cat "$demo/port" 2>/dev/null || free_port)
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then port=$(free_port); fi
    echo "$port" >"$demo/port"
    reference=127.0.0.1:$port/demo:1
    cat >"$demo/registry.yml" <<YML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $demo/registry}}
http: {addr: '127.0.0.1:$port'}
YML
    docker-registry serve "$demo/registry.yml" >"$demo/registry.log" 2>&1 &
    echo $! >"$demo/registry.pid"
    wait_for 20 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" || die "the registry did not start; see $demo/registry.log"
}

# Debian's busybox in two layers, put together by umoci and pushed by skopeo.
push_image() {
    local image=$demo/image root=$demo/image/root
    rm -rf "$image"
    mkdir -p "$root"/{bin,dev,etc,proc,root,run,sys,tmp,usr/bin,var} "$image/second/srv"
    cp /bin/busybox "$root/bin/busybox"
    local applet
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo 'a file of the second layer' >"$image/second/srv/hello"
    tar --owner=0 --group=0 -cf "$image/1.tar" -C "$root" .
    tar --owner=0 --group=0 -cf "$image/2.tar" -C "$image/second" .
    umoci init --layout "$image/layout"
    umoci new --image "$image/layout:demo"
    umoci raw add-layer --image "$image/layout:demo" "$image/1.tar"
    umoci raw add-layer --image "$image/layout:demo" "$image/2.tar"
    umoci config --image "$image/layout:demo" --config.cmd /bin/sh --config.workingdir /srv \
        --config.env PATH=/bin:/usr/bin --config.env GREETING=hello
    skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$image/layout:demo" "docker://$reference"
    echo "pushed $reference"
}

import_kernel() {
    if [ -n "$("$dist/banger" kernel list -q)" ]; then
        echo "kept from an earlier run:"
        show kernel list
    else
        show kernel import --debian-package linux-image-cloud-amd64
    fi
}

pull() {
    show image pull "$reference"
    show image list
}

run_one() {
    show run -v "$reference" -- uname -a
}

run_more() {
    echo "\$ echo piped in | banger run $reference -- sh -c 'cat; echo \$GREETING; cat hello; exit 7'"
    local code=0
    echo piped in | "$dist/banger" run "$reference" -- sh -c 'cat; echo $GREETING; cat hello; exit 7' || code=$?
    echo "exit code: $code"
    [ "$code" = 7 ] || die "the command's exit code was expected"
}

keep_one() {
    show vm create --name demo "$reference"
    show vm exec demo -- sh -c 'echo a file in the VM > /root/note; id; df -h / | tail -n 1'
    echo "\$ id=\$(banger session start -q demo -- sh -c 'for i in 1 2 3; do echo tick \$i; sleep 1; done')"
    local id
    id=$("$dist/banger" session start -q demo -- sh -c 'for i in 1 2 3; do echo tick $i; sleep 1; done')
    show session log --follow "$id"
    show session list demo
    show vm stop demo
    show vm start demo
    show vm exec demo -- cat /root/note
    show vm remove demo
}

if [ "${1:-}" = --stop ]; then
    clean_up
    exit 0
fi
trap 'clean_up' EXIT
trap 'exit 130' INT TERM
stage "system packages" scripts/setup.sh
stage "build" scripts/build.sh release "$dist"
clean_up
stage "start bangerd" start_daemon
stage "start a registry" start_registry
stage "make an image and push it" push_image
stage "import a kernel" import_kernel
stage "pull the image" pull
stage "run a command in a new VM" run_one
stage "run another, with input and exit code" run_more
stage "a VM that stays: sessions, stop, start" keep_one
stage "clean up" clean_up
trap - EXIT

say "times"
printf '%s\n' "${stages[@]}"
printf '%-42s %8s s\n' "all" "$(since "$begun")"
cat <<GO

Everything is cleaned up but the state in .demo. A shell in a VM of your own, with the same state:

cd $PWD && { $dist/bangerd --state-dir $demo/state --socket $demo/s 2>$demo/bangerd.log & sleep 1; BANGER_HOST=$BANGER_HOST $dist/banger run $reference; }
GO
