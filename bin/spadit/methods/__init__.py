"""Methods that impute hidden genes, one file each, all with the protocol of :mod:`spadit.methods.base`.

A new method is one module with a ``METHOD``: every module of this folder that has one is in :data:`METHODS`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence

from spadit.inputs import closest
from spadit.methods.base import KINDS, Method, reference_log, reference_z, slide_z, to_log_scale, visible_part

BASELINES = ("corr_weighted", "ridge", "knn50", "library_size", "mean_z", "oracle_ridge")
"""Floors, controls and ceiling, which every evaluation shows, in the order of tables."""


def _find() -> dict[str, Method]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    found = {m.METHOD.name: m.METHOD for m in modules if hasattr(m, "METHOD")}
    peers = sorted((n for n in found if n not in BASELINES), key=lambda n: (KINDS.index(found[n].kind), n.lower()))
    return {name: found[name] for name in (*BASELINES, *peers)}


METHODS: dict[str, Method] = _find()
"""Name -> method: the baselines, then all others by name."""


def method_problems(names: Sequence[str]) -> list[str]:
    """What is wrong with a list of methods, in sentences."""
    problems = [] if names else ["No method is named."]
    for name in dict.fromkeys(names):
        if name not in METHODS:
            near = closest(name, METHODS)
            problems.append(
                f"The method '{name}' is unknown." + (f" Did you mean '{near}'?" if near else f" Known are: {', '.join(METHODS)}.")
            )
        elif names.count(name) > 1:
            problems.append(f"The method '{name}' is named twice.")
    return problems


__all__ = [
    "BASELINES", "METHODS", "Method", "method_problems", "reference_log", "reference_z", "slide_z", "to_log_scale", "visible_part"
]  # fmt: skip
