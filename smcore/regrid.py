"""Regridding between latitude-longitude grids with weights in closed form."""

import math
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
        Dimensions (..., lat, lon), coordinates in degrees: latitude in either order, longitude in
        0..360, -180..180 or beyond. NaN is missing. Chunks along leading dimensions stay lazy.
    target : xr.Dataset or xr.DataArray
        Its coordinates ``lat`` and ``lon`` are the cell centres wanted.
    method : {"bilinear", "conservative", "nearest"}, default: "bilinear"
        Interpolation along chords, as in ESMF; the area-weighted mean of the overlapping, valid
        source cells; or the nearest source cell on the sphere.
    na_thres : float, default: 0.5
        A target cell is missing where more than this share of its weight lies on missing source
        cells or outside; the rest is renormalised. 0: any missing source cell suffices.
    engine : {"smcore", "xesmf"}, default: "smcore"
        Who makes the weights. ``xesmf`` also takes curvilinear grids (two-dimensional ``lat`` and
        ``lon``; not ``conservative``) and unstructured ones (only ``nearest``).

    Returns
    -------
    xr.DataArray
        Dimensions (..., lat, lon) on the target's coordinates, with the field's attributes. Missing
        beyond the outermost centres (``bilinear``) or cells of a rectilinear source grid.

    Raises
    ------
    ValueError
        If method or engine is unknown, or cannot regrid from this grid.
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
    if not {"lat", "lon"} <= set(field.coords):
        names = ", ".join(map(str, field.coords))
        raise ValueError(f"`field` must have coordinates lat and lon, got {names}: rename them")
    dims = tuple(dict.fromkeys(field["lat"].dims + field["lon"].dims))
    rectilinear = is_rectilinear(field)
    if engine == "smcore" and not rectilinear:
        raise ValueError(
            f"`field` must be on a rectilinear grid, got lat and lon along {dims}: others need "
            "engine='xesmf' (conda install -c conda-forge xesmf)"
        )
    if not rectilinear and (method == "conservative" or method == "bilinear" and len(dims) == 1):
        raise ValueError(
            f"`method` must be 'nearest' for lat and lon along {dims}, got {method!r}: needs cells"
        )

    if field.dtype.kind != "f":
        field = field.astype(float)
    axes = [np.asarray(grid[axis], float) for grid in (field, target) for axis in ("lat", "lon")]
    axes[3] = np.unwrap(axes[3], period=360)  # neighbours across the date line
    keys = [(axis.tobytes(), axis.shape) for axis in axes]
    matrix, used = _weights(engine, method, rectilinear, *keys)
    matrix, shape = matrix.astype(field.dtype), (axes[2].size, axes[3].size)

    def apply(block):
        steps, cells = block.shape[: -len(dims)], block.shape[-len(dims) :]
        columns = np.ascontiguousarray(block.reshape(-1, math.prod(cells))[:, used].T)
        return _apply(matrix, columns, na_thres).T.reshape(*steps, *shape)

    result = xr.apply_ufunc(
        apply,
        field,
        input_core_dims=[dims],
        output_core_dims=[["lat", "lon"]],
        exclude_dims=set(dims),
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"lat": shape[0], "lon": shape[1]}},
        output_dtypes=[field.dtype],
        keep_attrs=True,
    )
    return result.assign_coords(lat=target["lat"], lon=target["lon"])


def is_rectilinear(field):
    """Whether ``lat`` and ``lon`` of a field have one dimension each."""
    lat, lon = field["lat"], field["lon"]
    return lat.ndim == lon.ndim == 1 and lat.dims != lon.dims


def _apply(matrix, columns, na_thres):
    """Values (target cell, step) from those of the source cells used (source cell, step)."""
    if na_thres == 0:  # NaN propagates, even from a corner of no weight, as in ESMF
        weight = np.asarray(matrix.sum(axis=1, dtype=float))
        values = matrix @ columns
    else:
        valid = np.isfinite(columns)
        columns[~valid] = 0
        values = matrix @ columns
        if (valid == valid[:, :1]).all():  # the same cells every month
            valid = valid[:, :1]
        weight = matrix @ valid.astype(columns.dtype)
        with np.errstate(invalid="ignore", divide="ignore"):
            values /= weight
    missing = weight < np.clip(1 - na_thres, 1e-6, 1 - 1e-6)
    values[missing if missing.shape == values.shape else missing[:, 0]] = np.nan
    return values


@lru_cache(maxsize=64)
def _weights(engine, method, rectilinear, *keys):
    """Weights (target cell, source cell used), and which source cells are used."""
    axes = [np.frombuffer(data).reshape(shape) for data, shape in keys]
    makers = {"bilinear": _bilinear, "conservative": _conservative, "nearest": _nearest}
    matrix = _esmf(method, rectilinear, *axes) if engine == "xesmf" else makers[method](*axes)
    if method == "nearest" and rectilinear:
        matrix = sparse.diags(_covered(*axes)) @ matrix
    used = np.flatnonzero(np.bincount(matrix.indices))
    return matrix[:, used], used


def _ascending_longitude(lon, *, repeat=True):
    """Ascending longitudes that start after the widest gap, and their native indices.

    With `repeat` the first column of a global grid comes again at its end, 360 degrees on.
    """
    values = np.mod(lon, 360)
    index = np.unique(np.round(values, 9), return_index=True)[1]
    gaps = np.diff(values[index], append=values[index[0]] + 360)
    closed = gaps.max() < 1.5 * np.median(gaps)
    start = np.argmin(index) if closed else np.argmax(gaps) + 1  # the first native column
    index = np.roll(index, -int(start))
    values = values[index[0]] + np.mod(values[index] - values[index[0]], 360)
    if closed and repeat:
        values, index = np.append(values, values[0] + 360), np.append(index, index[0])
    return values, index


def _bilinear(lat, lon, target_lat, target_lon):
    x, x_index = _ascending_longitude(lon)
    descending = lat[0] > lat[-1]
    y_index = np.argsort(lat)
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

    corners = [(j, i), (j, i + 1), (j + 1, i), (j + 1, i + 1)]
    columns = np.stack([y_index[a] * lon.size + x_index[b] for a, b in corners], -1)[inside]
    weights = np.stack([(1 - v) * (1 - u), (1 - v) * u, v * (1 - u), v * u], -1)[inside]
    starts = 4 * np.concatenate([[0], np.cumsum(inside)])
    shape = (inside.size, lat.size * lon.size)
    return sparse.csr_matrix((weights.ravel(), columns.ravel(), starts), shape)


def _edges(centres, limit=np.inf):
    middle = (centres[1:] + centres[:-1]) / 2
    edges = np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])
    step = np.abs(np.diff(centres)).max()
    for end in (0, -1):  # the outermost cells of a global grid end at the poles
        if abs(edges[end]) > limit - step / 2:
            edges[end] = np.copysign(limit, edges[end])
    return edges


def _conservative(lat, lon, target_lat, target_lon):
    def overlap(source, target):
        """What each source cell has in common with each target cell, from their edges."""
        (low, high), (start, end) = (
            np.sort([edges[:-1], edges[1:]], axis=0) for edges in (source, target)
        )
        common = np.minimum(high, end[:, None]) - np.maximum(low, start[:, None])
        return np.clip(common, 0, None)  # (target, source)

    y = np.sin(np.deg2rad(_edges(lat, limit=90)))
    target_y = np.sin(np.deg2rad(_edges(target_lat, limit=90)))
    across = overlap(y, target_y) / np.abs(np.diff(target_y))[:, None]

    x, x_index = _ascending_longitude(lon, repeat=False)
    x, target_x = _edges(x), _edges(target_lon)
    along = np.zeros((target_lon.size, lon.size))
    for turn in (-720, -360, 0, 360, 720):
        along[:, x_index] += overlap(x + turn, target_x)
    along /= np.abs(np.diff(target_x))[:, None]
    return sparse.kron(sparse.csr_matrix(across), sparse.csr_matrix(along), format="csr")


def _points(lat, lon):
    lat, lon = np.meshgrid(np.deg2rad(lat), np.deg2rad(lon), indexing="ij")
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    return points.reshape(-1, 3)


def _nearest(lat, lon, target_lat, target_lon):
    column = cKDTree(_points(lat, lon)).query(_points(target_lat, target_lon))[1]
    starts, shape = np.arange(column.size + 1), (column.size, lat.size * lon.size)
    return sparse.csr_matrix((np.ones(column.size), column, starts), shape)


def _covered(lat, lon, target_lat, target_lon):
    """1 where a target lies within the cells of a rectilinear source grid, else 0; flat."""
    y, x = _edges(lat, limit=90), _ascending_longitude(lon)[0]
    inside_y = (target_lat > y.min() - 1e-9) & (target_lat < y.max() + 1e-9)
    west, *_, east = _edges(x)
    inside_x = np.mod(target_lon - west + 1e-9, 360) < east - west + 2e-9
    return np.outer(inside_y, inside_x).astype(float).ravel()


def _esmf(method, rectilinear, lat, lon, target_lat, target_lon):
    try:
        import xesmf
    except ImportError as error:
        raise ImportError(
            "engine='xesmf' needs xESMF with esmpy: conda install -c conda-forge xesmf"
        ) from error
    target = xr.Dataset(coords={"lat": target_lat, "lon": target_lon})
    column, periodic = np.arange(lat.size), False
    if rectilinear:
        # The first column again at the end closes the globe; ESMF's periodic grid invents poles.
        x, index = _ascending_longitude(lon, repeat=method == "bilinear")
        column = (column[:, None] * lon.size + index).ravel()
        source = xr.Dataset(coords={"lat": lat, "lon": x})
    else:
        dims = ("y", "x")[: lat.ndim]
        source = xr.Dataset({"lat": (dims, lat), "lon": (dims, lon)})
    if lat.ndim == 2:  # does the last column adjoin the first?
        step = np.abs((np.diff(lon, append=lon[:, :1]) + 180) % 360 - 180)
        periodic = bool(np.median(step[:, -1]) < 1.5 * np.median(step))
    if method == "conservative":
        for grid in (source, target):
            grid["lat_b"] = "lat_b", _edges(grid["lat"].values, limit=90)
            grid["lon_b"] = "lon_b", _edges(grid["lon"].values)
    regridder = xesmf.Regridder(
        source,
        target,
        "nearest_s2d" if method == "nearest" else method,
        periodic=periodic,
        locstream_in=not rectilinear and lat.ndim == 1,
    )
    weights = regridder.weights.data.to_scipy_sparse().tocoo()
    shape = (target_lat.size * target_lon.size, lat.size * (lon.size if rectilinear else 1))
    return sparse.csr_matrix((weights.data, (weights.row, column[weights.col])), shape)


def fill_nearest(field):
    """A field whose missing cells take the value of the nearest cell that is never missing."""
    ordered = field.transpose(..., "lat", "lon")
    leading = ordered.dims[:-2]
    valid = ordered.notnull().all(leading).values.ravel()
    if not valid.any():
        empty = np.argwhere(ordered.isnull().all(("lat", "lon")).values)
        places = [f"{d} {ordered[d].values[i]}" for row in empty[:1] for d, i in zip(leading, row)]
        raise ValueError(
            "`field` has no cell with a value at every time to fill from; wholly missing: "
            f"{len(empty)} of {math.prod(ordered.shape[:-2])} maps {', '.join(places)}".rstrip()
        )
    points = _points(field["lat"], field["lon"])
    index = np.flatnonzero(valid)[cKDTree(points[valid]).query(points)[1]]
    values = ordered.values.reshape(*ordered.shape[:-2], -1)[..., index]
    return ordered.copy(data=values.reshape(ordered.shape))


def upsampled(field, reference):
    """A field (..., lat, lon) interpolated bilinearly to the fine grid of `reference`, in float32.

    Beyond the outermost centres the value of the centre is held; where a coarse cell is missing,
    its neighbours share its weight. ValueError if the fine grid reaches beyond the coarse cells.
    """
    rows = _interpolation_matrix(reference["lat"].values, field["lat"].values, "lat")
    columns = _interpolation_matrix(reference["lon"].values, field["lon"].values, "lon")
    field = field.transpose(..., "lat", "lon").astype("float32")
    coords = {name: field[name] for name in field.dims[:-2] if name in field.coords}
    coords |= {"lat": reference["lat"], "lon": reference["lon"]}

    def interpolated(part):
        return xr.DataArray(rows @ part.data @ columns.T, coords, field.dims)

    values, valid = interpolated(field.fillna(0)), field.notnull()
    if valid.all():
        return values
    # share of each fine cell's weights that fell on coarse cells with a value
    share = interpolated(valid.astype("float32"))
    return values / share.where(share > 0)


def coarse_weights(weights, predictors):
    """Weights of coarse cells that give the fine grid's weighted mean of an interpolated field.

    From `weights` (lat, lon) of the fine cells to those of the coarse grid of `predictors`, with
    the same sum: interpolation is linear. For fields without missing cells.
    """
    rows = _interpolation_matrix(weights["lat"].values, predictors["lat"].values, "lat")
    columns = _interpolation_matrix(weights["lon"].values, predictors["lon"].values, "lon")
    values = rows.T @ weights.transpose("lat", "lon").values.astype(float) @ columns
    return xr.DataArray(values, {name: predictors[name] for name in ("lat", "lon")})


def _interpolation_matrix(fine, coarse, name):
    """Linear interpolation as a matrix (fine, coarse), in single precision, ends held."""
    order = np.argsort(coarse)
    step = np.diff(coarse[order]).max()  # "paper" grids reach one fine cell short of it
    if fine.min() < coarse.min() - step / 2 - 1e-6 or fine.max() > coarse.max() + step:
        raise ValueError(
            f"`reference` must lie within the coarse cells of `predictors`, got {name} "
            f"{fine.min():g} to {fine.max():g} for centres {coarse.min():g} to {coarse.max():g}; "
            "choose the same domain, and longitudes of the same range"
        )
    weights = [np.interp(fine, coarse[order], unit[order]) for unit in np.eye(coarse.size)]
    return np.stack(weights, axis=1).astype("float32")
