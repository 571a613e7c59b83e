"""Methods that impute hidden genes, one file each, all with the protocol of :mod:`spadit.methods.base`.

A new method is one module with a ``METHOD`` and one name in :data:`METHODS`.
"""

from __future__ import annotations

from spadit.methods import corr_weighted, knn50, library_size, mean_z, oracle_ridge, ridge
from spadit.methods.base import Method, reference_z, slide_z, to_log_scale, visible_part

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD for module in (corr_weighted, ridge, knn50, library_size, mean_z, oracle_ridge)
}
"""Name -> method, in the order of tables: floors, controls, ceiling."""

__all__ = ["METHODS", "Method", "reference_z", "slide_z", "to_log_scale", "visible_part"]
