"""Regridding between latitude-longitude grids with weights in closed form."""

from functools import lru_cache

import numpy as np
import xarray as xr
from scipy import sparse
from scipy.spatial import cKDTree

METHODS = ("bilinear", "conservative", "nearest")


def regrid(field, target, *, method="bilinear", na_thres=0.5, engine="smcore"):
    """A field on another grid.

    Parameters
    ----------
    field : xr.DataArray
        Dimensions (..., lat, lon), coordinates in degrees: latitude ascending or descending,
        longitude in 0..360, -180..180 or beyond. NaN is missing. May be chunked along the
        leading dimensions.
    target : xr.Dataset or xr.DataArray
        Its coordinates ``lat`` and ``lon`` are the cell centres wanted.
    method : {"bilinear", "conservative", "nearest"}, default: "bilinear"
        ``bilinear`` interpolates as ESMF does, in Cartesian space along chords.
        ``conservative`` is the area-weighted mean of the overlapping, valid source cells.
        ``nearest`` takes the nearest source cell on the sphere.
    na_thres : float, default: 0.5
        A target cell is missing where more than this share of its weight lies on missing
        source cells or outside the source grid; the rest is renormalised. 0: any missing
        source cell suffices.
    engine : {"smcore", "xesmf"}, default: "smcore"
        ``xesmf`` (where it is installed) also handles curvilinear grids.

    Returns
    -------
    xr.DataArray
        Dimensions (..., lat, lon) on the target's coordinates, with the field's attributes.
        Target cells outside the source grid are missing.

    Raises
    ------
    ValueError
        If method or engine is unknown, or the source grid is not rectilinear.
    ImportError
        If xESMF is asked for and not installed.

    Notes
    -----
    With ``h`` half the width of the source cell that holds the target longitude, ``lam`` the
    longitude from its centre: ``u = (1 + tan(lam) / tan(h)) / 2``,
    ``T = tan(lat) cos(h) / cos(lam)``, and in the row with ``tan(lat_j) <= T <= tan(lat_j+1)``
    ``v = (T cos(lat_j) - sin(lat_j)) / (sin(lat_j+1) - sin(lat_j) - T (cos(lat_j+1) -
    cos(lat_j)))``; the four weights are the products of u, 1-u, v, 1-v.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
    if engine not in ("smcore", "xesmf"):
        raise ValueError(f"`engine` must be 'smcore' or 'xesmf', got {engine!r}")
    if engine == "xesmf":
        return _regrid_xesmf(field, target, method, na_thres)
    if "lat" not in field.dims or "lon" not in field.dims:
        raise ValueError(
            f"`field` must have dimensions lat and lon, got {field.dims}: unstructured and "
            "curvilinear grids need engine='xesmf' (conda install -c conda-forge xesmf)"
        )

    if field.dtype.kind != "f":
        field = field.astype(float)
    axes = [np.asarray(grid[axis], float) for grid in (field, target) for axis in ("lat", "lon")]
    matrix = _weights(method, *(axis.tobytes() for axis in axes)).astype(field.dtype)
    shape = (axes[2].size, axes[3].size)
    result = xr.apply_ufunc(
        lambda block: _apply(matrix, block, shape, na_thres),
        field,
        input_core_dims=[["lat", "lon"]],
        output_core_dims=[["lat", "lon"]],
        exclude_dims={"lat", "lon"},
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"lat": shape[0], "lon": shape[1]}},
        output_dtypes=[field.dtype],
        keep_attrs=True,
    )
    return result.assign_coords(lat=target["lat"], lon=target["lon"])


def _apply(matrix, block, shape, na_thres):
    columns = block.reshape(-1, block.shape[-2] * block.shape[-1]).T
    threshold = np.clip(1 - na_thres, 1e-6, 1 - 1e-6)
    if na_thres == 0:  # NaN propagates, even from a corner of no weight, as in ESMF
        weight = np.asarray(matrix.sum(axis=1, dtype=float))
        values = matrix @ columns
    else:
        valid = np.isfinite(columns)
        if (valid == valid[:, :1]).all():  # the same cells every month
            weight = matrix @ valid[:, :1].astype(columns.dtype)
        else:
            weight = matrix @ valid.astype(columns.dtype)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = (matrix @ np.where(valid, columns, 0)) / weight
    values = np.where(weight >= threshold, values, np.nan)
    return values.T.reshape(*block.shape[:-2], *shape).astype(block.dtype)


@lru_cache(maxsize=64)
def _weights(method, *axes):
    lat, lon, target_lat, target_lon = (np.frombuffer(axis) for axis in axes)
    if method == "nearest":
        return _nearest(lat, lon, target_lat, target_lon)
    if method == "conservative":
        return _conservative(lat, lon, target_lat, target_lon)
    return _bilinear(lat, lon, target_lat, target_lon)


def _ascending_longitude(lon):
    """Ascending longitudes that start after the widest gap, and their native indices.

    On a global grid the first column is repeated, 360 degrees on, at the end.
    """
    values, index = np.unique(np.round(np.mod(lon, 360), 9), return_index=True)
    values = np.mod(lon, 360)[index]
    gaps = np.diff(values, append=values[0] + 360)
    step = np.median(gaps)
    if gaps.max() < 1.5 * step:  # global
        start = int(np.argmin(index))  # begin with the first native column
        values, index = np.roll(values, -start), np.roll(index, -start)
        values = np.append(values, values[0])
        index = np.append(index, index[0])
    else:
        start = int(np.argmax(gaps)) + 1
        values, index = np.roll(values, -start), np.roll(index, -start)
    values = values[0] + np.mod(values - values[0], 360)
    if values[-1] == values[0]:
        values[-1] += 360
    return values, index


def _bilinear(lat, lon, target_lat, target_lon):
    x, x_index = _ascending_longitude(lon)
    descending = lat[0] > lat[-1]
    y_index = np.arange(lat.size)[::-1] if descending else np.arange(lat.size)
    y = np.deg2rad(lat[y_index])

    # A target on a source line belongs to the cell with the lower native index, as in ESMF.
    target_x = x[0] + np.mod(target_lon - x[0], 360)
    target_x = np.where(target_x > x[0] + 360 - 1e-9, x[0], target_x)  # on the western edge
    i = np.clip(np.searchsorted(x, target_x, side="left") - 1, 0, x.size - 2)
    inside_x = target_x <= x[-1] + 1e-9
    half = np.deg2rad(x[i + 1] - x[i]) / 2
    lam = np.deg2rad(target_x - x[i]) - half
    u = (1 + np.tan(lam) / np.tan(half)) / 2  # (lon)

    tangent = np.tan(np.deg2rad(target_lat))[:, None] * (np.cos(half) / np.cos(lam))  # (lat, lon)
    rows = np.searchsorted(np.tan(y), tangent, side="right" if descending else "left") - 1
    j = np.clip(rows, 0, y.size - 2)
    sin, cos = np.sin(y), np.cos(y)
    v = (tangent * cos[j] - sin[j]) / ((sin[j + 1] - sin[j]) - tangent * (cos[j + 1] - cos[j]))
    inside = inside_x & (v > -1e-9) & (v < 1 + 1e-9)
    u = np.broadcast_to(u, v.shape)
    i = np.broadcast_to(i, v.shape)

    weights = [(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u]
    corners = [(j, i), (j, i + 1), (j + 1, i), (j + 1, i + 1)]
    target = np.arange(v.size).reshape(v.shape)
    rows = np.concatenate([target[inside]] * 4)
    columns = np.concatenate([(y_index[a] * lon.size + x_index[b])[inside] for a, b in corners])
    values = np.concatenate([weight[inside] for weight in weights])
    return sparse.csr_matrix((values, (rows, columns)), shape=(v.size, lat.size * lon.size))


def _conservative(lat, lon, target_lat, target_lon):
    def edges(centres, limit=None):
        middle = (centres[1:] + centres[:-1]) / 2
        first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
        result = np.concatenate([[first], middle, [last]])
        if limit is not None:
            step = np.abs(np.diff(centres)).max()
            for end in (0, -1):  # the outermost cells of a global grid end at the poles
                if abs(result[end]) > limit - step / 2:
                    result[end] = np.copysign(limit, result[end])
        return result

    def overlap(source, target):
        low = np.maximum(np.minimum(source[:-1], source[1:]), np.minimum(*target)[:, None])
        high = np.minimum(np.maximum(source[:-1], source[1:]), np.maximum(*target)[:, None])
        return np.clip(high - low, 0, None)  # (target, source)

    def pairs(bounds):
        return np.stack([bounds[:-1], bounds[1:]])

    y = np.sin(np.deg2rad(edges(lat, limit=90)))
    target_y = np.sin(np.deg2rad(edges(target_lat, limit=90)))
    across = overlap(y, pairs(target_y))
    across /= np.abs(np.diff(target_y))[:, None]

    x, x_index = _ascending_longitude(lon)
    if x[-1] - x[0] > 360 - 1e-6:
        x, x_index = x[:-1], x_index[:-1]
    x = edges(x)
    target_x = edges(target_lon)
    along = np.zeros((target_lon.size, lon.size))
    for turn in (-720, -360, 0, 360, 720):
        along[:, x_index] += overlap(x + turn, pairs(target_x))
    along /= np.abs(np.diff(target_x))[:, None]
    return sparse.kron(sparse.csr_matrix(across), sparse.csr_matrix(along), format="csr")


def _nearest(lat, lon, target_lat, target_lon):
    def points(lat, lon):
        lat, lon = np.meshgrid(np.deg2rad(lat), np.deg2rad(lon), indexing="ij")
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)

    tree = cKDTree(points(lat, lon).reshape(-1, 3))
    targets = points(target_lat, target_lon).reshape(-1, 3)
    distance, column = tree.query(targets)
    # Beyond the edge of a regional grid there is nothing near.
    reach = np.deg2rad(np.hypot(np.abs(np.diff(lat)).max(), np.abs(np.diff(lon)).min()))
    inside = distance <= reach
    rows = np.flatnonzero(inside)
    return sparse.csr_matrix(
        (np.ones(rows.size), (rows, column[inside])), shape=(len(targets), lat.size * lon.size)
    )


def _regrid_xesmf(field, target, method, na_thres):
    try:
        import xesmf
    except ImportError as error:
        raise ImportError(
            "engine='xesmf' needs xESMF with esmpy, which only conda-forge has: "
            "conda install -c conda-forge xesmf, or leave engine='smcore' for rectilinear grids"
        ) from error
    names = {"conservative": "conservative_normed", "nearest": "nearest_s2d"}
    span = float(np.ptp(field["lon"])) + float(np.abs(np.diff(field["lon"])).max())
    regridder = xesmf.Regridder(
        field.to_dataset(name="field"),
        target,
        names.get(method, method),
        periodic=span > 359 and method != "conservative",
    )
    return regridder(field, skipna=na_thres > 0, na_thres=na_thres, keep_attrs=True)


def fill_nearest(field):
    """A field whose missing cells take the value of the nearest cell that is never missing.

    Parameters
    ----------
    field : xr.DataArray
        Dimensions (..., lat, lon), coordinates in degrees.

    Raises
    ------
    ValueError
        If every cell is missing at some time.
    """
    leading = [dim for dim in field.dims if dim not in ("lat", "lon")]
    ordered = field.transpose(*leading, "lat", "lon")
    valid = ordered.notnull().all(leading).values
    if not valid.any():
        raise ValueError("`field` has no cell with a value at every time: nothing to fill from")
    lat, lon = np.meshgrid(np.deg2rad(field["lat"]), np.deg2rad(field["lon"]), indexing="ij")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    nearest = cKDTree(points[valid]).query(points.reshape(-1, 3))[1]
    index = np.flatnonzero(valid)[nearest]
    filled = ordered.values.reshape(*ordered.shape[:-2], -1)[..., index].reshape(ordered.shape)
    return ordered.copy(data=filled)
