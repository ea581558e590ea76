"""What a network has to beat.

Each baseline takes the predictors on the coarse grid, the reference on the fine grid and the
period to learn from, and gives an estimate on the fine grid for every month of the predictors.
It is NaN where the reference never has a value.
"""

import numpy as np
import xarray as xr


def ensemble_mean(predictors, reference, *, train_period):
    """Mean of the sources, interpolated to the fine grid; nothing is learned.

    Parameters
    ----------
    predictors : xr.DataArray
        Volumetric water content with dimensions source_id, time, lat, lon (coarse grid), one
        value per month.
    reference : xr.DataArray
        Volumetric water content with dimensions time, lat, lon (fine grid).
    train_period : pair of str
        First and last date, both included. Only checked, so that all baselines are called
        the same way.

    Returns
    -------
    xr.DataArray
        Estimate in the units of `reference`, with its lat and lon and the time of
        `predictors`.

    Raises
    ------
    ValueError
        If `predictors` has no source_id, if units differ, if the fine grid reaches beyond
        the coarse cells, or if `reference` lacks a calendar month in `train_period`.

    Notes
    -----
    Bilinear between the centres of coarse cells; in the outer half of the outermost cells
    the value of the centre is held. Where a coarse cell is missing, the weights are shared
    among its neighbours. A month in which a source is missing is the mean of the others.
    """
    _check(predictors, reference)
    _in_train_period(reference, train_period, "reference")
    estimate = _upsampled(predictors.mean("source_id"), reference)
    return _finished(estimate, reference, "ensemble mean")


def climatology(predictors, reference, *, train_period):
    """The reference's mean of the calendar month: no weather, no change.

    Parameters, result and errors are those of :func:`ensemble_mean`; the climatology is that
    of the months of `reference` in `train_period`. Of `predictors`, only the time is used.
    """
    _check(predictors, reference)
    seasonal_cycle = monthly_climatology(_in_train_period(reference, train_period, "reference"))
    estimate = seasonal_cycle.sel(month=predictors["time"].dt.month).drop_vars("month")
    return _finished(estimate, reference, "climatology")


def delta_change(predictors, reference, *, train_period, years=1):
    """The reference's climatology plus the interpolated anomaly of the ensemble mean.

    Parameters, result and errors are those of :func:`ensemble_mean`. Climatology and anomaly
    are taken by calendar month, each from its own months in `train_period`, which
    `predictors` therefore have to hold as well. `years` smooths the anomaly, as in
    :func:`anomalies`.

    References
    ----------
    Maraun and Widmann (2018), Statistical Downscaling and Bias Correction for Climate
    Research, Cambridge University Press, doi:10.1017/9781107588783
    """
    _check(predictors, reference)
    _in_train_period(reference, train_period, "reference")
    anomaly = anomalies(predictors, train_period=train_period, years=years)
    return with_climatology(anomaly, reference, train_period=train_period)


def with_climatology(anomaly, reference, *, train_period):
    """The reference's climatology plus the mean of the sources' anomalies, interpolated.

    Parameters
    ----------
    anomaly : xr.DataArray
        From :func:`anomalies`, dimensions source_id, time, lat, lon (coarse grid).
    reference, train_period
        As in :func:`ensemble_mean`.

    Returns
    -------
    xr.DataArray
        Estimate for every month of `anomaly`.
    """
    cycle = climatology(anomaly, reference, train_period=train_period)
    estimate = _upsampled(anomaly.mean("source_id"), reference) + cycle
    return _finished(estimate, reference, "delta change")


def anomalies(predictors, *, train_period, years=1):
    """Deviation from the mean of the calendar month in a period, smoothed over years.

    Parameters
    ----------
    predictors : xr.DataArray
        Any field with the dimension time, whole years of months.
    train_period : (str, str)
        First and last year of the mean, both included.
    years : int, default: 1
        Odd length of a running mean over the same calendar month, centred; at both ends of
        the record it takes the years that are there. Later months of a model run tell nothing
        of the reference.

    Returns
    -------
    xr.DataArray
        As `predictors`.

    Raises
    ------
    ValueError
        If `years` is even, or `predictors` lacks a calendar month in `train_period`.
    """
    if years % 2 == 0:
        raise ValueError(f"`years` must be odd, so that the mean has a middle year, got {years}")
    past = monthly_climatology(_in_train_period(predictors, train_period, "predictors"))
    month = predictors["time"].dt.month
    anomaly = (predictors - past.sel(month=month)).drop_vars("month")
    if years == 1:
        return anomaly
    parts = [
        part.rolling(time=years, center=True, min_periods=1).mean()
        for _, part in anomaly.groupby("time.month")
    ]
    return xr.concat(parts, "time").sortby("time").transpose(*anomaly.dims)


def _check(predictors, reference):
    if "source_id" not in predictors.dims:
        raise ValueError(
            f"`predictors` must have the dimension source_id, got {predictors.dims}; "
            "expand_dims('source_id') for a single source"
        )
    units = predictors.attrs.get("units"), reference.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(
            f"`predictors` must have the units of `reference`, {units[1]!r}, got {units[0]!r}"
        )


def _in_train_period(field, train_period, name):
    selected = field.sel(time=slice(*train_period))
    months = np.unique(selected["time"].dt.month.values)
    if len(months) < 12:
        times = field["time"].values
        raise ValueError(
            f"`train_period` must hold every calendar month of `{name}`, got {train_period[0]} to "
            f"{train_period[1]} with {len(months)} of them, but `{name}` covers "
            f"{str(times[0])[:7]} to {str(times[-1])[:7]}"
        )
    return selected


def monthly_climatology(field):
    """Mean of each calendar month, with dimension month, in the precision of the field."""
    number = field["time"].dt.month.values
    means = [  # a loop, because groupby takes several times the memory
        field.isel(time=number == month).astype(float).mean("time").astype(field.dtype)
        for month in range(1, 13)
    ]
    return xr.concat(means, dim=xr.DataArray(range(1, 13), dims="month", name="month"))


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
    unit = np.eye(coarse.size)
    weights = [np.interp(fine, coarse[order], unit[column][order]) for column in range(coarse.size)]
    return np.stack(weights, axis=1).astype("float32")


def _upsampled(field, reference):
    """Bilinear interpolation of (..., lat, lon) to the grid of the reference, in float32."""
    rows = _interpolation_matrix(reference["lat"].values, field["lat"].values, "lat")
    columns = _interpolation_matrix(reference["lon"].values, field["lon"].values, "lon")
    field = field.transpose(..., "lat", "lon").astype("float32")
    missing = field.isnull()
    values = rows @ field.fillna(0).data @ columns.T
    if missing.any():
        # share of each fine cell's weights that fell on coarse cells with a value
        share = rows @ (~missing).astype("float32").data @ columns.T
        values = np.where(share > 0, values / np.where(share > 0, share, 1), np.nan)

    coords = {name: field[name] for name in field.dims[:-2] if name in field.coords}
    coords |= {"lat": reference["lat"], "lon": reference["lon"]}
    return xr.DataArray(values, dims=field.dims, coords=coords)


def _finished(estimate, reference, long_name):
    land = reference.notnull().any("time")
    estimate = estimate.where(land).transpose(..., "time", "lat", "lon").rename("theta")
    estimate.attrs = {"long_name": long_name}
    if "units" in reference.attrs:
        estimate.attrs["units"] = reference.attrs["units"]
    return estimate
