#!/usr/bin/env python3
"""Many slides in one command: how well are the cores used?

    python benchmarks/cohort.py                              24 demo-sized slides with 3 references; about 3 hours on 2 cores
    python benchmarks/cohort.py --slides 6 --spots 200 --genes 60 -- --preset fast --max_steps 4
    python benchmarks/cohort.py --trace FILE --cores 2       a trace that is there already

Slides are drawn from assets/demo (seeded: nine tenths of the spots, or --spots; at most --genes genes); the references are the two of
the demo and a second draw of cells from the first. What follows '--' goes to ./spadit run. From the trace: throughput = sum of (run
time × CPUs) of all tasks / (cores × wall time), 1 being ideal, and the largest gaps, stretches in which cores had no task. Wall time is
from the first task's submission to the last one's end: the start of Nextflow itself is not in it. A task counts with the CPUs that it
asked for, whether or not it kept them busy; what it used is told beside it (%cpu).
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CONFIG = "trace { raw = true\n  fields = 'name,status,submit,start,complete,realtime,cpus,%cpu,peak_rss' }\n"
REFERENCES = ("osmfish_cortex", "pdac_st_mit", "osmfish_cortex")
"""Demo pair that slide and reference of each third of the cohort are drawn from."""


def make_cohort(folder: Path, n_slides: int, n_spots: int | None, n_genes: int | None, seed: int = 0) -> Path:
    """Write slides, references and the samplesheet; returns the sheet."""
    import anndata as ad
    import numpy as np

    rng = np.random.default_rng(seed)
    rows = ["sample,st,sc"]
    for k, source in enumerate(REFERENCES):
        reference = ad.read_h5ad(ROOT / "assets" / "demo" / source / "sc.h5ad")
        share = 1.0 if source not in REFERENCES[:k] else 0.8
        cells = np.sort(rng.choice(reference.n_obs, round(share * reference.n_obs), replace=False))
        (folder / f"atlas_{k}").mkdir(parents=True)
        reference[cells].write_h5ad(folder / f"atlas_{k}" / "sc.h5ad")
        slide = ad.read_h5ad(ROOT / "assets" / "demo" / source / "st.h5ad")
        if n_genes and n_genes < slide.n_vars:
            slide = slide[:, np.sort(rng.choice(slide.n_vars, n_genes, replace=False))]
        for i in range(k, n_slides, len(REFERENCES)):
            spots = np.sort(rng.choice(slide.n_obs, min(n_spots or round(0.9 * slide.n_obs), slide.n_obs), replace=False))
            slide[spots].write_h5ad(folder / f"slide_{i:02d}.h5ad")
            rows.append(f"slide_{i:02d},slide_{i:02d}.h5ad,atlas_{k}/sc.h5ad")
    sheet = folder / "samplesheet.csv"
    sheet.write_text("\n".join([rows[0], *sorted(rows[1:])]) + "\n", encoding="utf-8")
    return sheet


def read_trace(path: Path) -> list[dict]:
    """Finished tasks of a raw trace: name, start, end, submitted (seconds), cpus, used (CPUs kept busy), gib."""
    tasks = []
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"):
        if row["status"] not in ("COMPLETED", "FAILED"):
            continue
        end, seconds = int(row["complete"]) / 1000, int(row["realtime"] or 0) / 1000
        busy = row.get("%cpu", "-").rstrip("%")
        tasks.append(
            {
                "name": row["name"],
                "submitted": int(row["submit"]) / 1000,
                # the clock of the task itself, without the time it waited for its files
                "start": end - seconds,
                "end": end,
                "cpus": int(row["cpus"]),
                "used": float(busy) / 100 if busy not in ("-", "") else float("nan"),
                "gib": int(row["peak_rss"]) / 2**30 if row.get("peak_rss", "-").isdigit() else float("nan"),
            }
        )
    return tasks


def throughput(tasks: list[dict], cores: int) -> dict:
    """wall (s), work (core-seconds asked for), used (core-seconds kept busy), throughput, busy_share."""
    wall = max(t["end"] for t in tasks) - min(t["submitted"] for t in tasks)
    work = sum((t["end"] - t["start"]) * t["cpus"] for t in tasks)
    used = sum((t["end"] - t["start"]) * t["used"] for t in tasks if t["used"] == t["used"])
    return {"wall": wall, "work": work, "used": used, "throughput": work / (cores * wall), "busy_share": used / (cores * wall)}


def gaps(tasks: list[dict], cores: int) -> list[dict]:
    """Stretches in which tasks asked for fewer than all cores, those that cost most first.

    Each has after (seconds from the first submission), seconds, idle (mean number of cores without a task), lost (core-seconds) and
    running (names of the tasks in it).
    """
    first, last = min(t["submitted"] for t in tasks), max(t["end"] for t in tasks)
    change: dict[float, int] = defaultdict(int)
    for t in tasks:
        change[t["start"]] += t["cpus"]
        change[t["end"]] -= t["cpus"]
    times = sorted({first, last, *change})
    found: list[dict] = []
    running = 0
    for begin, end in zip(times, times[1:], strict=False):
        running += change.get(begin, 0)
        idle = max(0, cores - running)
        if not idle or end <= first:
            continue
        if found and found[-1]["end"] == begin:
            found[-1]["end"] = end
        else:
            found.append({"begin": begin, "end": end, "lost": 0.0})
        found[-1]["lost"] += idle * (end - begin)
    return [
        {
            "after": g["begin"] - first,
            "seconds": g["end"] - g["begin"],
            "idle": g["lost"] / (g["end"] - g["begin"]),
            "lost": g["lost"],
            "running": sorted(t["name"] for t in tasks if t["start"] < g["end"] and t["end"] > g["begin"]),
        }
        for g in sorted(found, key=lambda g: -g["lost"])
    ]


def describe(tasks: list[dict], cores: int, n_gaps: int = 5) -> str:
    """A table for people."""
    t = throughput(tasks, cores)
    lines = [
        f"{len(tasks)} tasks in {t['wall']:.0f} s on {cores} cores: throughput {t['throughput']:.1%} of the ideal "
        f"({t['work']:.0f} core-seconds asked for, {t['used']:.0f} kept busy: {t['busy_share']:.1%}).",
        "",
        f"{'process':<22} {'tasks':>5} {'core-seconds':>13} {'longest s':>10} {'largest GiB':>12}",
    ]
    by: dict[str, list[dict]] = defaultdict(list)
    for task in tasks:
        by[task["name"].split(" (")[0].split(":")[-1]].append(task)
    for name, some in sorted(by.items(), key=lambda item: -sum((t["end"] - t["start"]) * t["cpus"] for t in item[1])):
        work = sum((t["end"] - t["start"]) * t["cpus"] for t in some)
        longest, largest = max(t["end"] - t["start"] for t in some), max(t["gib"] for t in some)
        lines.append(f"{name:<22} {len(some):>5} {work:>13.0f} {longest:>10.0f} {largest:>12.2f}")
    lines += ["", "Largest gaps:"]
    for g in gaps(tasks, cores)[:n_gaps]:
        names = [name.split(":")[-1] for name in g["running"]]
        what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") or "no task"
        lines.append(
            f"  at {g['after']:.0f} s, for {g['seconds']:.0f} s: {g['idle']:.1f} cores idle ({g['lost']:.0f} core-seconds) beside {what}"
        )
    return "\n".join(lines)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--slides", type=int, default=24)
    p.add_argument("--spots", type=int, help="spots per slide (default: nine tenths of the demo slide's)")
    p.add_argument("--genes", type=int, help="at most so many genes per slide")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--cores", type=int, default=os.cpu_count())
    p.add_argument("--folder", type=Path, help="work here and leave all of it (default: a temporary folder)")
    p.add_argument("--limit", type=int, default=6 * 3600, help="seconds after which the run is stopped (default: 6 hours)")
    p.add_argument("--trace", type=Path, help="only read this trace (made with the fields in CONFIG)")
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    args = p.parse_args(own)
    if args.trace:
        print(describe(read_trace(args.trace), args.cores))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        sheet = make_cohort(folder / "data", args.slides, args.spots, args.genes, args.seed)
        (folder / "trace.config").write_text(CONFIG, encoding="utf-8")
        command = [ROOT / "spadit", "run", "--input", sheet, "--outdir", folder / "results", "-c", folder / "trace.config", *more]
        done = subprocess.run([str(part) for part in command], cwd=folder, timeout=args.limit, env=os.environ | {"NXF_ANSI_LOG": "false"})
        traces = sorted((folder / "results" / "pipeline_info").glob("execution_trace_*.txt"))
        if traces:
            print(describe(read_trace(traces[-1]), args.cores))
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
