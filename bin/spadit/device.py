"""Where the networks run: which GPU or processor there is, and whether it will do for what was asked."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from spadit.api import choose_device
from spadit.contracts import Device
from spadit.errors import SpaditError
from spadit.model.attention import available_backends
from spadit.trainer import choose_precision

GIB = 2**30


def check_device(asked: str = "auto") -> Device:
    """What a task finds here that asks for 'auto', 'cpu' or 'cuda'.

    A GPU that was asked for and can't be used is told in ``problem`` and ``remedy``; nothing is raised. Under 'auto' a GPU that is there
    but doesn't compute is a problem, too: training would fail on it.
    """
    facts = {"asked": asked, "torch": torch.__version__, "cuda": torch.version.cuda or ""}
    try:
        device = choose_device(asked)
        if device == "cuda":
            return Device(device=device, **facts, **gpu_facts())
    except SpaditError as error:
        return Device(device="", **facts, **cpu_facts(), problem=error.message, remedy=error.remedy)
    return Device(device=device, **facts, **cpu_facts())


def gpu_facts() -> dict:
    """Of the first GPU.

    Raises
    ------
    SpaditError
        When it doesn't multiply two matrices.
    """
    properties = torch.cuda.get_device_properties(0)
    try:
        ones = torch.ones(64, 64, device="cuda")
        right = float((ones @ ones).sum()) == 64**3
    except RuntimeError as error:
        raise SpaditError(
            f"The GPU {properties.name} is there but doesn't compute: {str(error).splitlines()[0]}.",
            "Check with nvidia-smi that it isn't in use by others and that its driver fits PyTorch's CUDA version, or use --device cpu.",
        ) from error
    if not right:
        raise SpaditError(f"The GPU {properties.name} computes wrong numbers.", "Use another one, or --device cpu.")
    precision = {"bf16-mixed": "bf16", "16-mixed": "fp16"}.get(choose_precision("auto", "cuda"), "32")
    return {
        "name": properties.name,
        "n_devices": torch.cuda.device_count(),
        "memory_gib": round(properties.total_memory / GIB, 1),
        "driver": driver_version(),
        "precision": precision,
        "attention": list(available_backends("cuda")),
        "flash": (properties.major, properties.minor) >= (8, 0) and precision != "32",
    }


def cpu_facts() -> dict:
    """Of this machine's processor."""
    return {
        "name": processor(),
        "n_devices": 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "driver": "",
        "precision": "32",
        "attention": list(available_backends("cpu")),
        "flash": False,
    }


def driver_version() -> str:
    """NVIDIA's driver, as its kernel module says; empty when it doesn't."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else ""


def processor() -> str:
    """The processor's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1].strip() if found else platform.machine()
