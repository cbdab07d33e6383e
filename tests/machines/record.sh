#!/bin/sh
# Prints what this machine says about its cores, nodes, interrupts and network cards, as one text:
# what tests/tuning.rs makes a folder of, and what to send along with a question about placement.
# Nothing but such facts is in it, and the machine's addresses.
set -eu

# Absolute paths: each file that can be read, with its content.
files() {
    for path in "$@"; do
        [ -r "$path" ] && [ -f "$path" ] || continue
        content=$(cat "$path" 2>/dev/null) || continue
        printf '=== %s\n%s\n' "${path#/}" "$content"
    done
}
# The lines of a file that match.
lines() { printf '=== %s\n' "${1#/}"; grep -E "$2" "$1" || true; }

echo "# Recorded by record.sh."
cpu=/sys/devices/system/cpu
files $cpu/online $cpu/isolated $cpu/nohz_full $cpu/cpu[0-9]*/topology/core_cpus_list
files /sys/devices/system/node/online /sys/devices/system/node/node[0-9]*/cpulist
for meminfo in /sys/devices/system/node/node[0-9]*/meminfo; do
    [ ! -r "$meminfo" ] || lines "$meminfo" 'MemFree:|Inactive\(file\):'
done
lines /proc/meminfo '^MemAvailable:'
lines /proc/self/status '^Cpus_allowed_list:'
lines /proc/self/limits '^Max open files'
lines /proc/self/cgroup '^0::|[:,](cpuset|cpu)[:,]'
# Our control groups and those above them, of both versions.
groups() {
    grep -E '^0::|[:,](cpuset|cpu)[:,]' /proc/self/cgroup | while IFS=: read -r _ names path; do
        while :; do
            for mount in "" /unified /cpuset /cpu "/$names"; do echo "/sys/fs/cgroup$mount$path"; done
            [ "${path:-/}" != / ] || break
            path=${path%/*}
        done
    done | sed 's,//*,/,g; s,/$,,' | sort -u
}
for folder in $(groups); do
    for name in cpuset.cpus.effective cpuset.effective_cpus cpu.max cpu.cfs_quota_us cpu.cfs_period_us \
        memory.max memory.current; do
        files "$folder/$name"
    done
done
echo "=== addresses"
ip -o address | sed 's/ scope .*//'
interrupts="^ *CPU"
for net in /sys/class/net/*; do
    files "$net/threaded" "$net"/queues/rx-*/rps_cpus
    for lower in "$net"/lower_*; do
        [ ! -e "$lower" ] || printf '=== %s -> %s\n' "${lower#/}" "sys/class/net/${lower##*/lower_}"
    done
    device=$(readlink -f "$net/device") && [ -d "$device" ] || continue
    printf '=== %s -> %s\n' "${net#/}/device" "${device#/}"
    # The interrupts of a virtual device stand with its bus.
    while [ ! -e "$device/msi_irqs" ] && [ "$device" != /sys/devices ] && [ -n "$device" ]; do
        files "$device/numa_node"
        device=${device%/*}
    done
    files "$device/numa_node" "$device"/msi_irqs/*
    for irq in "$device"/msi_irqs/*; do
        [ -e "$irq" ] || continue
        interrupts="$interrupts|^ *${irq##*/}:"
        files "/proc/irq/${irq##*/}/smp_affinity_list" "/proc/irq/${irq##*/}/effective_affinity_list"
    done
done
lines /proc/interrupts "$interrupts"
for comm in /proc/[0-9]*/comm; do
    grep -q '^napi/' "$comm" 2>/dev/null || continue
    files "$comm"
    lines "${comm%comm}status" '^Cpus_allowed_list:'
done
