"""The domain, its nested grids, and the area of their cells."""

import numpy as np
import xarray as xr

from smcore.config import Domain

EARTH_RADIUS = 6_371_229.0  # m, as in ERA5-Land

__all__ = ["Domain", "box_mask", "cell_area", "coarse_grid", "fine_grid", "uncovered"]


def coarse_grid(domain=None, *, registration="nested"):
    """The grid of the predictors.

    Parameters
    ----------
    domain : Domain, optional
        By default 18-54 N, 71-137 E with cells of 2 degrees.
    registration : {"nested", "paper"}, default: "nested"
        ``nested``: the cells tile the domain, centres 19..53 N and 72..136 E. ``paper``: the
        first centres lie on the southern and western edge (18..52 N, 71..135 E), as inferred
        from the paper's text.

    Returns
    -------
    xr.Dataset
        ``lat`` and ``lon`` in degrees, ascending, with ``lat_bnds`` and ``lon_bnds``.

    Raises
    ------
    ValueError
        If the registration is unknown.
    """
    domain = domain or Domain()
    return _grid(domain, domain.resolution, domain.resolution, registration)


def fine_grid(domain=None, *, scale_factor=8, registration="nested"):
    """The grid of the product: `scale_factor` cells per coarse cell along each axis.

    Parameters
    ----------
    domain : Domain, optional
        By default 18-54 N, 71-137 E with coarse cells of 2 degrees.
    scale_factor : int, default: 8
        Fine cells per coarse cell along each axis.
    registration : {"nested", "paper"}, default: "nested"
        ``nested``: the fine cells tile the coarse ones exactly, which is where bilinear upsampling
        in the network (``align_corners=False``) puts its values. ``paper``: both grids begin with
        a centre on the edge of the domain (18..53.75 N), so that input and target are out of
        register by (`scale_factor` - 1) / 2 fine cells: 0.875 degrees.

    Returns
    -------
    xr.Dataset
        ``lat`` and ``lon`` in degrees, ascending, with ``lat_bnds`` and ``lon_bnds``.

    Raises
    ------
    ValueError
        If the registration is unknown.
    """
    domain = domain or Domain()
    return _grid(domain, domain.resolution / scale_factor, domain.resolution, registration)


def _grid(domain, step, coarse_step, registration):
    if registration not in ("nested", "paper"):
        raise ValueError(f"`registration` must be 'nested' or 'paper', got {registration!r}")
    offset = 0.5 if registration == "nested" else 0.0

    def centres(low, high):
        cells = round((high - low) / coarse_step) * round(coarse_step / step)
        return low + step * (np.arange(cells) + offset)

    axes = {
        "lat": (centres(domain.south, domain.north), "latitude", "degrees_north", "Y"),
        "lon": (centres(domain.west, domain.east), "longitude", "degrees_east", "X"),
    }
    grid = xr.Dataset()
    for name, (values, standard_name, units, axis) in axes.items():
        attributes = {"standard_name": standard_name, "units": units, "axis": axis}
        grid[name] = (name, values, attributes | {"bounds": f"{name}_bnds"})
        edges = np.stack([values - step / 2, values + step / 2], axis=-1)
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
        Area in m2, dimensions lat and lon:
        ``R^2 dlon (sin(lat + dlat/2) - sin(lat - dlat/2))``.
    """
    dlat, dlon = (abs(float(axis[1] - axis[0])) for axis in (lat, lon))
    north = np.sin(np.deg2rad(np.minimum(lat + dlat / 2, 90)))
    south = np.sin(np.deg2rad(np.maximum(lat - dlat / 2, -90)))
    area = EARTH_RADIUS**2 * np.deg2rad(dlon) * (north - south) * xr.ones_like(lon)
    area.attrs = {"standard_name": "cell_area", "units": "m2"}
    return area.rename("cell_area")


def uncovered(field, region):
    """What of a region the cells of a field leave out, in words; empty where they cover it.

    Parameters
    ----------
    field : xr.DataArray
        Coordinates ``lat`` and ``lon`` in degrees, each along its own dimension.
    region : Domain or Region
        ``south``, ``north``, ``west`` and ``east`` in degrees.
    """
    for axis, low, high in (
        ("lat", region.south, region.north),
        ("lon", region.west, region.east),
    ):
        centres = np.sort(field[axis].values)
        half = np.diff(centres).max(initial=0) / 2
        around = axis == "lon" and np.ptp(centres) + 2 * half > 359.9
        if not around and (centres[0] - half > low + 1e-6 or centres[-1] + half < high - 1e-6):
            return (
                f"{axis} {centres[0]:g} to {centres[-1]:g} does not cover the domain, {low:g} to "
                f"{high:g}: fetch a larger region"
            )
    return ""


def box_mask(grid, region):
    """Cells whose centre lies in a box.

    Parameters
    ----------
    grid : xr.Dataset or xr.DataArray
        Anything with coordinates ``lat`` and ``lon`` in degrees.
    region : Region or mapping
        ``south``, ``north``, ``west`` and ``east`` in degrees; southern and western edge belong
        to the box.

    Returns
    -------
    xr.DataArray
        Boolean, dimensions lat and lon.

    Raises
    ------
    ValueError
        If a mapping lacks one of these keys.
    """
    box = dict(region)
    if not {"south", "north", "west", "east"} <= set(box):
        raise ValueError(
            f"`region` must have the keys south, north, west and east, got {sorted(box)}"
        )
    lat, lon = grid["lat"], grid["lon"]
    rows = (lat >= box["south"]) & (lat < box["north"])
    return (rows & (lon >= box["west"]) & (lon < box["east"])).rename("region")


def region_masks(static, study):
    """The regions of the chapters: all land, the study area, the study's boxes, and the east.

    Parameters
    ----------
    static : xr.Dataset
        From :func:`smcore.prepared.open_static`.
    study : Study
        Its study area and regions.

    Returns
    -------
    dict of str to xr.DataArray
        Boolean masks (lat, lon). The boxes hold all land whose cells' centres lie in them; "east"
        is "north" and "south" together, unless the study names another one.

    Raises
    ------
    ValueError
        If a region holds no land.
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
    """Each fine cell with the value of the coarse cell that it lies in.

    Parameters
    ----------
    field : xr.DataArray or xr.Dataset
        Dimensions lat, lon (coarse) and any others.
    fine : xr.DataArray of bool
        Mask (lat, lon) on the fine grid: the others become NaN.
    """
    near = field.sel(lat=fine["lat"], lon=fine["lon"], method="nearest")
    return near.assign_coords(lat=fine["lat"], lon=fine["lon"]).where(fine)


def block_means(field, scale_factor):
    """Means of a field on the fine grid over the cells of the coarse grid.

    Parameters
    ----------
    field : xr.DataArray
        Dimensions lat, lon (fine) and any others. Missing cells are left out.
    scale_factor : int
        Fine cells per coarse cell along each axis.
    """
    return field.coarsen(lat=scale_factor, lon=scale_factor).mean(keep_attrs=True)
