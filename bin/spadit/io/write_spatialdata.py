"""The imputed slide as a SpatialData store: spots as circles, imputed genes as the table that annotates them.

The form on disk is version 0.1 of SpatialData's container (https://spatialdata.scverse.org, 'storage format'): Zarr 2, tables as anndata
writes them, shapes as GeoParquet. Every version of spatialdata reads it; the package itself is not needed to write it.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy.spatial import cKDTree

from spadit import __version__
from spadit.errors import InputError
from spadit.io.zarr_store import Array, write_array, write_frame, write_group, write_value

SHAPES, TABLE = "spots", "imputed"
"""Names of the two elements."""
CHUNK = (4096, 256)
"""Spots × genes of a chunk: 4 MiB, the memory that writing takes."""


def write_spatialdata(imputed: str | Path, output: str | Path) -> None:
    """Copy an ``imputed.h5ad`` into a SpatialData store, chunk by chunk: memory doesn't grow with the slide.

    Parameters
    ----------
    imputed
        The file that IMPUTE wrote.
    output
        Folder to make: ``shapes/spots`` (circles; radius: half the median distance to the nearest spot) and ``tables/imputed`` (X,
        layers, obs, var, obsm['spatial'] and uns of the file; obs also has ``region`` and ``spot_id``, which name its circle).

    Raises
    ------
    InputError
        When the file has no coordinates, or a matrix that isn't dense.
    """
    root = write_group(output, {"spatialdata_attrs": {"version": "0.1", "spatialdata_software_version": f"SpaDiT-flow {__version__}"}})
    with h5py.File(imputed, "r") as file:
        if "obsm/spatial" not in file:
            raise InputError(f"{imputed} has no obsm['spatial'].", "Give the file that the step IMPUTE wrote.")
        spatial = np.asarray(read_elem(file["obsm/spatial"]))
        obs, var, uns = read_elem(file["obs"]), read_elem(file["var"]), read_elem(file["uns"])
        write_shapes(write_group(root / "shapes") / SHAPES, spatial[:, :2].astype(float))
        link = {"region": SHAPES, "region_key": "region", "instance_key": "spot_id"}
        attributes = {"encoding-type": "anndata", "encoding-version": "0.1.0", "version": "0.1"}
        table = write_group(write_group(root / "tables") / TABLE, attributes | link | {"spatialdata-encoding-type": "ngff:regions_table"})
        obs = obs.drop(columns=[name for name in ("region", "spot_id") if name in obs])
        obs["region"] = pd.Categorical([SHAPES] * len(obs))
        obs["spot_id"] = np.arange(len(obs))
        write_frame(table / "obs", obs)
        write_frame(table / "var", var)
        write_value(table / "uns", {**uns, "spatialdata_attrs": link})
        for name in ("layers", "obsm", "obsp", "varm", "varp"):
            write_group(table / name, {"encoding-type": "dict", "encoding-version": "0.1.0"})
        write_array(table / "obsm" / "spatial", spatial, {"encoding-type": "array", "encoding-version": "0.2.0"})
        for name in ("X", *(f"layers/{layer}" for layer in file["layers"])):
            if not isinstance(file[name], h5py.Dataset):
                raise InputError(f"{imputed}: {name} is not a dense matrix.", "Give the file that the step IMPUTE wrote.")
            _copy(file[name], table / name)


def _copy(source: h5py.Dataset, path: Path) -> None:
    """A matrix, chunk by chunk."""
    chunks = tuple(max(1, min(size, n)) for size, n in zip(CHUNK, source.shape, strict=True))
    array = Array(path, source.shape, source.dtype, chunks, {"encoding-type": "array", "encoding-version": "0.2.0"})
    for number, where in array.blocks():
        array.write(number, source[where])


def write_shapes(path: Path, points: np.ndarray) -> None:
    """Circles at these points (spots × 2) as a shapes element; its parquet file follows the GeoParquet standard."""
    import pyarrow as pa
    from pyarrow import parquet

    axes = [{"name": axis, "type": "space", "unit": "unit"} for axis in "xy"]
    identity = {"type": "identity", "input": {"axes": axes, "name": "xy"}, "output": {"axes": axes, "name": "global"}}
    write_group(
        path,
        {
            "encoding-type": "ngff:shapes",
            "axes": ["x", "y"],
            "coordinateTransformations": [identity],
            "spatialdata_attrs": {"version": "0.2"},
        },
    )
    # well-known binary of a point: byte order, type, x, y
    known = np.empty(len(points), dtype=[("order", "u1"), ("type", "<u4"), ("xy", "<f8", 2)])
    known["order"], known["type"], known["xy"] = 1, 1, points
    frame = pd.DataFrame({"geometry": [row.tobytes() for row in known], "radius": _radius(points)}, index=pd.RangeIndex(len(points)))
    table = pa.Table.from_pandas(frame, preserve_index=True)
    geo = {
        "version": "1.0.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Point"], "crs": None}},
    }
    parquet.write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), b"geo": json.dumps(geo).encode()}), path / "shapes.parquet"
    )


def _radius(points: np.ndarray) -> float:
    """Half the median distance to the nearest other spot: circles that touch in a regular grid; 0.5 where there is none."""
    different = np.unique(points[np.isfinite(points).all(axis=1)], axis=0)
    if len(different) < 2:
        return 0.5
    return float(np.median(cKDTree(different).query(different, k=2)[0][:, 1]) / 2)
