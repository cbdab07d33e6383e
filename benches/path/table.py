"""The table of benches/path.sh. Lines of its argument: subject, run, ns of all threads and the softirq
work, of the worker's thread, of the softirq work; packets that came meanwhile; packets sent in all, late, unsent, kept.
Exit 1 where a run is invalid, or where the floor or ours lost a packet."""

import sys
from statistics import median

# Design, "figures to beat": ratio of which subjects, at most.
GOALS = [
    ("ours", "floor", 1.45),
    ("worker", "floor", 1.30),
    ("ours", "rtpengine", 0.40),
    ("ours", "tokio", 0.45),
    ("ours", "dumpcap", 1.20),
    ("ours", "tcpdump", None),
    ("ours", "ours-100", 1.25),
    ("ours", "ours-each", None),
    ("ours-xdp", "floor", 1.45),
    ("worker-xdp", "floor", 1.30),
    ("ours-xdp", "rtpengine", 0.40),
    ("ours-xdp", "tokio", 0.45),
    ("ours-xdp", "dumpcap", 1.20),
    ("ours-xdp", "ours", None),
]

cost, softirq, totals, faults = {}, {}, {}, []
for line in open(sys.argv[1]):
    name, run, *numbers = line.split()
    spent, worker, napi, came, sent, late, unsent, kept = map(int, numbers)
    offered = sent + unsent
    if (late + unsent) * 100 > offered:
        faults.append(f"run {run} of {name} is INVALID: of {offered} packets {late} late, {unsent} unsent")
    if kept != sent and name in ("floor", "ours", "ours-100", "ours-each", "ours-xdp"):
        faults.append(f"run {run} of {name}: {sent} packets sent, {kept} kept")
    # What was lost is not divided by; more than all is no packet of ours.
    paid = came * min(kept / sent, 1) or 1
    cost.setdefault(name, {})[run] = spent / paid
    softirq.setdefault(name, []).append(napi / paid)
    if name in ("ours", "ours-xdp"):
        cost.setdefault(name.replace("ours", "worker"), {})[run] = (worker + napi) / paid
    total = totals.setdefault(name, [0, 0, 0])
    for place, number in enumerate((sent, kept, late + unsent)):
        total[place] += number


def spread(values, form):
    values = list(values)
    return f"{median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


print(f"{'subject':10} {'ns/packet':>24} {'softirq':>8} {'sent':>11} {'kept':>11} {'late':>8}")
for name, runs in cost.items():
    sent, kept, late = totals.get(name, ("", "", ""))
    part = f"{median(softirq[name]):.0f}" if name in softirq else ""
    print(f"{name:10} {spread(runs.values(), '.0f'):>24} {part:>8} {sent:>11} {kept:>11} {late:>8}")
print(f"\n{'ratio':18} {'median (min..max)':>22}  goal")
for one, other, goal in GOALS:
    if one in cost and other in cost:
        ratios = [cost[one][run] / cost[other][run] for run in cost[one] if run in cost[other]]
        verdict = "-"
        if goal:
            verdict = f"at most {goal:.2f}: {'met' if median(ratios) <= goal else 'NOT met'}"
        print(f"{one + '/' + other:18} {spread(ratios, '.2f'):>22}  {verdict}")
print("\n".join(faults))
sys.exit(bool(faults))
