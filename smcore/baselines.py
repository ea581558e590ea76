"""What a network has to beat.

Each baseline takes the predictors on the coarse grid, the reference on the fine grid and the
period to learn from, and gives an estimate on the fine grid for every month of the predictors.
It is NaN where the reference never has a value.
"""

import numpy as np
import xarray as xr

from smcore.regrid import upsampled
from smcore.seasons import monthly_climatology

PENALTIES = 10.0 ** np.arange(-3, 5)  # of ridge, per month, in units of a source's variance
ROWS = 4  # of the fine grid at a time: 165 MB of ridge's predictors at the paper's size


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
    estimate = upsampled(predictors.mean("source_id"), reference)
    return _finished(estimate, reference, "ensemble mean")


def bias_removed(predictors, reference, *, train_period):
    """The interpolated ensemble mean less its mean bias in each cell.

    Parameters, result and errors are those of :func:`ensemble_mean`. The bias is the difference
    of the means over all months of `train_period`, which `predictors` therefore have to hold as
    well: the ensemble's own season is kept. Taken by calendar month, the same would be
    :func:`delta_change`.
    """
    _check(predictors, reference)
    observed = _in_train_period(reference, train_period, "reference")
    estimate = upsampled(predictors.mean("source_id"), reference)
    past = _in_train_period(estimate, train_period, "predictors")
    bias = past.mean("time", dtype=float) - observed.mean("time", dtype=float)
    return _finished(estimate - bias.astype("float32"), reference, "bias removed")


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
    estimate = upsampled(anomaly.mean("source_id"), reference) + cycle
    return _finished(estimate, reference, "delta change")


def mean_variance_scaling(predictors, reference, *, train_period):
    """The interpolated ensemble mean with the reference's mean and standard deviation.

    Parameters, result and errors are those of :func:`ensemble_mean`. Both sides are taken by
    cell and calendar month, each from its own months in `train_period`, which `predictors`
    therefore have to hold as well. Where the ensemble mean does not vary, the reference's
    climatology is left.

    Notes
    -----
    ``mean_r + (x - mean_x) * std_r / std_x``. The sources' weather cancels in their mean, so
    the factor inflates what is left, the change included (Maraun 2013).

    References
    ----------
    Maraun (2013), Journal of Climate 26, 2137-2143, doi:10.1175/JCLI-D-12-00821.1
    """

    def scaled(x, past, observed):
        past, observed = past.astype(float), observed.astype(float)
        spread = past.std("time")
        ratio = (observed.std("time") / spread.where(spread > 0)).fillna(0)
        return observed.mean("time") + (x - past.mean("time")) * ratio

    estimate = _by_calendar_month(scaled, predictors, reference, train_period)
    return _finished(estimate, reference, "mean and variance scaling")


def quantile_delta_mapping(predictors, reference, *, train_period, years=31):
    """The ensemble mean's change of each quantile, added to that quantile of the reference.

    Parameters
    ----------
    predictors, reference, train_period
        As in :func:`ensemble_mean`; `predictors` have to hold `train_period` as well.
    years : int, default: 31
        Odd length of the centred window around a year, in which the rank of its value is
        found; at both ends of the record it takes the years that are there.

    Returns
    -------
    xr.DataArray
        As :func:`ensemble_mean`.

    Raises
    ------
    ValueError
        As :func:`ensemble_mean`, or if `years` is even.

    Notes
    -----
    For each cell and calendar month, with the quantile functions ``Q`` of the training period
    and the rank ``p`` of the value ``x`` in the window: ``Q_r(p) + x - Q_x(p)``. Additive,
    because the theta of a model is on a scale of its own, without a common zero (Koster et al.
    2009), so that its ratios mean nothing for the reference. Quantiles are linear between the
    points ``(k - 1/2) / n``, and held beyond them.

    References
    ----------
    Cannon et al. (2015), Journal of Climate 28, 6938-6959, doi:10.1175/JCLI-D-14-00754.1

    Koster et al. (2009), Journal of Climate 22, 4322-4335, doi:10.1175/2009JCLI2832.1
    """
    _require_middle_year(years)

    def mapped(x, past, observed):
        return xr.apply_ufunc(
            _quantile_delta,
            x,
            past.rename(time="past"),
            observed.rename(time="observed"),
            kwargs={"years": years},
            input_core_dims=[[time, "lat", "lon"] for time in ("time", "past", "observed")],
            output_core_dims=[["time", "lat", "lon"]],
            vectorize=True,  # one experiment at a time
            dask="parallelized",
            dask_gufunc_kwargs={"allow_rechunk": True},
            output_dtypes=["float32"],
        )

    estimate = _by_calendar_month(mapped, predictors, reference, train_period)
    return _finished(estimate, reference, "quantile delta mapping")


def ridge(predictors, reference, *, train_period, validation_period):
    """The reference's climatology plus a weighted sum of the sources' anomalies.

    Parameters
    ----------
    predictors, reference, train_period
        As in :func:`ensemble_mean`, with no dimension more. `predictors` have to hold every
        month of `reference` in both periods.
    validation_period : pair of str
        First and last date, both included, outside `train_period`. Of `PENALTIES`, the one with
        the smallest squared error over all cells and months of this period is taken.

    Returns
    -------
    xr.DataArray
        As :func:`ensemble_mean`; the attribute ``penalty`` holds the one that was taken.

    Raises
    ------
    ValueError
        As :func:`ensemble_mean`; if `predictors` have another dimension or lack a month, or if
        `validation_period` overlaps `train_period` or has no value of `reference`.

    Notes
    -----
    Each fine cell has its own weights, fitted by least squares on `train_period`; all share the
    penalty on the sum of their squares. Anomalies are from the calendar month's mean, those of
    the sources interpolated and in units of their standard deviation. A missing value
    of a source counts as its climatology. The largest penalty leaves little but the climatology.

    References
    ----------
    Hoerl and Kennard (1970), Technometrics 12, 55-67, doi:10.1080/00401706.1970.10488634
    """
    _check(predictors, reference)
    if set(predictors.dims) != {"source_id", "time", "lat", "lon"}:
        raise ValueError(
            "`predictors` must have the dimensions source_id, time, lat, lon and no other, got "
            f"{predictors.dims}; select one experiment"
        )
    past = _in_train_period(reference, train_period, "reference").compute()
    later = reference.sel(time=slice(*validation_period)).compute()
    if past.indexes["time"].intersection(later.indexes["time"]).size or later.isnull().all():
        raise ValueError(
            "`validation_period` must hold values of `reference` and lie outside `train_period`, "
            f"got {validation_period} and {train_period}"
        )
    anomaly = anomalies(predictors, train_period=train_period).compute()
    fit, check = (anomaly.indexes["time"].get_indexer(part["time"]) for part in (past, later))
    if min(*fit, *check) < 0:
        raise ValueError(
            "`predictors` must hold every month of `reference` in `train_period` and "
            "`validation_period`"
        )

    cycle = monthly_climatology(past)
    y, truth = (
        (part - cycle.sel(month=part["time"].dt.month)).transpose("lat", "lon", "time").values
        for part in (past, later)
    )
    blocks = [slice(row, row + ROWS) for row in range(0, reference.sizes["lat"], ROWS)]
    weights, error = [], np.zeros(PENALTIES.size)
    for block in blocks:
        x = _beside(anomaly, reference.isel(lat=block))
        weights.append(_ridge_weights(x[:, :, fit], y[block]))
        found = np.einsum("yxts,kyxs->kyxt", x[:, :, check], weights[-1])
        error += np.nansum((found - truth[block]) ** 2, axis=(1, 2, 3))
    best = int(error.argmin())

    estimate = climatology(predictors, reference, train_period=train_period).compute()
    for block, of_block in zip(blocks, weights, strict=True):
        x = _beside(anomaly, reference.isel(lat=block))
        change = np.einsum("yxts,yxs->tyx", x, of_block[best])
        estimate[{"lat": block}] += change.astype("float32")
    return _finished(estimate, reference, "ridge").assign_attrs(penalty=PENALTIES[best])


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
    _require_middle_year(years)
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


def _require_middle_year(years):
    if years % 2 == 0:
        raise ValueError(f"`years` must be odd, so that the mean has a middle year, got {years}")


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


def _by_calendar_month(adjust, predictors, reference, train_period):
    """`adjust(x, past, observed)` of the interpolated ensemble mean, one calendar month at a time.

    `x` holds all years, `past` and `observed` the training period of `x` and of the reference.
    """
    _check(predictors, reference)
    observed = _in_train_period(reference, train_period, "reference")
    _in_train_period(predictors, train_period, "predictors")
    interpolated = upsampled(predictors.mean("source_id"), reference)
    parts = [
        adjust(
            x, x.sel(time=slice(*train_period)), observed.sel(time=observed.time.dt.month == month)
        ).astype("float32")
        for month, x in interpolated.groupby("time.month")
    ]
    return xr.concat(parts, "time").sortby("time")


def _quantile_delta(x, past, observed, years):
    """Of one calendar month: x (year, lat, lon), training years of x and of the reference."""
    rank = np.empty_like(x)
    for year, value in enumerate(x):
        window = x[max(year - years // 2, 0) : year + years // 2 + 1]
        below, equal = (window < value).sum(axis=0), (window == value).sum(axis=0)
        rank[year] = (below + equal / 2) / np.maximum(np.isfinite(window).sum(axis=0), 1)
    return _quantile(observed, rank) + x - _quantile(past, rank)


def _quantile(sample, probability):
    """Quantiles along the first axis, each cell's own: Hazen's, as ``numpy.quantile`` has it."""
    ordered = np.sort(sample, axis=0)  # missing values last
    last = np.maximum(np.isfinite(sample).sum(axis=0) - 1, 0)
    position = np.clip(probability * (last + 1) - 0.5, 0, last)
    low = position.astype(int)
    at_low, at_high = (
        np.take_along_axis(ordered, index, axis=0) for index in (low, np.minimum(low + 1, last))
    )
    return at_low + (position - low) * (at_high - at_low)


def _beside(anomaly, reference):
    """Anomalies of the sources on the grid of the reference, (lat, lon, time, source)."""
    x = upsampled(anomaly, reference).fillna(0).transpose("lat", "lon", "time", "source_id")
    return x.values.astype(float)


def _ridge_weights(x, y):
    """(penalty, lat, lon, source), from x (lat, lon, time, source) and y (lat, lon, time)."""
    spread = x.std(axis=2)
    spread[spread == 0] = 1  # of a source without anomalies, which has no weight anyway
    valid = np.isfinite(y)[..., None]
    x, y = np.where(valid, x / spread[:, :, None], 0), np.where(valid, y[..., None], 0)
    months = np.maximum(valid.sum(axis=2, keepdims=True), 1)
    transposed = x.swapaxes(2, 3)
    gram, moment = transposed @ x / months, transposed @ y / months
    ridges = PENALTIES[:, None, None, None, None] * np.eye(x.shape[-1])
    return np.linalg.solve(gram + ridges, moment[None])[..., 0] / spread


def _finished(estimate, reference, long_name):
    land = reference.notnull().any("time")
    estimate = estimate.where(land).transpose(..., "time", "lat", "lon").rename("theta")
    estimate.attrs = {"long_name": long_name}
    if "units" in reference.attrs:
        estimate.attrs["units"] = reference.attrs["units"]
    return estimate
