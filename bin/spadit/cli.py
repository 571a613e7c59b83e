"""What all executables share: one way to start, to fail and to say so."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import subprocess
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path

from spadit.contracts import Failure, Usage
from spadit.errors import InputError, SpaditError
from spadit.files import remove_unfinished
from spadit.usage import Meter

DISK_TROUBLE = ("No space left on device", "Disk quota exceeded", "Read-only file system")
MEMORY_TROUBLE = ("can't allocate memory", "annot allocate memory", "failed to map segment")  # of torch, of the system, of its loader
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
OUT_OF_MEMORY = 137  # the exit code of a task killed for memory: the pipeline retries it with more


def parser(description: str, step: str) -> argparse.ArgumentParser:
    """An argument parser with the options every executable has: --id, --failure, --usage, --threads and --version."""
    from spadit import __version__

    p = argparse.ArgumentParser(prog=f"spadit_{step}.py", description=description, allow_abbrev=False)
    p.add_argument("--id", required=True, help="name of the sample or reference, used in messages and file names")
    p.add_argument("--role", default="slide", choices=["slide", "reference"], help="what the id names")
    p.add_argument("--failure", help="write a problem with the data to this JSON file and exit 0, so that other slides go on")
    p.add_argument("--usage", help="write the time and memory that the step needed to this JSON file")
    p.add_argument("--threads", type=int, default=1, help="CPU threads to use (default: 1)")
    p.add_argument("--version", action="version", version=__version__)
    return p


def run(step: str, arguments: argparse.Namespace, work: Callable[[argparse.Namespace], None]) -> int:
    """Run an executable's work and turn what goes wrong into an exit code and one readable sentence.

    A :class:`SpaditError` is the user's to mend: with ``--failure`` it becomes a JSON file and exit code 0 (the slide is
    reported as failed, the others go on), else exit code 2. Running out of memory ends with 137, as a kill would, so that
    the task is retried with more. Anything else is a bug: its traceback goes to the log and it counts as the slide's failure.
    A failing disk or network (OSError) ends with 1: the pipeline tries again.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    threads = str(max(1, arguments.threads))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, threads)
    # threads that wait by spinning slow a shared machine down up to twentyfold (measured: two busy cores, two threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    leave_out_annloader()
    meter = Meter() if arguments.usage else None
    try:
        work(arguments)
        if meter:
            Usage(arguments.id, arguments.role, step, threads=arguments.threads, **meter.stop()).to_json(arguments.usage)
        return 0
    except SpaditError as error:
        failure = Failure(arguments.id, arguments.role, step, error.message, error.remedy)
    except MemoryError:
        print(f"{arguments.id}: step {step} ran out of memory.", file=sys.stderr)
        return OUT_OF_MEMORY
    except OSError as error:
        if error.errno == errno.ENOMEM:
            print(f"{arguments.id}: step {step} ran out of memory.", file=sys.stderr)
            return OUT_OF_MEMORY
        if full := next((words for words in DISK_TROUBLE if words in str(error)), None):
            print(f"{arguments.id}: step {step} could not write: {full}. Make room there, then start again with -resume.", file=sys.stderr)
        else:
            print(f"{arguments.id}: step {step}: the disk or the network failed: {error}", file=sys.stderr)
        logging.debug("Where:", exc_info=True)
        return 1
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or any(words in str(error) for words in MEMORY_TROUBLE):
            print(f"{arguments.id}: step {step} ran out of memory: {error}", file=sys.stderr)
            return OUT_OF_MEMORY
        traceback.print_exc()
        failure = Failure(
            arguments.id,
            arguments.role,
            step,
            f"Internal error: {type(error).__name__}: {error}."[:500],
            "This is a bug: please report it with the task's .command.err file.",
        )
    print(f"{failure.id}: {failure.step}: {failure.reason} {failure.remedy}".strip(), file=sys.stderr)
    if arguments.failure:
        failure.to_json(arguments.failure)
        return 0
    return 2


def leave_out_annloader() -> None:
    """Let anndata be imported without its loader for PyTorch, which nothing here uses: PyTorch alone takes longer to import than all else
    that most steps do, and 200 MB."""
    name = "anndata.experimental.pytorch"
    if name not in sys.modules:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].AnnLoader = None


STANDS_STILL = 3600.0
"""Seconds a process may compute without a byte read or written before it is taken to come to no end."""


def wait(process: subprocess.Popen, every: float = 2.0) -> bool:
    """Wait for a process; True when it was ended because it stood still. One that waits for a slow disk does not compute, so it may."""
    done, since = None, 0.0
    while True:
        try:
            process.wait(every)
            return False
        except subprocess.TimeoutExpired:
            pass
        try:
            facts = Path(f"/proc/{process.pid}/io").read_text(encoding="ascii").split()
            times = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        except OSError:  # it has just ended, or this system has no /proc
            continue
        seconds = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
        if (now := (facts[1], facts[3])) != done:  # rchar, wchar
            done, since = now, seconds
        elif seconds - since > STANDS_STILL:
            process.kill()
            process.wait()
            return True


def guarded(step: str, main: Callable[[], int]) -> int:
    """Run an executable's main in a process of its own, for steps that read files of others and write to ``--output``.

    HDF5's library crashes on some damaged files instead of reporting them, and computes for ever on others. That is the file's fault, so
    it becomes the slide's failure; as the task's own crash it would be tried again in vain. It crashes on a full disk, too: when it had
    begun to write, the pipeline tries again.
    """
    if os.environ.get("SPADIT_GUARDED"):
        code = main()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at once: after a failed write the library would crash while it tidies up
    process = subprocess.Popen([sys.executable, *sys.argv], env=os.environ | {"SPADIT_GUARDED": "1"})
    stood_still = wait(process)
    code = process.returncode
    if -code not in CRASHES and not stood_still:
        return code if code >= 0 else 128 - code

    p = parser("", step)
    p.add_argument("--output", required=True)

    def crash(arguments: argparse.Namespace) -> None:
        if remove_unfinished(arguments.output) and not stood_still:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        happened = "came to no end" if stood_still else f"crashed ({signal.Signals(-code).name})"
        raise InputError(
            f"Reading the file {happened}: it is damaged in a way that its library doesn't notice.",
            "Copy or download it again, or write it anew.",
        )

    return run(step, p.parse_known_args()[0], crash)
