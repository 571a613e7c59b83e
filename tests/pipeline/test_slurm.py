"""The pipeline on a real SLURM, started here on the loopback: jobs that it kills for time and for memory are tried again with more."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import subprocess
import time

import anndata as ad
import pytest
from nf import ROOT, nextflow, trace

pytestmark = pytest.mark.slurm

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")

# One node, its own key, ports and folders; nothing of an installed SLURM is read or written
CONFIGURATION = """
ClusterName=spadit
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny
SlurmctldPort={control_port}
SlurmdPort={node_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# an impossible job is refused instead of waiting for ever
EnforcePartLimits=ALL
SchedulerType=sched/backfill
ReturnToService=2
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
AccountingStorageType=accounting_storage/none
# memory is looked at each second, and a job above its own is killed
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={memory} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=30 State=UP
"""

# What a site would write into its own file, and shorter waits than a real cluster can afford
SITE = """
process {
    queue          = 'test'
    resourceLimits = [cpus: 1, memory: 3.GB, time: 20.m]
    withName: QC_SLIDE     { time   = { 1.min * task.attempt } }
    withName: QC_REFERENCE { memory = { 1.GB  * task.attempt } }
}
executor {
    pollInterval      = '1 sec'
    queueStatInterval = '2 sec'
    exitReadTimeout   = '10 sec'
    submitRateLimit   = '20/1sec'
}
"""

# Stands before spadit_qc.py in the PATH: the first run for the slide takes too long, the first for the reference too much memory
TOO_MUCH = """#!/usr/bin/env python3
import os, sys, time
role = sys.argv[sys.argv.index("--role") + 1] if "--role" in sys.argv else None
note = "{folder}/" + str(role)
if role and not os.path.exists(note):
    open(note, "w").close()
    held = b"1" * (1 << 31 if role == "reference" else 1)
    time.sleep(240)
os.execv("{program}", ["{program}", *sys.argv[1:]])
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A running SLURM; yields its SLURM_CONF. All that it started is stopped at the end, whatever happened."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        pytest.skip(f"needs munge and SLURM; not there: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for path in (folder, *folder.parents):  # munge refuses folders that others could write to, but for those with the sticky bit
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not path.stat().st_mode & stat.S_ISVTX:
            pytest.skip(f"munge doesn't accept the folder {path}: others may write to it")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    memory = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20 * 0.9)
    conf = folder / "slurm.conf"
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    facts = {"host": host, "user": user, "folder": folder, "memory": memory, "control_port": free_port(), "node_port": free_port()}
    conf.write_text(CONFIGURATION.format(**facts), encoding="utf-8")
    variables = {**os.environ, "SLURM_CONF": str(conf), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.sock", f"--pid-file={folder}/munged.pid"]
    munged += [f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed", "--num-threads=2"]

    def ask(*command: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=20).stdout
        return ""

    def logs() -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(folder.glob("*.out")))

    started = []
    # they also end when pytest itself is killed
    tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    try:
        for name, command in (("munged", munged), ("slurmctld", ["slurmctld", "-D", "-c"]), ("slurmd", ["slurmd", "-D", "-c"])):
            with open(folder / f"{name}.out", "w") as stream:
                started.append(
                    subprocess.Popen([*tied, *command], env=variables, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
                )
            end = time.monotonic() + 20
            while name == "munged" and not (folder / "munge.sock").exists() and time.monotonic() < end:
                time.sleep(0.1)
        end = time.monotonic() + 60
        while ask("sinfo", "-h", "-o", "%T").strip() != "idle":
            if time.monotonic() > end or any(process.poll() is not None for process in started):
                pytest.fail(f"SLURM did not start.\n{logs()}")
            time.sleep(0.5)
        yield conf
    finally:
        ask("scancel", "--user", user)
        end = time.monotonic() + 20
        while ask("squeue", "-h") and time.monotonic() < end:
            time.sleep(0.5)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        left = subprocess.run(["pgrep", "-f", f"slurmstepd.*{re.escape(str(folder))}"], capture_output=True, text=True).stdout
        assert not left, f"processes of SLURM are left: {left}"


def directive(script: str, *names: str) -> str | None:
    """The value of an #SBATCH line."""
    found = re.search(rf"^#SBATCH (?:{'|'.join(names)})[ =](\S+)", script, re.M)
    return found and found[1]


def test_jobs_killed_for_time_and_for_memory_are_tried_again_with_more(slurm, tmp_path, make_slide, make_reference):
    make_slide(40, 24).write_h5ad(tmp_path / "st.h5ad")
    make_reference(60, 30).write_h5ad(tmp_path / "sc.h5ad")
    (tmp_path / "sheet.csv").write_text("sample,st,sc\nsmall,st.h5ad,sc.h5ad\n", encoding="utf-8")
    shim = tmp_path / "first" / "spadit_qc.py"
    shim.parent.mkdir()
    shim.write_text(TOO_MUCH.format(folder=tmp_path / "first", program=ROOT / "bin/spadit_qc.py"), encoding="utf-8")
    shim.chmod(0o755)
    # nf.environment puts bin/ first in the PATH; a job of SLURM starts with the PATH of who submits it
    (tmp_path / "site.config").write_text(SITE + f"process.beforeScript = 'export PATH={shim.parent}:$PATH'\n", encoding="utf-8")

    quick = ("--preset", "fast", "--max_steps", 2, "--n_models", 1, "--folds", 2)
    done = nextflow(
        "run", ROOT, "-profile", "slurm", "-c", "site.config", "--input", "sheet.csv", "--outdir", "out", *quick,
        cwd=tmp_path, timeout=280, SLURM_CONF=str(slurm),
    )  # fmt: skip
    log = (tmp_path / ".nextflow.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stdout
    assert "1 of 1 slides done." in done.stdout

    rows = [row for row in trace(tmp_path / "out") if row["process"] != "CONCLUDE"]  # a few lines of Groovy, in Nextflow itself
    scripts = {row["hash"]: next(tmp_path.glob(f"work/{row['hash']}*/.command.run")).read_text(encoding="utf-8") for row in rows}
    assert log.count("[SLURM] submitted process") == len(rows), "not every task went through SLURM"
    assert all(directive(script, "-p", "--partition") == "test" for script in scripts.values())

    def tries(process: str) -> list[dict]:
        return sorted((row for row in rows if row["process"] == process), key=lambda row: int(row["task_id"]))

    killed, again = tries("QC_SLIDE")
    assert (killed["status"], killed["exit"], again["status"]) == ("FAILED", "140", "COMPLETED")
    assert [directive(scripts[row["hash"]], "-t", "--time") for row in (killed, again)] == ["00:01:00", "00:02:00"]
    killed, again = tries("QC_REFERENCE")
    assert (killed["status"], killed["exit"], again["status"]) == ("FAILED", "-", "COMPLETED")  # killed with its script: no exit status
    assert [directive(scripts[row["hash"]], "--mem") for row in (killed, again)] == ["1024M", "2048M"]
    assert all(row["status"] == "COMPLETED" for row in rows if not row["process"].startswith("QC_"))

    assert ad.read_h5ad(tmp_path / "out/slides/small/small.imputed.h5ad", backed="r").n_obs == 40
    assert (tmp_path / "out/multiqc/multiqc_report.html").stat().st_size > 1e6
