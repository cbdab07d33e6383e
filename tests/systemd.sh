#!/bin/sh
# The shipped unit (appliance/systemd/) under a real systemd, in mid-call: killed, hung, stopped,
# restarted. systemd is the first process of PID, mount, network, UTS, IPC and cgroup namespaces of
# its own; the test fails if sysctls, mounts, control groups, units or users around it changed.
#
# For a bare Debian 12, as root: installs systemd and python3 by apt-get, builds, plays.
#   tests/systemd.sh                        all scenarios, 2 kills of each kind, under 3 minutes
#   tests/systemd.sh --kills 20 --seconds 3600 [--streams 500]   the long form
#   tests/systemd.sh media stop             only these
#   tests/systemd.sh --set KillMode=mixed   with other settings of the unit
#   tests/systemd.sh --shell                a shell in the machine
#   FLOORTAPE=path tests/systemd.sh         this binary instead of a build
# Exit 1 where a claim failed.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "run as root: namespaces and a service manager need it" >&2; exit 2; }

missing=
for package in systemd python3 iproute2 util-linux mount; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
if [ -n "$missing" ]; then
    echo "installing:$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2
    # shellcheck disable=SC2086
    apt-get install -y -q --no-install-recommends $missing >&2
fi
if [ -z "${FLOORTAPE:-}" ]; then
    cargo build --release --quiet
    FLOORTAPE="${CARGO_TARGET_DIR:-target}/release/floortape"
fi
exec /usr/bin/python3 -u tests/systemd/run.py "$FLOORTAPE" "$@"
