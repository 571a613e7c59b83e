"""What a step needs: wall time, and the largest memory of its processes."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path

GIB = 2**30
SECONDS_BETWEEN = 1.0


def tree_gib(root: int) -> float:
    """Resident memory of a process and all its descendants now, in GiB; 0 where there is no /proc."""
    pages, waiting = 0, [root]
    while waiting:
        folder = Path("/proc") / str(waiting.pop())
        try:
            pages += int((folder / "statm").read_text(encoding="ascii").split()[1])
            for children in folder.glob("task/*/children"):
                waiting += map(int, children.read_text(encoding="ascii").split())
        except (OSError, IndexError):  # it has just ended
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / GIB


def own_peak_gib() -> float:
    """Largest resident memory that this process has had, in GiB (child processes aside)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / GIB


class Meter:
    """Measures from its making on: a thread looks every second, since workers of a pool are gone when it is asked."""

    def __init__(self, seconds_between: float = SECONDS_BETWEEN) -> None:
        self._begun = time.perf_counter()
        self._peak = 0.0
        self._between = seconds_between
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._peak = max(self._peak, tree_gib(os.getpid()))
            self._stopped.wait(self._between)

    def stop(self) -> dict[str, float]:
        """seconds, peak_gib and gpu_peak_gib."""
        self._stopped.set()
        self._thread.join()
        torch = sys.modules.get("torch")
        used = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
        return {
            "seconds": time.perf_counter() - self._begun,
            "peak_gib": max(self._peak, own_peak_gib()),
            "gpu_peak_gib": torch.cuda.max_memory_allocated() / GIB if used else 0.0,
        }
