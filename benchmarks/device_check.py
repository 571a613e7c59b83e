#!/usr/bin/env python3
"""All that there is to measure on a GPU, in one command; on a CPU it measures what there is.

    python benchmarks/device_check.py                  # writes results/device_check.json, prints a table; minutes on a GPU
    python benchmarks/device_check.py --tiny --device cpu

- device: name, memory, driver, precision, whether attention is computed by a flash kernel
- attention: milliseconds and largest difference from the formula written out (float32) of each backend that runs, in each precision
- training: seconds and memory of one fit in each precision; training again gives the same weights (determinism)
- imputing: seconds, and values per second
- agreement: correlation and largest difference of values imputed on the GPU and on the CPU by the same model

Data are synthetic: sizes matter here, not biology. The exit status is not 0 when something that has to agree doesn't.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bin"), str(ROOT / "benchmarks")]
RESULTS = ROOT / "benchmarks" / "results" / "device_check.json"
SIZES = {  # spots, cells, shared genes, genes to impute, settings of the model
    False: (5000, 2000, 300, 1000, {}),
    True: (96, 60, 16, 8, {"width": 16, "depth": 1, "n_heads": 2, "n_reduced": 4, "token_width": 16, "token_depth": 1, "inner_folds": 3,
                           "network_folds": 2, "n_models": 1, "max_steps": 4, "validate_every": 2}),
}  # fmt: skip
ATTENTION_TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}
LEAST_CORRELATION = 0.999
"""Of values imputed on GPU and CPU by the same model: its weights are the same, only sums are in another order, in half precision at most
where a network speaks."""


def synchronised(device: str) -> float:
    """The time, when all that was asked of the device is done."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def check_attention(device: str, tiny: bool) -> list[dict]:
    """Each backend in each precision against the formula in float32."""
    import torch

    from spadit.model.attention import attention, available_backends

    shape = (8, 2, 16, 8) if tiny else (512, 4, 32, 24)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator).to(device) for _ in range(3))
    truth = attention(q, k, v, "math")
    rows = []
    for dtype in (torch.float32, torch.bfloat16, *([torch.float16] if device == "cuda" else [])):
        name = str(dtype).removeprefix("torch.")
        for backend in available_backends(device):
            if backend == "flash-attn" and dtype == torch.float32:
                continue
            parts = [x.to(dtype) for x in (q, k, v)]
            made = attention(*parts, backend)
            begun = synchronised(device)
            for _ in range(3 if tiny else 50):
                attention(*parts, backend)
            milliseconds = 1000 * (synchronised(device) - begun) / (3 if tiny else 50)
            difference = float((made.float() - truth).abs().max())
            rows.append({"backend": backend, "precision": name, "ms": milliseconds, "difference": difference,
                         "agrees": difference <= ATTENTION_TOLERANCE[name]})  # fmt: skip
    return rows


def data(tiny: bool):
    """Slide, reference, genes to impute."""
    from preflight import synthetic

    n_spots, n_cells, n_shared, n_new, settings = SIZES[tiny]
    slide, reference = synthetic(n_spots, n_shared, 1), synthetic(n_cells, n_shared + n_new, 0)
    slide.obsm["spatial"] = np.random.default_rng(0).uniform(0, n_spots**0.5, (n_spots, 2))
    return slide, reference, [f"Gene{i}" for i in range(n_shared, n_shared + n_new)], settings


def check_model(device: str, tiny: bool) -> dict:
    """Training, imputing, agreement with the CPU, determinism."""
    import tempfile

    import torch

    from spadit.api import SpaDiT

    slide, reference, genes, settings = data(tiny)
    training, models = [], {}
    for precision in ("32", *(("bf16", "fp16") if device == "cuda" else ())):
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        begun = synchronised(device)
        model = SpaDiT("default", 0, device, precision=precision, **settings).fit(slide, reference, n_steps=4 if tiny else 100)
        seconds = synchronised(device) - begun
        peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
        training.append({"precision": precision, "seconds": seconds, "parts": model.seconds, "gpu_gib": peak, "blend": model.blend})
        models[precision] = model
    again = SpaDiT("default", 0, device, precision="32", **settings).fit(slide, reference, n_steps=4 if tiny else 100)
    model = models["32"]
    model.blend = {"coarse": 0.5, "token": 0.25, "whole_slide": 0.25}  # so that networks have a say in what is compared
    again.blend = model.blend
    begun = synchronised(device)
    values = model.impute(genes).X
    seconds = synchronised(device) - begun
    largest = float(np.abs(values - again.impute(genes).X).max())
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        on_cpu = SpaDiT.load(folder, slide, reference, "cpu").impute(genes).X
    same = values.std(0) > 0
    correlation = min(np.corrcoef(a, b)[0, 1] for a, b in zip(values.T[same], on_cpu.T[same], strict=True))
    return {
        "training": training,
        "imputing": {"seconds": seconds, "values_per_second": values.size / seconds},
        "determinism": {"largest_difference": largest, "bit_for_bit": largest == 0},
        "agreement": {
            "least_correlation": float(correlation), "largest_difference": float(np.abs(values - on_cpu).max()),
            "agrees": bool(correlation >= LEAST_CORRELATION),
        },
    }  # fmt: skip


def measure(device: str, tiny: bool) -> dict:
    """Everything; with a device that can't be used only what is wrong with it."""
    import torch

    from spadit.contracts import _plain
    from spadit.device import check_device

    found = check_device(device)
    result = {"device": _plain(found), "sizes": SIZES[tiny][:4], "threads": torch.get_num_threads(), "ok": not found.problem}
    if found.problem:
        return result
    result |= {"attention": check_attention(found.device, tiny), **check_model(found.device, tiny)}
    deterministic = found.device == "cuda" or result["determinism"]["bit_for_bit"]  # a GPU sums in no fixed order
    result["ok"] = all(row["agrees"] for row in result["attention"]) and result["agreement"]["agrees"] and deterministic
    return result


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--tiny", action="store_true", help="sizes that only show that it runs")
    p.add_argument("--output", type=Path, default=RESULTS)
    args = p.parse_args()
    result = measure(args.device, args.tiny)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    from spadit.contracts import Device

    print(Device(**result["device"]).sentence())
    for row in result.get("attention", []):
        print(f"attention {row['backend']:10} {row['precision']:8} {row['ms']:8.3f} ms, off by {row['difference']:.1e}")
    for row in result.get("training", []):
        memory = "" if row["gpu_gib"] is None else f", {row['gpu_gib']:.2f} GiB"
        print(f"training in {row['precision']:4} {row['seconds']:8.1f} s{memory}")
    if "imputing" in result:
        print(
            f"imputing {result['imputing']['values_per_second']:,.0f} values/s; the same once more: {result['determinism']['bit_for_bit']}"
        )
        print(f"GPU and CPU: least correlation of a gene {result['agreement']['least_correlation']:.6f}")
    print("all that has to agree agrees" if result["ok"] else "NOT OK: see the file", "-", args.output.name)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
