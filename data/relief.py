"""Makes relief.nc, the heights and the land of the demo world, from a file of the package pvlib.

    pip download pvlib==0.16.1 --no-deps && unzip pvlib-*.whl pvlib/data/Altitude.h5
    python data/relief.py pvlib/data/Altitude.h5

`Altitude.h5` holds one byte for each cell of 1/12 degree, from north to south and from 180 W:
28 m times the byte less 450 m, and 255 for the sea. Here it goes from south to north, with its
coordinates and as CF packs numbers.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

STEP = 1 / 12  # degrees
PACKED = {"scale_factor": 28, "add_offset": -450, "_FillValue": np.uint8(255)}


def main(source):
    with h5py.File(source) as file:
        raw = file["Altitude"][:][::-1]
    rows, columns = (np.arange(size) + 0.5 for size in raw.shape)
    dataset = xr.Dataset(
        {"elevation": (("lat", "lon"), raw, {"units": "m", "standard_name": "surface_altitude"})},
        coords={
            "lat": ("lat", -90 + STEP * rows, {"units": "degrees_north"}),
            "lon": ("lon", -180 + STEP * columns, {"units": "degrees_east"}),
        },
        attrs={
            "title": "Heights of the globe, missing over the sea",
            "source": "Altitude.h5 of pvlib 0.16.1, from the terrain tiles of Mapzen",
            "references": "https://github.com/tilezen/joerd/blob/master/docs/data-sources.md",
        },
    )
    dataset["elevation"].attrs |= PACKED
    compressed = {"zlib": True, "complevel": 9, "shuffle": False}
    encoding = {"elevation": compressed, "lat": {"_FillValue": None}, "lon": {"_FillValue": None}}
    dataset.to_netcdf(Path(__file__).with_suffix(".nc"), engine="netcdf4", encoding=encoding)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("altitude", type=Path, help="Altitude.h5 of pvlib 0.16.1")
    main(parser.parse_args().altitude)
