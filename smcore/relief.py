"""Where the demo world lies: heights and land of the globe, and the climate of a grid's cells."""

from functools import lru_cache

import numpy as np
import xarray as xr
from scipy import sparse
from scipy.ndimage import gaussian_filter

from smcore import world
from smcore.config import ROOT
from smcore.regrid import _edges, _interpolation_matrix

RELIEF = ROOT / "data" / "relief.nc"
SEA_KEEPS = 300.0  # km of sea over which air forgets the land behind it (e-fold)


@lru_cache(maxsize=1)
def _fine():
    """Axes (degrees), heights (m; 0 at sea and below) and land (0 or 1) of the globe."""
    with xr.open_dataset(RELIEF) as file:
        field = file["elevation"].astype("float32").load()
    heights, land = np.maximum(field.fillna(0).values, 0), field.notnull().values.astype("float32")
    return field["lat"].values, field["lon"].values, heights, land


def cells_of(lat, lon):
    """Mean height in m, the sea as 0, and land fraction of cells with these centres (lat, lon)."""

    def overlap(source, target):
        start, end = np.sort([target[:-1], target[1:]], axis=0)[:, :, None]
        common = np.clip(np.minimum(source[1:], end) - np.maximum(source[:-1], start), 0, None)
        return (common / (end - start)).astype("float32")

    y, x, *fields = _fine()
    rows = overlap(*(np.sin(np.deg2rad(_edges(axis, limit=90))) for axis in (y, lat)))
    columns = sum(overlap(_edges(x) + turn, _edges(lon)) for turn in (-360, 0, 360))
    rows, columns = sparse.csr_array(rows), sparse.csr_array(columns)
    return [(columns @ (rows @ field).T).T for field in fields]


def fetch(land, lat):
    """Kilometres of land to the west and to the east, forgotten over the sea.

    `land` is the land fraction (lat, lon) of evenly spaced cells around the globe, `lat` in
    degrees; two arrays (lat, lon).
    """
    width = 360 / land.shape[1] * 111.2 * np.cos(np.deg2rad(lat))

    def crossed(land):
        found, so_far = np.zeros_like(land), np.zeros(lat.size)
        for column in [*range(land.shape[1])] * 2:  # twice around: no column is the first
            here = land[:, column]
            so_far = (so_far + here * width) * np.exp(-(1 - here) * width / SEA_KEEPS)
            found[:, column] = so_far
        return found

    return crossed(land), crossed(land[:, ::-1])[:, ::-1]


@lru_cache(maxsize=1)
def _around():
    """On 1 degree: axes, and heights and fetches (km) as they are in the 300 km around."""
    lat, lon = np.arange(-89.5, 90), np.arange(-179.5, 180)
    height, land = cells_of(lat, lon)
    fields = height, *fetch(land, lat)
    return lat, lon, [gaussian_filter(one, 1.3, mode=("nearest", "wrap")) for one in fields]


def on_grid(values, cells, shape):
    """Fields (month, lat, lon) with these values (month, cell), missing elsewhere."""
    fields = np.full((len(values), *shape), np.nan, "float32")
    fields.reshape(len(values), -1)[:, cells] = values
    return fields


class Place:
    """Cells of a grid and their climate: those given, or those with more than `least` of land.

    ``elevation`` (m) and ``land_fraction`` are fields (lat, lon); ``cells`` are positions in the
    flat grid, and all else is of these.
    """

    def __init__(self, lat, lon, cells=None, *, least=0.5):
        self.axes = lat, lon
        y, x, fields = _around()
        self.elevation, self.land_fraction = cells_of(lat, lon)
        self.cells = np.flatnonzero(self.land_fraction > least) if cells is None else cells
        east = (lon + 180) % 360 - 180
        rows = _interpolation_matrix(np.clip(lat, y[0], y[-1]), y, "lat")
        columns = _interpolation_matrix(np.clip(east, x[0], x[-1]), x, "lon")
        grid = [*np.meshgrid(lat, east, indexing="ij"), self.elevation]
        around = [rows @ field @ columns.T for field in fields]
        self.lat, self.lon, self.height, *around = (
            field.reshape(-1)[self.cells] for field in (*grid, *around)
        )
        self.climate = world.climate(self.lat, self.lon, self.height, *around)
