"""Finished files: what stands under a final name is complete."""

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def replacing(path):
    """A temporary path that takes the name `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(text, path):
    """Write a text file, atomically."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(values, path):
    """Write `values` as JSON, atomically."""
    write_text(json.dumps(values, indent=1, default=_plain) + "\n", path)


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


def write_dataset(dataset, path, *, chunk_months=12, **encoding):
    """Write a dataset as compressed NetCDF-4 in the way of CF, atomically.

    Parameters
    ----------
    dataset : xr.Dataset
        Floating point data variables are written as float32 with a fill value, coordinates
        and bounds without one, times as days in float64.
    path : Path
        Final name of the file.
    chunk_months : int, default: 12
        Length of a chunk along ``time``.
    **encoding
        Further encoding by variable name.
    """
    settings = {}
    for name, variable in dataset.variables.items():
        settings[name] = {"_FillValue": None}
        field = name in dataset.data_vars and not name.endswith("_bnds")
        if field and variable.ndim > 1 and variable.dtype.kind == "f":
            chunks = [
                min(size, chunk_months) if dim == "time" else size
                for dim, size in variable.sizes.items()
            ]
            settings[name] = {
                "dtype": "float32",
                "_FillValue": np.float32(9.96921e36),
                "zlib": True,
                "complevel": 1,
                "shuffle": True,
                "chunksizes": chunks,
            }
        if variable.dtype.kind == "M":
            settings[name]["dtype"] = "float64"
            if name == "time":  # its bounds take the same units
                settings[name]["units"] = "days since 1850-01-01"
    for name, extra in encoding.items():
        settings[name] = settings.get(name, {}) | extra
    with replacing(path) as part:
        dataset.to_netcdf(part, engine="netcdf4", encoding=settings)


def sha256(path):
    """Checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
