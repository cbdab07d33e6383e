"""Boots systemd as a first process in namespaces of its own, lets inside.py play there, and proves
that nothing of the machine around it was changed. See ../systemd.sh."""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

from guard import Guard

HERE = pathlib.Path(__file__).resolve().parent
CONFIG = """[media]
streams_max = {streams}
ports = "58000-59999"
[sip]
udp = ["127.0.0.1:5700"]
tcp = ["127.0.0.1:5700"]
[store]
dir = "/var/lib/floortape"
ring_seconds = 10
"""


class Machine:
    """The namespaces with systemd in them; gone on exit, with every process and mount."""

    def __init__(self, binary, settings, streams):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="floortape-systemd-"))
        self.binary = binary
        self.group = f"floortape-test-{os.getpid()}"
        self.outer = None
        (self.work / "floortape.toml").write_text(CONFIG.format(streams=2 * streams))
        if settings:
            (self.work / "drop-in.conf").write_text("\n".join(["[Service]", *settings, ""]))

    def __enter__(self):
        groups = self.work / "groups"
        groups.mkdir()
        # The control group is made first and entered, so that the new cgroup namespace ends at it.
        script = (f"mount -t cgroup2 cgroup2 {groups} && mkdir {groups}/{self.group} && "
                  f"echo 0 > {groups}/{self.group}/cgroup.procs && umount {groups} && exec "
                  "unshare --pid --fork --kill-child --mount --net --uts --ipc --cgroup "
                  f"{HERE}/boot.sh {self.work} {self.binary} {HERE.parent.parent}")
        with (self.work / "said").open("w") as said:
            self.outer = subprocess.Popen(["unshare", "--mount", "sh", "-c", script],
                                          stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.outer.poll() is None:
            if self.booted():
                return self
            time.sleep(0.02)
        said = (self.work / "said").read_text()
        self.__exit__()
        raise SystemExit(f"systemd does not start in namespaces of its own: {said}")

    def booted(self):
        try:
            return os.readlink(f"/proc/{self.first()}/exe").endswith("/systemd")
        except OSError:
            return False  # between two programs

    def first(self):
        path = f"/proc/{self.outer.pid}/task/{self.outer.pid}/children"
        try:
            children = pathlib.Path(path).read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def inside(self, *words):
        """A command in the machine, by the number of its first process."""
        return ["nsenter", "-t", str(self.first()), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w",
                "--", *words]

    def __exit__(self, *_):
        first = self.first()
        if first is not None:
            # With the first process of a PID namespace all others end.
            os.kill(first, signal.SIGKILL)
        else:
            self.outer.kill()
        self.outer.wait()
        script = ('mount -t cgroup2 cgroup2 "$1" && find "$1/$2" -depth -type d -exec rmdir {} + && '
                  'umount "$1"')
        end = time.monotonic() + 10
        while subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh",
                              str(self.work / "groups"), self.group],
                             stderr=subprocess.DEVNULL, check=False).returncode:
            if time.monotonic() > end:
                print(f"control group {self.group} cannot be removed", file=sys.stderr)
                break
            time.sleep(0.05)
        shutil.rmtree(self.work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/systemd.sh")
    parser.add_argument("binary", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("scenario", nargs="*", help="only these")
    parser.add_argument("--kills", type=int, default=2, help="kills of each kind [2]")
    parser.add_argument("--streams", type=int, default=40, help="streams of each call load [40]")
    parser.add_argument("--seconds", type=int, default=240, help="give up after that long [240]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="another setting of [Service], such as KillMode=mixed")
    parser.add_argument("--shell", action="store_true", help="a shell in the machine instead")
    args = parser.parse_intermixed_args()
    # A terminated test still has to take its machine down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    guard = Guard()
    code = 1
    with Machine(args.binary, args.set, args.streams) as machine:
        words = ["/bin/sh"] if args.shell else [
            "/usr/bin/python3", "-u", "/test/systemd/inside.py", "--kills", str(args.kills),
            "--streams", str(args.streams), *args.scenario]
        player = subprocess.Popen(machine.inside(*words))
        try:
            code = player.wait(timeout=None if args.shell else args.seconds)
        except subprocess.TimeoutExpired:
            print(f"FAIL  not within {args.seconds} s")
            player.kill()
            player.wait()
    changed = guard.differences(5)
    for line in changed:
        print(f"FAIL  the machine around the test: {line}")
    if not changed:
        print("ok    around             sysctls, mounts, control groups, units and users are as before")
    return 1 if changed or code else 0


if __name__ == "__main__":
    sys.exit(main())
