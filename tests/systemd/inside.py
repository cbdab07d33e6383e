"""Plays inside the machine of run.py: the shipped unit under a real systemd, real SRTP calls, kills.
Every scenario ends with a stop of the unit, and is judged from disk by the verbs and by checker.py."""

import argparse
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import traceback

UNIT = "floortape.service"
STORE = pathlib.Path("/var/lib/floortape")
CONFIG = pathlib.Path("/etc/floortape/floortape.toml")
SIP = ("127.0.0.1", 5700)
GROUP = pathlib.Path("/sys/fs/cgroup/system.slice") / UNIT
PATIENCE = 20
KEEPER, MEDIA, CONTROL = "keeper", "media", "control"
NAMES = {"floortape-media": MEDIA, "floortape-control": CONTROL, "/usr/bin/floortape": KEEPER}

failures = []


def check(scenario, claim, ok, detail=""):
    """Notes one claim and prints it at once."""
    if not ok:
        failures.append((scenario, claim))
    print(f"{'ok  ' if ok else 'FAIL'}  {scenario:<18} {claim}" + ("" if ok else f": {detail}"),
          flush=True)
    return bool(ok)


def until(what, found, limit=PATIENCE):
    """Asks again and again until there is an answer."""
    end = time.monotonic() + limit
    while True:
        answer = found()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {limit} s")
        time.sleep(0.005)


def run(*words, limit=30):
    return subprocess.run(words, capture_output=True, text=True, timeout=limit, check=False)


def systemctl(*words, limit=30):
    done = run("systemctl", *words, limit=limit)
    if done.returncode:
        raise RuntimeError(f"systemctl {' '.join(words)}: {done.stderr.strip()}")


def show(name):
    return run("systemctl", "show", UNIT, "-p", name, "--value").stdout.strip()


def roles():
    """Process number by role, of what lives in the unit's control group."""
    found = {}
    try:
        numbers = (GROUP / "cgroup.procs").read_text().split()
    except OSError:
        return found
    for number in numbers:
        try:
            name = pathlib.Path("/proc", number, "cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        if name in NAMES:
            found[NAMES[name]] = int(number)
    return found


def leftovers():
    """All processes of ours anywhere in this machine, zombies aside."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
        except OSError:
            continue
        if name in NAMES:
            found.append((int(folder.name), name))
    return found


def journal():
    """What the unit has said since its last start from nothing."""
    return run("journalctl", "-q", "-o", "cat", "--no-pager", "-u", UNIT, "--since", f"@{since}",
               limit=60).stdout


def options():
    """The status that OPTIONS gets within 500 ms, or 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(0.5)
        port, mark = peer.getsockname()[1], random.getrandbits(64)
        peer.sendto((f"OPTIONS sip:srs@{SIP[0]}:{SIP[1]} SIP/2.0\r\n"
                     f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{mark:x}\r\n"
                     "Max-Forwards: 70\r\nFrom: <sip:test@127.0.0.1>;tag=1\r\n"
                     f"To: <sip:srs@{SIP[0]}:{SIP[1]}>\r\nCall-ID: {mark:x}\r\n"
                     "CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n").encode(), SIP)
        try:
            return int(peer.recv(65536).split()[1])
        except (OSError, ValueError):
            return 0


def verb(*words):
    return run("/usr/bin/floortape", *words, "--store", str(STORE), limit=60)


def listed():
    done = verb("ls", "--json")
    if done.returncode:
        raise RuntimeError(f"ls: exit {done.returncode}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def packets():
    return sum(source["packets"] for recording in listed()
               for stream in recording["streams"] for source in stream["sources"])


class Call:
    """`floortape src call` at work."""

    def __init__(self, streams, seconds):
        self.stages = []
        self.child = subprocess.Popen(
            ["/usr/bin/floortape", "src", "call", "--numbered", "--json", "--srtp", "sdes", "--to",
             f"sip:srs@{SIP[0]}:{SIP[1]}", "--streams", str(streams), "--streams-per-call", "4",
             "--duration", str(seconds)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.child.stderr:
            self.stages.append(line.rstrip())

    def reaches(self, stage):
        until(f"the call's stage {stage}",
              lambda: self.child.poll() is not None or
              any(line.startswith(stage) for line in self.stages))
        if self.child.poll() is not None:
            raise RuntimeError(f"the call ended early: {self.stages}")
        return self

    def hang_up(self):
        """Ends all calls now; a BYE that nobody answers would take 32 s."""
        begin = time.monotonic()
        self.child.send_signal(signal.SIGINT)
        code, sent = self.end()
        early = [line for line in self.stages if "ended" in line and "early" in line]
        return code == 130 and not early and time.monotonic() - begin < 10, sent

    def end(self):
        """Its exit code, and what it has sent."""
        out = self.child.stdout.read()
        code = self.child.wait(timeout=60)
        return code, json.loads(out.splitlines()[-1]) if out.strip() else None


def ready():
    """All three run, systemd calls the unit active, and OPTIONS says that a call would be kept."""
    return len(roles()) == 3 and show("ActiveState") == "active" and options() == 200


def start():
    """The unit on an empty store."""
    global since
    for path in STORE.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    since = time.time()
    systemctl("start", UNIT)
    until("readiness", ready)


def stop(scenario):
    """Stops the unit; nothing may be left of it."""
    begin = time.monotonic()
    systemctl("stop", UNIT)
    took = time.monotonic() - begin
    check(scenario, "stops within 6 s, clean", took < 6 and show("Result") == "success"
          and show("ActiveState") == "inactive", (took, show("Result"), show("ActiveState")))
    check(scenario, "leaves no process and no stored descriptor",
          not leftovers() and show("NFileDescriptorStore") == "0",
          (leftovers(), show("NFileDescriptorStore")))
    return took


def gaps():
    """The times in which a worker did not receive, ms, as the successors tell them."""
    return sorted(float(text) for text in
                  re.findall(r"(?:receives again after|was away for) ([0-9.]+) ms", journal())) or [0.0]


def judge(scenario, sent, count):
    """0 missing, 0 twice, by the verbs and by code that shares nothing with them."""
    recordings = listed()
    check(scenario, f"{count} recordings, ended", len(recordings) == count and
          all(recording["state"] == "ended" for recording in recordings),
          [(recording["id"], recording["state"]) for recording in recordings])
    verdicts = {stream["verdict"] for recording in recordings for stream in recording["streams"]}
    check(scenario, "every stream is complete", verdicts == {"complete"}, verdicts)
    verified = verb("verify", "--all", "--complete")
    check(scenario, "verify --all --complete", verified.returncode == 0,
          verified.stdout + verified.stderr)
    path = pathlib.Path("/tmp/sent.json")
    path.write_text(json.dumps(sent))
    checked = run("/usr/bin/python3", "/test/checker.py", str(STORE), "--numbered",
                  f"--sent={path}", limit=120)
    check(scenario, "0 missing, 0 twice by the checker", checked.returncode == 0,
          checked.stdout + checked.stderr)


def kill_loop(scenario, victims, how=None, survivors=()):
    """Kills `victims` in mid-call, `kills` times (half as often where a hang has to be noticed first);
    calls go on and nothing is lost or there twice."""
    start()
    stored = show("NFileDescriptorStore")
    call = Call(args.streams, 3600).reaches("sending")
    until("packets on disk", packets)
    before = sorted((one["id"], one["state"]) for one in listed())
    times = []
    for _ in range((args.kills + 1) // 2 if scenario.startswith("hung") else args.kills):
        old = roles()
        time.sleep(random.uniform(0.05, 0.6))  # the instant of the kill is part of the input
        begin = time.monotonic()
        if how:
            how()
        else:
            for victim in victims:
                os.kill(old[victim], signal.SIGKILL)
        until("successors", lambda: all(roles().get(victim, old[victim]) != old[victim]
                                        for victim in victims))
        until("readiness", ready)
        times.append(1e3 * (time.monotonic() - begin))
        for survivor in survivors:
            check(scenario, f"{survivor} is the same process", roles()[survivor] == old[survivor])
    check(scenario, "the same recordings run",
          sorted((one["id"], one["state"]) for one in listed()) == before, before)
    answered, sent = call.hang_up()
    check(scenario, "calls go on and their BYE is answered", answered, call.stages)
    kept = show("NFileDescriptorStore")
    check(scenario, "systemd holds the same descriptors", kept == stored != "0", (stored, kept))
    stop(scenario)
    judge(scenario, sent, -(-args.streams // 4))
    print(f"      {scenario:<18} ready again after median {statistics.median(times):.0f}, worst "
          f"{max(times):.0f} ms; nothing received for median {statistics.median(gaps()):.0f}, worst "
          f"{max(gaps()):.0f} ms; {stored} descriptors stored", flush=True)


def unit():
    """The unit file itself, and what it makes of the processes."""
    verified = run("systemd-analyze", "verify", f"/usr/lib/systemd/system/{UNIT}")
    check("unit", "systemd-analyze verify is silent",
          verified.returncode == 0 and not verified.stdout + verified.stderr,
          verified.stdout + verified.stderr)
    security = run("systemd-analyze", "security", UNIT, "--no-pager").stdout
    score = re.search(r"exposure level for \S+ ([0-9.]+)", security)
    check("unit", f"exposure {score and score[1]} of 10 is at most 2", score and
          float(score[1]) <= 2, security)
    start()
    media = roles()[MEDIA]
    status = pathlib.Path(f"/proc/{media}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines())
    # CAP_NET_ADMIN and CAP_BPF.
    wanted = 1 << 12 | 1 << 39
    check("unit", "no root, two privileges, a system call filter",
          facts["Uid"].split()[0] != "0" and int(facts["CapEff"], 16) == wanted and
          int(facts["CapBnd"], 16) == wanted and facts["NoNewPrivs"] == "1" and
          facts["Seccomp"] == "2", status)
    call = Call(args.streams, 2).reaches("sending")
    memory = run("ss", "-ulnmH", "src", "127.0.0.1:58000").stdout
    check("unit", "receive queues are as large as asked, past net.core.rmem_max",
          "rb8388608" in memory, memory)
    opened = [os.readlink(one) for one in pathlib.Path(f"/proc/{media}/fd").iterdir()
              if one.is_symlink()]
    wanted = io_uring_permitted()
    check("unit", f"media {'receives by io_uring' if wanted else 'has no io_uring here'}",
          any("[io_uring]" in one for one in opened) == wanted, opened)
    code, sent = call.end()
    check("unit", "a call is recorded", code == 0, call.stages)
    stop("unit")
    said = journal()
    engine = "worker 0 io_uring" if wanted else "worker 0 recvmmsg"
    check("unit", f"the log says \"{engine}\"", engine in said, said)
    check("unit", "the ports are steered to few sockets", "port pairs are steered to" in said, said)
    check("unit", "nothing was denied", not re.search("denied|not permitted", said), said)
    judge("unit", sent, -(-args.streams // 4))


def io_uring_permitted():
    try:
        disabled = pathlib.Path("/proc/sys/kernel/io_uring_disabled").read_text().strip()
    except OSError:
        return True
    return disabled == "0"


def stopped():
    """`systemctl stop` in mid-call ends the recordings in order."""
    start()
    call = Call(args.streams, 30).reaches("sending")
    until("packets on disk", packets)
    took = stop("stop")
    code, sent = call.end()
    check("stop", "the callers got BYE", code == 1 and
          any("ended" in line for line in call.stages), (code, call.stages))
    recordings = listed()
    check("stop", "all recordings ended", {one["state"] for one in recordings} == {"ended"})
    sources = [source for one in recordings for stream in one["streams"]
               for source in stream["sources"]]
    check("stop", "nothing is missing before the BYE", len(sources) == args.streams and
          all(one["packets"] == one["last_index"] - one["first_index"] + 1 and
              one["unexplained"] == 0 and one["duplicates"] == 0 for one in sources), sources)
    check("stop", "verify --all", verb("verify", "--all").returncode == 0)
    print(f"      stop               took {1e3 * took:.0f} ms")


def drained():
    """SIGTERM to keeper: no new calls, the running ones go on; then the unit is over, not restarted."""
    start()
    call = Call(args.streams, 3).reaches("sending")
    systemctl("kill", "--kill-whom=main", "--signal=TERM", UNIT)
    until("503 to OPTIONS", lambda: options() == 503)
    code, _ = Call(2, 1).end()
    check("drain", "a new call is refused with 503", code == 75, code)
    code, sent = call.end()
    check("drain", "the running calls go on to their end", code == 0, call.stages)
    until("the end of the unit", lambda: show("ActiveState") == "inactive")
    check("drain", "the unit is not started again, nothing is left", not leftovers() and
          show("Result") == "success" and show("NFileDescriptorStore") == "0",
          (leftovers(), show("Result")))
    judge("drain", sent, -(-args.streams // 4))


def send(number, *victims):
    """For a kill loop: that signal instead of SIGKILL."""
    def act():
        numbers = roles()
        for victim in victims:
            os.kill(numbers[victim], number)
    return act


def reexec():
    """systemd starts itself anew, descriptor store in hand, then all three die."""
    systemctl("daemon-reexec")
    send(signal.SIGKILL, *ALL)()


def replaced():
    """A new file under the old name, as a package manager leaves it, then SIGUSR2 to keeper."""
    fresh = pathlib.Path("/usr/bin/floortape.new")
    shutil.copy("/usr/bin/floortape", fresh)
    fresh.rename("/usr/bin/floortape")
    systemctl("kill", "--kill-whom=main", "--signal=USR2", UNIT)


def broken():
    """Keeper dies while its configuration is broken: media and control go on without any keeper
    until it is mended."""
    start()
    call = Call(args.streams, 3600).reaches("sending")
    until("packets on disk", packets)
    old, config = roles(), CONFIG.read_text()
    CONFIG.write_text(config + "no such key\n")
    os.kill(old[KEEPER], signal.SIGKILL)
    until("three failed starts", lambda: int(show("NRestarts")) >= 3)
    before = packets()
    until("more packets on disk", lambda: packets() > before)
    check("broken", "media and control go on without keeper",
          {role: number for role, number in roles().items() if role != KEEPER} ==
          {role: old[role] for role in (MEDIA, CONTROL)} and options() in (200, 503), roles())
    CONFIG.write_text(config)
    until("readiness", ready)
    answered, sent = call.hang_up()
    check("broken", "calls go on and their BYE is answered", answered, call.stages)
    stop("broken")
    judge("broken", sent, -(-args.streams // 4))


def diverted():
    """Frames diverted at the loopback, with the drop-in that this needs; when all three die they wait in what
    systemd holds."""
    folder, config = pathlib.Path("/etc/systemd/system") / f"{UNIT}.d", CONFIG.read_text()
    folder.mkdir(exist_ok=True)
    added = [folder / "xdp.conf"]
    shutil.copy("/usr/share/floortape/xdp.conf", added[0])
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] != resource.RLIM_INFINITY:
        # A manager that is itself limited cannot give what the unit asks for.
        added.append(folder / "xdp-locked.conf")
        added[1].write_text("[Service]\nAmbientCapabilities=CAP_IPC_LOCK\nCapabilityBoundingSet=CAP_IPC_LOCK\n")
    CONFIG.write_text(config.replace("[media]\n", '[media]\nengine = "xdp"\ninterface = "lo"\n'))
    systemctl("daemon-reload")
    try:
        kill_loop("diverted media", [MEDIA], survivors=[KEEPER, CONTROL])
        check("diverted media", "frames are diverted", "frames are diverted at lo" in journal(), journal())
        kill_loop("diverted all", ALL)
    finally:
        CONFIG.write_text(config)
        for path in added:
            path.unlink()
        systemctl("daemon-reload")


ALL = (KEEPER, MEDIA, CONTROL)
SCENARIOS = {
    "unit": unit,
    "stop": stopped,
    "drain": drained,
    "media": lambda: kill_loop("media", [MEDIA], survivors=[KEEPER, CONTROL]),
    "control": lambda: kill_loop("control", [CONTROL], survivors=[KEEPER, MEDIA]),
    "media+control": lambda: kill_loop("media+control", [MEDIA, CONTROL], survivors=[KEEPER]),
    "keeper": lambda: kill_loop("keeper", ALL, send(signal.SIGKILL, KEEPER)),
    "keeper+media": lambda: kill_loop("keeper+media", ALL, send(signal.SIGKILL, KEEPER, MEDIA)),
    "keeper+control": lambda: kill_loop("keeper+control", ALL,
                                        send(signal.SIGKILL, KEEPER, CONTROL)),
    "all": lambda: kill_loop("all", ALL),
    "hung media": lambda: kill_loop("hung media", [MEDIA], send(signal.SIGSTOP, MEDIA),
                                    survivors=[KEEPER, CONTROL]),
    "hung control": lambda: kill_loop("hung control", [CONTROL], send(signal.SIGSTOP, CONTROL),
                                      survivors=[KEEPER, MEDIA]),
    "hung keeper": lambda: kill_loop("hung keeper", ALL, send(signal.SIGSTOP, KEEPER)),
    "restart": lambda: kill_loop("restart", ALL, lambda: systemctl("restart", UNIT)),
    "reexec": lambda: kill_loop("reexec", ALL, reexec),
    "upgrade": lambda: kill_loop("upgrade", [MEDIA, CONTROL], replaced),
    "broken": broken,
    "diverted": diverted,
}


def main():
    until("systemd", lambda: run("systemctl", "is-active", "multi-user.target").stdout.strip()
          == "active", 60)
    check("boot", "the unit is part of multi-user.target and ready", ready(), journal())
    stop("boot")
    for name in args.scenario or SCENARIOS:
        begin = time.monotonic()
        try:
            SCENARIOS[name]()
        except Exception:
            check(name, "runs to its end", False, traceback.format_exc() + journal()[-6000:])
        finally:
            run("systemctl", "kill", "--signal=KILL", UNIT)
            run("systemctl", "stop", UNIT)
        print(f"      {name:<18} {time.monotonic() - begin:.1f} s", flush=True)
    print(f"{len(failures)} failed")
    return 1 if failures else 0


since = 0
parser = argparse.ArgumentParser()
parser.add_argument("scenario", nargs="*")
parser.add_argument("--kills", type=int)
parser.add_argument("--streams", type=int)
args = parser.parse_intermixed_args()
if __name__ == "__main__":
    sys.exit(main())
