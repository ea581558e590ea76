"""What a network has to beat.

Each baseline takes the predictors on the coarse grid, the reference on the fine grid and the
period to learn from, and gives an estimate on the fine grid for every month of the predictors.
It is NaN where the reference never has a value.
"""

from functools import partial

import numpy as np
import xarray as xr
from scipy import stats

from smcore.regrid import upsampled
from smcore.seasons import monthly_climatology, months_covered

PENALTIES = 10.0 ** np.arange(-3, 5)  # of ridge, per month, in units of a source's variance
ROWS = 4  # of the fine grid at a time: 165 MB of ridge's predictors at the paper's size


def ensemble_mean(predictors, reference, *, train_period):
    """Mean of the sources, interpolated to the fine grid; nothing is learned.

    Bilinear between the centres of coarse cells, beyond the outermost the value of the centre is
    held. Neighbours share the weights of a missing coarse cell, other sources those of a source.
    """
    _observed(predictors, reference, train_period)
    estimate = upsampled(predictors.mean("source_id"), reference)
    return _finished(estimate, reference, "ensemble mean")


def bias_removed(predictors, reference, *, train_period):
    """The interpolated ensemble mean less its mean bias in each cell.

    The bias is that of all months of `train_period` together: the ensemble keeps its own season.
    """
    estimate = ensemble_mean(predictors, reference, train_period=train_period)
    past = in_train_period(estimate, train_period, "predictors").mean("time", dtype=float)
    bias = past - reference.sel(time=slice(*train_period)).mean("time", dtype=float)
    return _finished(estimate - bias.astype("float32"), reference, "bias removed")


def climatology(predictors, reference, *, train_period):
    """The reference's mean of the calendar month: no weather, no change."""
    cycle = monthly_climatology(_observed(predictors, reference, train_period))
    estimate = cycle.sel(month=predictors["time"].dt.month).drop_vars("month")
    return _finished(estimate, reference, "climatology")


def delta_change(predictors, reference, *, train_period, years=1):
    """The reference's climatology plus the interpolated anomaly of the ensemble mean.

    `years` smooths the anomaly, as in :func:`anomalies`. Maraun and Widmann (2018),
    doi:10.1017/9781107588783
    """
    _observed(predictors, reference, train_period)
    anomaly = anomalies(predictors, train_period=train_period, years=years)
    return with_climatology(anomaly, reference, train_period=train_period)


def with_climatology(anomaly, reference, *, train_period):
    """The reference's climatology plus the mean of the sources' :func:`anomalies`, interpolated."""
    cycle = climatology(anomaly, reference, train_period=train_period)
    estimate = upsampled(anomaly.mean("source_id"), reference) + cycle
    return _finished(estimate, reference, "delta change")


def mean_variance_scaling(predictors, reference, *, train_period):
    """The interpolated ensemble mean with the reference's mean and standard deviation.

    By cell and calendar month: ``mean_r + (x - mean_x) * std_r / std_x``, the climatology where
    the ensemble mean does not vary. The sources' weather cancels in their mean, so the factor
    inflates what is left, the change included (Maraun 2013, doi:10.1175/JCLI-D-12-00821.1).
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

    By cell and calendar month: ``Q_r(p) + x - Q_x(p)``, with the quantile functions ``Q`` of the
    training period, linear between the points ``(k - 1/2) / n`` and held beyond them, and the rank
    ``p`` of the value ``x`` in a centred window of `years`, an odd number, cut at the ends of the
    record (Cannon et al. 2015, doi:10.1175/JCLI-D-14-00754.1). Additive, because the theta of a
    model has a scale and a zero of its own (Koster et al. 2009, doi:10.1175/2009JCLI2832.1).
    """
    _require_middle_year(years)

    def mapped(x, past, observed):
        return xr.apply_ufunc(
            _quantile_delta,
            *(x, past.rename(time="past"), observed.rename(time="observed")),
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

    Each fine cell has its own weights, fitted by least squares; all share the one of `PENALTIES`
    on the sum of their squares that has the smallest squared error in `validation_period`, outside
    `train_period`; the attribute ``penalty`` holds it. `predictors` have no further dimension and
    every month of `reference` in both periods. Anomalies are from the calendar month's mean, those
    of the sources interpolated and in units of their standard deviation, 0 where one is missing.
    Hoerl and Kennard (1970), doi:10.1080/00401706.1970.10488634
    """
    past = _observed(predictors, reference, train_period).compute()
    if set(predictors.dims) - {"source_id", "time", "lat", "lon"}:
        raise ValueError(
            "`predictors` must have the dimensions source_id, time, lat, lon, got "
            f"{predictors.dims}; select one experiment"
        )
    later = reference.sel(time=slice(*validation_period)).compute()
    if past.indexes["time"].intersection(later.indexes["time"]).size or later.isnull().all():
        raise ValueError(
            "`validation_period` must hold values of `reference` and lie outside `train_period`, "
            f"got {validation_period} and {train_period}"
        )
    anomaly = anomalies(predictors, train_period=train_period).compute()
    fit, check = (anomaly.indexes["time"].get_indexer(part["time"]) for part in (past, later))
    if min(*fit, *check) < 0:
        raise ValueError("`predictors` must hold every month of `reference` in both periods")

    cycle = monthly_climatology(past)
    y, truth = (
        (part.groupby("time.month") - cycle).transpose("lat", "lon", "time").values
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


for _baseline in (
    *(ensemble_mean, bias_removed, climatology, delta_change),
    *(mean_variance_scaling, quantile_delta_mapping, ridge),
):
    _baseline.__doc__ += """

    Parameters
    ----------
    predictors : xr.DataArray
        Volumetric water content, dimensions source_id, time, lat, lon (coarse grid), monthly.
    reference : xr.DataArray
        Volumetric water content, dimensions time, lat, lon (fine grid).
    train_period : pair of str
        First and last date to learn from, both included.

    Returns
    -------
    xr.DataArray
        Estimate in the units of `reference`, on its grid, for every month of `predictors`.

    Raises
    ------
    ValueError
        If `predictors` have no source_id, units differ, the fine grid reaches beyond the coarse
        cells, or a side that is learned from lacks a calendar month in `train_period`.
    """


def anomalies(predictors, *, train_period, years=1):
    """Deviation from the mean of the calendar month in a period, smoothed over years.

    `years`, an odd number, are those of a centred running mean over the same calendar month; at
    both ends of the record it takes the years that are there, since later months of a model run
    tell nothing of the reference.
    """
    _require_middle_year(years)
    past = monthly_climatology(in_train_period(predictors, train_period, "predictors"))
    anomaly = (predictors.groupby("time.month") - past).drop_vars("month")
    if years == 1:
        return anomaly
    return anomaly.groupby("time.month").map(
        lambda month: month.rolling(time=years, center=True, min_periods=1).mean()
    )


def _require_middle_year(years):
    if years % 2 == 0:
        raise ValueError(f"`years` must be odd, so that the mean has a middle year, got {years}")


def _observed(predictors, reference, train_period):
    """The reference in the training period, once both sides are what a baseline needs."""
    if "source_id" not in predictors.dims:
        raise ValueError(
            f"`predictors` must have the dimension source_id (expand_dims), got {predictors.dims}"
        )
    units = predictors.attrs.get("units"), reference.attrs.get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(
            f"`predictors` must have the units of `reference`, {units[1]!r}, got {units[0]!r}"
        )
    return in_train_period(reference, train_period, "reference")


def in_train_period(field, train_period, name):
    """`field`, called `name`, in the training period; ValueError if a calendar month is missing."""
    selected = field.sel(time=slice(*train_period))
    months = np.unique(selected["time"].dt.month.values)
    if len(months) < 12:
        raise ValueError(
            f"`train_period` must hold every calendar month of `{name}`, which covers "
            f"{months_covered(field)}, got {' to '.join(train_period)} with {len(months)} of them"
        )
    return selected


def _by_calendar_month(adjust, predictors, reference, train_period):
    """`adjust(x, past, observed)` of the interpolated ensemble mean, one calendar month at a time.

    `x` holds all years, `past` and `observed` the training period of `x` and of the reference.
    """
    observed = _observed(predictors, reference, train_period)
    in_train_period(predictors, train_period, "predictors")
    interpolated = upsampled(predictors.mean("source_id"), reference)
    months = observed.groupby("time.month")
    parts = [
        adjust(x, x.sel(time=slice(*train_period)), months[month]).astype("float32")
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
    quantile = partial(stats.quantile, method="hazen", axis=0, nan_policy="omit")
    return quantile(observed.astype(float), rank) + x - quantile(past.astype(float), rank)


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
    units = {"units": reference.attrs["units"]} if "units" in reference.attrs else {}
    estimate.attrs = {"long_name": long_name} | units
    return estimate
