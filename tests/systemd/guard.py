"""What systemd as a first process could change on the machine around it, read before and after: the
test fails if any of it differs, and puts back what was written."""

import os
import pathlib
import time

# These count or tick by themselves.
TICKING = ("fs/dentry-state", "fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/aio-nr",
           "kernel/ns_last_pid", "kernel/pty/nr", "kernel/random/", "net/netfilter/nf_conntrack_count",
           "fs/quota/")
FOLDERS = ("/etc/systemd", "/run/systemd", "/var/lib/systemd", "/usr/lib/systemd/system")
FILES = ("/etc/passwd", "/etc/group", "/etc/hostname", "/etc/machine-id")


class Guard:
    def __init__(self):
        self.before = self.read()

    def read(self):
        return {"sysctl": sysctls(), "mounts": mounts(), "control groups": groups(),
                "files": files(), "name": os.uname().nodename}

    def differences(self, patience):
        """Lines that tell what differs; waits a while for other programs' mounts to go."""
        end = time.monotonic() + patience
        while True:
            after = self.read()
            found = [line for what in self.before
                     for line in compare(what, self.before[what], after[what])]
            if not found or time.monotonic() > end:
                break
            time.sleep(0.25)
        for name, value in self.before["sysctl"].items():
            if after["sysctl"].get(name, value) != value:
                pathlib.Path("/proc/sys", name).write_text(value)
        return found


def compare(what, before, after):
    if isinstance(before, str):
        return [f"{what}: {before} became {after}"] if before != after else []
    if isinstance(before, dict):
        return [f"{what}: {name}: {before.get(name)!r} became {after.get(name)!r}"
                for name in sorted(before.keys() | after.keys())
                if before.get(name) != after.get(name)]
    return [f"{what}: {one} {'came' if one in after else 'went'}"
            for one in sorted(before ^ after)]


def sysctls():
    found = {}
    for folder, _, names in os.walk("/proc/sys"):
        for name in names:
            path = os.path.join(folder, name)
            short = os.path.relpath(path, "/proc/sys")
            if short.startswith(TICKING) or not os.access(path, os.R_OK):
                continue
            try:
                found[short] = pathlib.Path(path).read_text(errors="replace")
            except OSError:
                continue
    return found


def mounts():
    """Without number, parent and device, which are the kernel's own numbering, and without what
    other tests mount in temporary folders of theirs at the same time."""
    found = set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            place = line.split()[4]
            if not place.startswith("/tmp/") or "floortape-systemd-" in place:
                found.add(" ".join(line.split()[3:]))
    return found


def groups():
    return {folder for folder, _, _ in os.walk("/sys/fs/cgroup")}


def files():
    found = {name: pathlib.Path(name).read_text(errors="replace")
             for name in FILES if os.path.isfile(name)}
    for root in FOLDERS:
        for folder, folders, names in os.walk(root):
            for name in folders + names:
                path = os.path.join(folder, name)
                facts = os.lstat(path)
                found[path] = (facts.st_mode, facts.st_uid, facts.st_size, facts.st_mtime_ns)
    return found
