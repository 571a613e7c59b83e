"""What the tests of faults and the soak share: small slides, executables that are killed on purpose, and equal results."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
from pathlib import Path

from nf import ROOT

SMALL = ("--preset", "fast", "--max_steps", 10, "--folds", 2)

SHIM = '''#!{python}
"""Stands before bin/ on PATH under the name of each executable; runs the real one and does to it what plan.json says.

plan.json: "spadit_train.py a" -> {{"kill": "checkpoint" or seconds, "times": n, "memory": bytes}}, or "*" -> {{"share": 0.2, "seed": 0}}.
"""
import fcntl, glob, json, os, random, resource, signal, subprocess, sys, time
here, name, arguments = os.path.dirname(os.path.abspath(__file__)), os.path.basename(__file__), sys.argv[1:]
real = [sys.executable, os.path.join({bin!r}, name), *arguments]
plan = json.load(open(os.path.join(here, "plan.json")))
if "--id" not in arguments:
    os.execv(real[0], real)
ident = name + " " + arguments[arguments.index("--id") + 1]
with open(os.path.join(here, ident + ".calls"), "a+") as stream:  # one line a call, so that each knows which it is
    fcntl.flock(stream, fcntl.LOCK_EX)
    stream.seek(0)
    call = len(stream.readlines())
    stream.write(str(time.time()) + "\\n")
fault = dict(plan.get(ident, {{}}))
if not fault and "*" in plan and call % 3 < 2:  # the pipeline tries three times: the third is let through
    rng = random.Random("%s %s %s" % (plan["*"]["seed"], ident, call))
    if rng.random() < plan["*"]["share"]:
        fault = {{"kill": rng.uniform(0, plan["*"]["seconds"]), "times": call + 1}}
def narrow():
    if "memory" in fault:
        resource.setrlimit(resource.RLIMIT_AS, (fault["memory"], fault["memory"]))
child = subprocess.Popen(real, start_new_session=True, preexec_fn=narrow)
def end(number, _):
    os.killpg(child.pid, number)
signal.signal(signal.SIGTERM, end)
if "kill" in fault and call < fault.get("times", 1):
    begun = time.time()
    def due():
        if fault["kill"] == "checkpoint":
            folder = arguments[arguments.index("--checkpoint") + 1]
            return bool(glob.glob(os.path.join(glob.escape(folder), "**", "state_*"), recursive=True))
        return time.time() - begun > fault["kill"]
    while child.poll() is None:
        if due():
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            open(os.path.join(here, ident + ".killed"), "a").write("x")
            sys.exit(137)
        time.sleep(0.02)
sys.exit(child.wait() if child.wait() >= 0 else 128 - child.returncode)
'''


def shims(folder: Path, plan: dict) -> Path:
    """A folder with a shim for each executable, to be put first on PATH."""
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(plan))
    for executable in (ROOT / "bin").glob("spadit_*.py"):
        path = folder / executable.name
        path.write_text(SHIM.format(python=sys.executable, bin=str(ROOT / "bin")))
        path.chmod(0o755)
    return folder


def slides(folder: Path, names: list[str], make_slide, make_reference) -> Path:
    """Small slides that share a reference, and a sheet of them, in ``folder/data``. A name gives the same slide in every folder."""
    folder = folder / "data"  # a reference's id has the name of its folder in it
    folder.mkdir(parents=True, exist_ok=True)
    make_reference(80, 40, seed=1).write_h5ad(folder / "reference.h5ad")
    for name in names:
        make_slide(60, 30, seed=int.from_bytes(name.encode(), "big") % 1000).write_h5ad(folder / f"{name}.h5ad")
    sheet = folder / "sheet.csv"
    sheet.write_text("sample,st,sc\n" + "".join(f"{name},{name}.h5ad,reference.h5ad\n" for name in names), encoding="utf-8")
    return sheet


def reproducibility():
    """benchmarks/reproducibility.py as a module."""
    if "reproducibility" not in sys.modules:
        spec = importlib.util.spec_from_file_location("reproducibility", ROOT / "benchmarks" / "reproducibility.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["reproducibility"] = module
        spec.loader.exec_module(module)
    return sys.modules["reproducibility"]


def assert_equal_results(one: Path, two: Path) -> None:
    """Two folders hold the same files with the same content, to the bit; times that are reported may differ."""
    module = reproducibility()
    rows = module.compare(one, two)
    assert rows
    different = [row for row in rows if row.verdict not in (module.IDENTICAL, module.BUT_MEASURED, module.SKIPPED)]
    assert not different, textwrap.indent("\n".join(map(str, different)), "  ")
