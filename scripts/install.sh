#!/usr/bin/env bash
# install.sh DIST DESTDIR PREFIX: installs; install.sh --remove DESTDIR PREFIX: removes what was installed.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
from=$1
root=$2$3
# bangerd looks for the agent beside itself.
programs=(bangerd banger banger-agent)
completions=(
    "bash:share/bash-completion/completions/banger"
    "zsh:share/zsh/site-functions/_banger"
    "fish:share/fish/vendor_completions.d/banger.fish"
)
config=$2/etc/banger/bangerd.toml
# What banger kernel build builds with; banger has its own copy inside, this one is to begin a change with.
options=$root/share/banger/kernel/guest.config

if [ "$from" = --remove ]; then
    for program in "${programs[@]}"; do rm -f "$root/bin/$program"; done
    for completion in "${completions[@]}"; do rm -f "$root/${completion#*:}"; done
    rm -f "$options"
    rmdir -p --ignore-fail-on-non-empty "$(dirname "$options")" 2>/dev/null || true
    echo "removed; the state under /var/lib/banger and $config are kept"
    exit 0
fi
for program in "${programs[@]}"; do install -D -m 0755 "$from/$program" "$root/bin/$program"; done
for completion in "${completions[@]}"; do
    mkdir -p "$(dirname "$root/${completion#*:}")"
    "$from/banger" completion "${completion%%:*}" >"$root/${completion#*:}"
done
install -D -m 0644 deploy/kernel/guest.config "$options"
[ -e "$config" ] || install -D -m 0644 deploy/bangerd.toml "$config"
echo "installed under $root/bin; start it with: bangerd --config $config"
