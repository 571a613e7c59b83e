"""Which device is found, and what is said where it won't do. GPUs are played here; a real one is for benchmarks/device_check.py."""

import json
import sys
import types

import pytest
import torch

from spadit import device
from spadit.contracts import Device
from spadit.device import check_device


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def played_gpu(monkeypatch):
    """An H200 as PyTorch describes it; what is computed on it is computed here."""
    properties = types.SimpleNamespace(name="NVIDIA H200", total_memory=139 * 2**30, major=9, minor=0)
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch, "ones", lambda *shape, device=None: ones(*shape))
    monkeypatch.setattr(device, "driver_version", lambda: "570.1")
    return properties


@pytest.mark.parametrize("asked", ["auto", "cpu"])
def test_without_a_gpu_it_goes_on_with_the_cpu(no_gpu, asked, tmp_path):
    found = check_device(asked)
    assert (found.device, found.precision, found.flash, found.problem) == ("cpu", "32", False, "") and found.memory_gib > 0 and found.name
    assert found.sentence().startswith("Networks run on the CPU: ")
    found.to_json(tmp_path / "device.json")
    assert Device.from_json(tmp_path / "device.json") == found


def test_a_gpu_that_was_asked_for_and_is_not_there(no_gpu):
    found = check_device("cuda")
    assert found.device == "" and "A GPU was asked for (--device cuda)" in found.problem and "nvidia-smi" in found.remedy
    assert found.sentence() == f"{found.problem} {found.remedy}"


def test_a_gpu_is_described(played_gpu):
    found = check_device("auto")
    assert (found.device, found.name, found.n_devices, found.memory_gib) == ("cuda", "NVIDIA H200", 2, 139)
    assert found.precision == "bf16" and found.flash and not found.problem
    assert "2 × NVIDIA H200, 139 GiB, driver 570.1" in found.sentence() and "precision bf16" in found.sentence()


def test_a_gpu_that_does_not_compute_is_a_problem(played_gpu, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch, "ones", broken)
    found = check_device("auto")
    assert "NVIDIA H200 is there but doesn't compute: CUDA error: no kernel image" in found.problem and "--device cpu" in found.remedy


def test_the_collection_of_measurements_runs(root, tmp_path, monkeypatch, capsys):
    """benchmarks/device_check.py, on the CPU, as small as it gets."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import device_check

    monkeypatch.setattr(sys, "argv", ["device_check.py", "--tiny", "--device", "cpu", "--output", str(tmp_path / "found.json")])
    assert device_check.main() == 0, capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["device"]["device"] == "cpu" and {row["backend"] for row in found["attention"]} == {"math", "sdpa"}
    assert found["determinism"]["bit_for_bit"] and found["agreement"]["agrees"] and found["imputing"]["values_per_second"] > 0
    assert [row["precision"] for row in found["training"]] == ["32"]
    assert "imputing" in capsys.readouterr().out


def test_the_collection_says_what_is_wrong(root, tmp_path, monkeypatch, no_gpu, capsys):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    import device_check

    monkeypatch.setattr(sys, "argv", ["device_check.py", "--tiny", "--device", "cuda", "--output", str(tmp_path / "found.json")])
    assert device_check.main() == 1 and "A GPU was asked for" in capsys.readouterr().out
