#!/usr/bin/env python3
"""What reading one recording back costs: bytes read from the store's files, by kind, for `show` and
`export`, against the RTP bytes of that recording. Counted from strace, so with strace installed.

  readback.py FLOORTAPE FOLDER ID       FOLDER holds `store`
"""
import json
import os
import re
import subprocess
import sys

CALLS = re.compile(r"(?:pread64|read|preadv)\(\d+<([^>]*)>.*\) = (\d+)")
KINDS = (("segments/", "segments"), ("log/", "log"), ("journal/", "journal"),
         ("catalog.sqlite", "catalogue"))


def main():
    floortape, folder, recording = sys.argv[1:]
    store = os.path.join(folder, "store")
    at = ["--store", store]
    shown = json.loads(subprocess.run([floortape, "show", recording, "--json", *at], check=True,
                                      capture_output=True).stdout)
    own = sum(source["bytes"] for stream in shown["streams"] for source in stream["sources"])
    out, trace = os.path.join(folder, "export"), os.path.join(folder, "trace")
    for words in (["show", recording, "--json"], ["export", recording, "-o", out]):
        command = ["strace", "-f", "-y", "-s0", "-e", "trace=read,pread64,preadv", "-o", trace,
                   floortape, *words, *at]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            print("read back: not measured, no strace")
            return
        read = dict.fromkeys((kind for _, kind in KINDS), 0)
        with open(trace, encoding="utf-8", errors="replace") as lines:
            for path, count in CALLS.findall(lines.read()):
                for part, kind in KINDS:
                    if path.startswith(store) and part in path[len(store):]:
                        read[kind] += int(count)
        records = read["segments"] + read["log"]
        print(f"{words[0]}: {own} RTP bytes, {records} read for them ({records / own:.2f}); "
              + ", ".join(f"{kind} {count}" for kind, count in read.items()))


if __name__ == "__main__":
    main()
