"""The domain, its nested grids, and the area of their cells."""

import numpy as np
import xarray as xr

from smcore.config import Domain

EARTH_RADIUS = 6_371_229.0  # m, as in ERA5-Land
STANDARD_GRAVITY = 9.80665  # m s-2


def coarse_grid(domain=None, *, registration="nested"):
    """The grid of the predictors.

    Parameters
    ----------
    domain : Domain, optional
        By default 18-54 N, 71-137 E with cells of 2 degrees.
    registration : {"nested", "paper"}, default: "nested"
        ``nested``: the cells tile the domain. ``paper``: the first centres lie on the southern and
        western edge, as inferred from the paper's text. Any other raises ValueError.

    Returns
    -------
    xr.Dataset
        ``lat`` and ``lon`` in degrees, ascending, with ``lat_bnds`` and ``lon_bnds``.
    """
    return fine_grid(domain, scale_factor=1, registration=registration)


def fine_grid(domain=None, *, scale_factor=8, registration="nested"):
    """The grid of the product.

    Parameters
    ----------
    domain : Domain, optional
        By default 18-54 N, 71-137 E with coarse cells of 2 degrees.
    scale_factor : int, default: 8
        Fine cells per coarse cell along each axis.
    registration : {"nested", "paper"}, default: "nested"
        ``nested``: the fine cells tile the coarse ones, which is where bilinear upsampling in the
        network (``align_corners=False``) puts its values. ``paper``: both grids begin with a
        centre on the edge, so that input and target are out of register by
        (`scale_factor` - 1) / 2 fine cells: 0.875 degrees. Any other raises ValueError.

    Returns
    -------
    xr.Dataset
        ``lat`` and ``lon`` in degrees, ascending, with ``lat_bnds`` and ``lon_bnds``.
    """
    if registration not in ("nested", "paper"):
        raise ValueError(f"`registration` must be 'nested' or 'paper', got {registration!r}")
    offset = 0.5 if registration == "nested" else 0.0
    domain = domain or Domain()
    step = domain.resolution / scale_factor
    axes = {
        "lat": (domain.south, domain.north, "latitude", "degrees_north", "Y"),
        "lon": (domain.west, domain.east, "longitude", "degrees_east", "X"),
    }
    grid = xr.Dataset()
    for name, (low, high, standard_name, units, axis) in axes.items():
        cells = round((high - low) / domain.resolution) * scale_factor
        centres = low + step * (np.arange(cells) + offset)
        attributes = {"standard_name": standard_name, "units": units, "axis": axis}
        grid[name] = (name, centres, attributes | {"bounds": f"{name}_bnds"})
        edges = np.stack([centres - step / 2, centres + step / 2], axis=-1)
        grid[f"{name}_bnds"] = ((name, "bnds"), edges)
    return grid.set_coords(["lat_bnds", "lon_bnds"])


def cell_area(lat, lon):
    """Area of the cells of a regular grid on the sphere.

    Parameters
    ----------
    lat, lon : xr.DataArray
        Evenly spaced cell centres in degrees.

    Returns
    -------
    xr.DataArray
        Area in m2 (lat, lon): ``R^2 dlon (sin(lat + dlat/2) - sin(lat - dlat/2))``.
    """
    dlat, dlon = (abs(float(axis[1] - axis[0])) for axis in (lat, lon))
    north = np.sin(np.deg2rad(np.minimum(lat + dlat / 2, 90)))
    south = np.sin(np.deg2rad(np.maximum(lat - dlat / 2, -90)))
    area = EARTH_RADIUS**2 * np.deg2rad(dlon) * (north - south) * xr.ones_like(lon)
    area.attrs = {"standard_name": "cell_area", "units": "m2"}
    return area.rename("cell_area")


def uncovered(field, region):
    """What of a region (or domain) the cells of a field (lat, lon) leave out, in words, or ""."""
    for axis, low, high in (("lat", region.south, region.north), ("lon", region.west, region.east)):
        centres = np.sort(field[axis].values)
        half = np.diff(centres).max(initial=0) / 2
        around = axis == "lon" and np.ptp(centres) + 2 * half > 359.9
        if not around and (centres[0] - half > low + 1e-6 or centres[-1] + half < high - 1e-6):
            missed = f"does not cover the domain, {low:g} to {high:g}: fetch a larger region"
            return f"{axis} {centres[0]:g} to {centres[-1]:g} {missed}"
    return ""


def box_mask(grid, region):
    """Cells whose centre lies in a box, its southern and western edge included, (lat, lon).

    `region` is a Region or a mapping with the edges south, north, west and east in degrees.
    """
    box = dict(region)
    if not {"south", "north", "west", "east"} <= set(box):
        raise ValueError(f"`region` must have the keys south, north, west, east, got {[*box]}")
    lat, lon = grid["lat"], grid["lon"]
    rows = (lat >= box["south"]) & (lat < box["north"])
    return (rows & (lon >= box["west"]) & (lon < box["east"])).rename("region")


def region_masks(static, study):
    """The regions of the chapters by name: masks (lat, lon) of land, each with a cell or more.

    All land, the study area, the study's boxes, and "east", which is "north" and "south" together
    unless the study names another one.
    """
    land = static["land"]
    boxes = {name: land & box_mask(static, box) for name, box in study.regions.items()}
    masks = {"all land": land, study.study_area.name: static["study_area"]}
    masks |= {"east": boxes["north"] | boxes["south"]} | boxes
    for name, mask in masks.items():
        if not mask.any():
            raise ValueError(
                f"`regions` must hold land, got none in {name!r}: degrees north and east of a "
                f"box in {study.domain}, south below north and west below east"
            )
    return masks


def on_cells_of(field, fine):
    """The value of the coarse cell around each fine one; NaN off the mask `fine` (lat, lon)."""
    near = field.sel(lat=fine["lat"], lon=fine["lon"], method="nearest")
    return near.assign_coords(lat=fine["lat"], lon=fine["lon"]).where(fine)


def block_means(field, scale_factor):
    """Means over the `scale_factor`**2 fine cells of each coarse one; missing ones are left out."""
    return field.coarsen(lat=scale_factor, lon=scale_factor).mean(keep_attrs=True)
