#!/usr/bin/env python3
"""Compares SyncValue's lifetime-value predictions with the peers' that peers.py trained.

    python compare.py DIR OURS_DIR [--data DATA] [--score SCORE.py] [--name NAME]

DIR is peers.py's --out (its metrics.json is read), OURS_DIR holds <dataset>-<regime>-<seed>.csv. For each dataset and
regime it prints every model's metrics as mean +- sd over seeds, on how many seeds ours is better than each peer
(paired, on the seeds both have), and where ours is behind the best peer by more than that peer's sd. In regime A the
test set is the same for every seed, so an sd there is a model's own randomness only, and 0 for one that has none.
"""
import argparse
import json
import os
import re

import numpy as np
import pandas as pd

from peers import DATA, SCORE, Log, protocol

METRICS = {"spearman": 4, "ngini": 4, "auc": 4, "dec_mape": 3, "tot_acc": 3, "coh_acc": 3, "mae": 2, "below_q95": 3}
PAIRED = ["spearman", "ngini", "auc", "dec_mape"]


def cost(metric, value):
    """What is better is lower: errors as they are, below_q95 by its distance from .95, everything else negated."""
    return value if metric in ("dec_mape", "mae") else abs(value - .95) if metric == "below_q95" else -value


def ours_scores(folder, score):
    """{(dataset, regime): {seed: metrics}} of every prediction file in a folder."""
    logs, found = {}, {}
    for file in sorted(os.listdir(folder)):
        m = re.fullmatch(r"(cdnow|retail)-([AB])-(\d+)\.csv", file)
        if not m:
            continue
        name, regime, seed = m.groups()
        if name not in logs:
            logs[name] = Log(score, name)
        frame = pd.read_csv(os.path.join(folder, file), dtype={"cust": str}).set_index("cust")
        frame = frame.loc[logs[name].ids].reset_index(drop=True)
        found.setdefault((name, regime), {})[seed] = logs[name].evaluate(frame, regime, int(seed))
    return found


def column(scores, metric):
    """A metric's value on each seed that has it."""
    return {seed: m[metric] for seed, m in scores.items() if metric in m}


def table(title, header, rows):
    rows = [header] + rows
    widths = [max(len(r[i]) for r in rows) for i in range(len(header))]
    print(f"\n{title}")
    for r in rows:
        print("  " + r[0].ljust(widths[0]) + "  " + "  ".join(c.rjust(w) for c, w in zip(r[1:], widths[1:])))


def spread(values, digits):
    if not values:
        return "-"
    values = list(values.values())
    sd = np.std(values, ddof=1) if len(values) > 1 else 0.
    return f"{np.mean(values):.{digits}f}+-{sd:.{digits}f}"


def compare(where, models, ours):
    """Prints one dataset and regime: the table, the paired wins and where ours is behind."""
    seeds = sorted(set().union(*models.values()))
    table(f"{where} (seeds {', '.join(seeds)})", ["model", *METRICS],
          [[name, *(spread(column(scores, m), d) for m, d in METRICS.items())] for name, scores in models.items()])
    if ours not in models:
        print(f"  no predictions of {ours}")
        return
    mine, rows, behind = models[ours], [], []
    for name in (n for n in models if n != ours):
        row = [name]
        for metric in PAIRED:
            a, b = column(mine, metric), column(models[name], metric)
            both = a.keys() & b.keys()
            row.append(f"{sum(cost(metric, a[s]) < cost(metric, b[s]) for s in both)}/{len(both)}" if both else "-")
        rows.append(row)
    table(f"{where}: seeds on which {ours} is better than", ["peer", *PAIRED], rows)
    for metric in METRICS:
        values = {n: list(column(s, metric).values()) for n, s in models.items() if column(s, metric)}
        peers = [n for n in values if n != ours]
        if ours not in values or not peers:
            continue
        best = min(peers, key=lambda n: cost(metric, np.mean(values[n])))
        sd = np.std(values[best], ddof=1) if len(values[best]) > 1 else 0.
        gap = cost(metric, np.mean(values[ours])) - cost(metric, np.mean(values[best]))
        if gap > sd:
            behind.append(f"  {metric}: {np.mean(values[ours]):.4f}, {best} {np.mean(values[best]):.4f} (sd {sd:.4f})")
    print(f"\n{where}: {ours} is behind the best peer by more than that peer's sd" + (":" if behind else " nowhere"))
    print("\n".join(behind), end="\n" if behind else "")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("dir")
    a.add_argument("ours")
    a.add_argument("--data", default=DATA)
    a.add_argument("--score", default=SCORE)
    a.add_argument("--name", default="syncvalue", help="what our model is called in the tables")
    a = a.parse_args()
    with open(os.path.join(a.dir, "metrics.json")) as f:
        peers = json.load(f)
    ours = ours_scores(a.ours, protocol(a.score, a.data))
    for name in ("cdnow", "retail"):
        for regime in "BA":
            models = {p: of[name][regime] for p, of in peers.items() if regime in of.get(name, {})}
            if (name, regime) in ours:
                models[a.name] = ours[name, regime]
            if models:
                compare(f"{name} {regime}", models, a.name)


if __name__ == "__main__":
    main()
