"""Makes relief.nc, the heights and the land of the demo world, from a file of the package pvlib.

    pip download pvlib==0.16.1 --no-deps && unzip pvlib-*.whl pvlib/data/Altitude.h5
    python data/relief.py pvlib/data/Altitude.h5

`Altitude.h5` holds one byte for each cell of 1/12 degree, from north to south and from 180 W:
28 m times the byte less 450 m, and 255 for the sea.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
import xarray as xr

SEA = 255
STEP, BASE = 28, -450  # m; how a byte stands for a height
BOX = {"south": 6, "north": 66, "west": 59, "east": 149}  # the paper's domain and 12 degrees more
BLOCK = 3  # cells of 1/12 degree along the side of one of 0.25 degrees


def centres(low, high, step):
    return low + step * (np.arange(round((high - low) / step)) + 0.5)


def main(source):
    with h5py.File(source) as file:
        raw = file["Altitude"][:][::-1]  # now from south to north
    lat, lon = centres(-90, 90, 1 / 12), centres(-180, 180, 1 / 12)
    rows, columns = lat.size // BLOCK, lon.size // BLOCK

    blocks = np.where(raw == SEA, np.nan, raw).reshape(rows, BLOCK, columns, BLOCK)
    count = np.isfinite(blocks).sum((1, 3))
    coarse = np.where(count, np.round(np.nansum(blocks, (1, 3)) / np.maximum(count, 1)), SEA)

    y = (lat > BOX["south"]) & (lat < BOX["north"])
    x = (lon > BOX["west"]) & (lon < BOX["east"])
    packed = {"scale_factor": STEP, "add_offset": BASE, "_FillValue": np.uint8(SEA)}
    height = {"units": "m", "long_name": "mean height of the land in the cell"} | packed
    share = {"units": "1", "long_name": "land fraction", "scale_factor": 1 / BLOCK**2}
    degrees = {"units": "degrees_north"}, {"units": "degrees_east"}
    dataset = xr.Dataset(
        {
            "globe": (("lat", "lon"), coarse.astype("uint8"), height),
            "globe_land": (("lat", "lon"), count.astype("uint8"), share),
            "box": (("box_lat", "box_lon"), raw[np.ix_(y, x)], height),
        },
        coords={
            "lat": ("lat", centres(-90, 90, 0.25), degrees[0]),
            "lon": ("lon", centres(-180, 180, 0.25), degrees[1]),
            "box_lat": ("box_lat", lat[y], degrees[0]),
            "box_lon": ("box_lon", lon[x], degrees[1]),
        },
        attrs={
            "title": "Heights and land of the globe (0.25 degrees) and of eastern Asia (1/12)",
            "source": "Altitude.h5 of pvlib 0.16.1, from the terrain tiles of Mapzen",
            "references": "https://github.com/tilezen/joerd/blob/master/docs/data-sources.md",
        },
    )
    compressed = {"zlib": True, "complevel": 9, "shuffle": False}
    encoding = {name: dict(compressed) for name in dataset.data_vars}
    encoding |= {name: {"_FillValue": None} for name in dataset.coords}
    dataset.to_netcdf(Path(__file__).with_suffix(".nc"), engine="netcdf4", encoding=encoding)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("altitude", type=Path, help="Altitude.h5 of pvlib 0.16.1")
    main(parser.parse_args().altitude)
