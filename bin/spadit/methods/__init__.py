"""Methods that impute hidden genes, one file each, all with the protocol of :mod:`spadit.methods.base`.

A new method is one module with a ``METHOD``: every module of this folder that has one is in :data:`METHODS`.
"""

from __future__ import annotations

import importlib
import pkgutil

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

__all__ = ["BASELINES", "METHODS", "Method", "reference_log", "reference_z", "slide_z", "to_log_scale", "visible_part"]
