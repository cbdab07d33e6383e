#!/usr/bin/env bash
# Power cuts: a real `serve` on ext4 and XFS whose power goes at any instant, by the file system's
# own shutdown (K4) and on a fault disk that forgets unflushed sectors by seed (K5). What the product
# called durable before the cut must be there after it.
#
#   tests/power.sh                                    30 cuts, 50 streams: the form for CI
#   tests/power.sh --rounds=150 --streams=500 --resume=FILE
#                                                     the long form; FILE keeps a JSON line a round,
#                                                     and what it holds is not done again
#   tests/power.sh --seed=N --rounds=M --from=K       repeats what a failure names
#   tests/power.sh --encrypted=yes                    all stores encrypted; no: none; turns: half of them
#                                                     [turns, where Python has `cryptography`]
#   tests/power.sh recovery [MIB]                     how fast a log of 4096 MiB is taken back
#   tests/power.sh control                            negative control: ack before sync, must go red
#
# Needs root, loop devices, /dev/fuse; installs mkfs.ext4 and mkfs.xfs where apt-get can.
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "power: SKIPPED: $*"; exit 0; }
[ "$(id -u)" = 0 ] || skip "needs root (loop devices, mounts)"
[ -e /dev/loop-control ] || skip "no loop devices here"
command -v python3 >/dev/null || skip "no python3 to judge"
wanted=()
command -v mkfs.ext4 >/dev/null || wanted+=(e2fsprogs)
command -v mkfs.xfs >/dev/null || wanted+=(xfsprogs)
install() { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y "$@"; }
if [ "${#wanted[@]}" -gt 0 ]; then
    install "${wanted[@]}" >/dev/null 2>&1 || skip "cannot install ${wanted[*]}"
fi
encrypted=turns
opens() { python3 -c 'import cryptography' 2>/dev/null; }
if ! opens && ! { install python3-cryptography >/dev/null 2>&1 && opens; }; then
    echo "power: SKIPPED: encrypted stores, no python3-cryptography to judge them"
    encrypted=no
fi
folder=${POWER_FOLDER:-/tmp/floortape-power}
# What a run that was killed has left.
while read -r _ path _; do
    case $path in "$folder"/*) umount -l "$path" ;; esac
done < <(tac /proc/mounts)
losetup -a | sed -n "s|^\([^:]*\):.*($folder/.*|\1|p" | xargs -r -n1 losetup -d
rm -rf "$folder"/life-* "$folder"/selfcheck "$folder"/recovery
mkdir -p "$folder"
ways=both
if [ ! -c /dev/fuse ]; then
    echo "power: SKIPPED: the fault disk, no /dev/fuse here; only shutdowns of the file system"
    ways=shutdown
fi
build() { # cargo's words…: path of the rig
    cargo test --locked --test power --no-run --message-format=json "$@" 2>/dev/null |
        sed -n 's/.*"name":"power".*"executable":"\([^"]*\)".*/\1/p' | tail -1
}
if [ "${1:-}" = recovery ]; then
    exec "$(build --release)" recovery "$folder/recovery" "${2:-4096}"
fi
if [ "${1:-}" = control ]; then
    shift
    [ "$ways" = both ] || skip "the negative control needs the fault disk"
    cargo build --release --quiet --locked --bin floortape || exit 1
    . tests/faulty.sh
    rig=$(CARGO_TARGET_DIR=$faulty build --release --features faults)
    export FLOORTAPE_FAULTS=spool.ack_before_sync
    if "$rig" rounds --folder="$folder" --rounds=12 --ways=fault-disk --encrypted="$encrypted" "$@"; then
        echo "power: FAILED: marks that move before the sync were not noticed"
        exit 1
    fi
    echo "power: the negative control is red, as it should be"
    exit 0
fi
rig=$(build --release)
if [ "$ways" = both ]; then "$rig" selfcheck "$folder/selfcheck" 8; fi
"$rig" rounds --folder="$folder" --ways="$ways" --encrypted="$encrypted" "$@"
