#!/usr/bin/env bash
# Losses in known numbers, and what the ledger says of each: dropped by nftables in front of the recorder
# (`net`), in a full socket queue (`socket`), at a ring whose disk stands still (`ring`), and at the end of a
# stream (by the sender reports alone), in the same ten seconds of one call; loss, duplicates and reordering
# by chance; streams that share a socket; and a million forged packets at streams with SRTP.
# What was dropped is counted by nftables, the kernel's socket counters and a reader of the store
# that shares no code with the recorder (failure catalogue F22, F24, F42).
#
#   tests/loss.sh                       all of it, about 75 s
#   tests/loss.sh network shared        only these: causes network shared forged
#   FLOORTAPE=path tests/loss.sh        this binary instead of a build
#
# For a bare Debian 12, as root: makes network namespaces and a loop mount. Prints a line per claim, "ok …" or
# "FAILED …", then "N passed, N failed". KEEP=1 keeps the stores.
set -uo pipefail
cd "$(dirname "$0")/.."
cases=${*:-causes network shared forged}
[ "$(id -u)" = 0 ] || { echo "run as root: makes network namespaces, mounts a loop disk" >&2; exit 2; }
missing=
for pair in ip:iproute2 nft:nftables python3:python3 pgrep:procps mkfs.ext4:e2fsprogs losetup:mount \
    fsfreeze:util-linux; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
if [ -n "$missing" ]; then
    echo "installing:$missing" >&2
    # shellcheck disable=SC2086
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >&2
fi
if [ -z "${FLOORTAPE:-}" ]; then
    cargo build --release --quiet --locked --bin floortape || exit 1
    FLOORTAPE="${CARGO_TARGET_DIR:-target}/release/floortape"
fi
floortape=$(realpath "$FLOORTAPE")
dir=$(mktemp -d "${TMPDIR:-/tmp}/floortape-loss.XXXXXX")
srs=loss$$-srs src=loss$$-src
clean() {
    trap - EXIT INT TERM
    fsfreeze -u "$dir/disk" 2>/dev/null
    # Everything of ours, and nothing else, lives in the two namespaces.
    for space in "$src" "$srs"; do
        ip netns pids "$space" 2>/dev/null | xargs -r kill -KILL 2>/dev/null
        ip netns delete "$space" 2>/dev/null
    done
    if [ -n "${KEEP:-}" ]; then echo "kept: $dir"; else
        umount -l "$dir/disk" 2>/dev/null
        rm -rf "$dir"
    fi
}
trap clean EXIT
trap 'exit 130' INT TERM

ip netns add "$srs" && ip netns add "$src" || exit 1
ip -n "$srs" link add near type veth peer name far netns "$src" || exit 1
# Large packets fill a queue with few of them.
ip -n "$srs" link set near mtu 9000 && ip -n "$src" link set far mtu 9000
ip -n "$srs" address add 198.18.79.2/24 dev near
ip -n "$src" address add 198.18.79.1/24 dev far
for one in "$srs near" "$srs lo" "$src far" "$src lo"; do
    # shellcheck disable=SC2086
    set -- $one
    ip -n "$1" link set "$2" up
done
truncate -s 1G "$dir/disk.img"
mkfs.ext4 -q -m 0 -E lazy_itable_init=0,lazy_journal_init=0 "$dir/disk.img"
mkdir "$dir/disk"
mount -o loop "$dir/disk.img" "$dir/disk" || exit 1
# shellcheck disable=SC2086
ip netns exec "$src" python3 -B tests/loss/run.py "$floortape" "$dir" "$dir/disk" "$srs" 198.18.79.2 198.18.79.1 $cases
