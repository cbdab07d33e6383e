#!/bin/sh
# Peers that nobody here wrote against a real `floortape serve`: SIPp, ffmpeg, GStreamer, Kamailio, openssl, tshark.
#
# For a bare Debian 12, as root: installs the peers by apt-get, builds, runs tests/peers/run.py.
#   tests/peers.sh             all scenarios
#   tests/peers.sh tamper hold only these
#   FLOORTAPE=path tests/peers.sh  this binary instead of a build
# Last line: "N passed, N failed"; exit 1 where one failed.
set -eu
cd "$(dirname "$0")/.."
# In memory where there is room: how long a busy disk takes to sync is another test's matter.
if [ -z "${TMPDIR:-}" ] &&
    [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -ge 2097152 ] 2>/dev/null; then
    export TMPDIR=/dev/shm
fi

packages="sip-tester ffmpeg gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good
 gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly kamailio kamailio-tls-modules openssl tcpdump tshark python3 python3-cryptography"
missing=
for package in $packages; do
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
[ "$(id -u)" = 0 ] || { echo "run as root: SIPp plays pcap by raw sockets, tcpdump listens" >&2; exit 2; }

if [ -z "${FLOORTAPE:-}" ]; then
    cargo build --release --quiet
    FLOORTAPE="${CARGO_TARGET_DIR:-target}/release/floortape"
fi
exec /usr/bin/python3 -u tests/peers/run.py "$FLOORTAPE" "$@"
