"""The standardised soil moisture index, and the annual and seasonal means it is read by."""

import numpy as np
import xarray as xr

from smcore.seasons import (
    _monthly_mean_and_standard_deviation,
    _months_covered,
    _require_one_value_per_month,
)


def ssmi(theta, *, baseline=("2015", "2100"), standard_deviation=None):
    """Standardised soil moisture index of each month.

    Parameters
    ----------
    theta : xr.DataArray
        Volumetric water content, one value per month along ``time``.
    baseline : pair of str, default: ("2015", "2100")
        First and last year, both included, whose months define mean and standard
        deviation. Where it reaches beyond `theta`, the part that `theta` holds is used.
    standard_deviation : xr.DataArray, optional
        Divide by this one, with any of the dimensions month (1 to 12), lat, lon, in the
        units of `theta`. Default: the series' own over the baseline.

    Returns
    -------
    xr.DataArray
        ``(theta - mean) / standard deviation``, both taken for each cell and calendar
        month; without units, in the dimensions of `theta`. NaN where the standard
        deviation is zero. ``attrs["baseline"]`` names the months that were used.

    Raises
    ------
    ValueError
        If `theta` does not hold one value per month, if it has no month in `baseline`, or
        if `standard_deviation` is in other units.

    Notes
    -----
    The standard deviation is that of the population (``ddof=0``): the paper does not say.
    The sample's would make the index 0.6 % smaller for 86 years.

    Standardised by its own future, the index measures signal to noise: for a straight line
    of N years the slope is at most ``sqrt(12 / (N**2 - 1))`` per year, however steep the
    line. The mean and the standard deviation of ensembles differ from those of a single
    source; the argument `standard_deviation` makes them comparable.
    """
    _require_one_value_per_month(theta, "theta")
    past = theta.sel(time=slice(*baseline))
    if past.sizes["time"] == 0:
        raise ValueError(
            f"`baseline` must contain months of `theta`, got {baseline[0]} to {baseline[1]}, "
            f"but `theta` covers {_months_covered(theta)}; choose a baseline inside"
        )
    units = theta.attrs.get("units"), getattr(standard_deviation, "attrs", {}).get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(
            f"`standard_deviation` must have the units of `theta`, {units[0]!r}, got "
            f"{units[1]!r}; convert it"
        )

    mean, own = _monthly_mean_and_standard_deviation(past)
    spread = own if standard_deviation is None else standard_deviation
    month = theta["time"].dt.month
    with xr.set_options(arithmetic_join="exact"):
        index = theta - mean.astype(theta.dtype).sel(month=month)
        spread = spread.where(spread > 0).astype(theta.dtype)
        index = index / (spread.sel(month=month) if "month" in spread.dims else spread)

    index.attrs = {
        "long_name": "standardised soil moisture index",
        "units": "1",
        "baseline": _months_covered(past),
    }
    return index.drop_vars("month", errors="ignore").transpose(*theta.dims).rename("ssmi")


def interannual_std(predictors, period):
    """What a source usually varies by from year to year: the median over the sources.

    Parameters
    ----------
    predictors : xr.DataArray
        Volumetric water content with dimensions source_id, time, lat, lon, one value per month.
    period : pair of str
        First and last year, both included. Years before the scenarios begin make it the same
        for all of them.

    Returns
    -------
    xr.DataArray
        Standard deviation of the population over the years of each calendar month, dimensions
        month (1 to 12), lat, lon, in the units of `predictors`. A source that does not vary, or
        has no value, in a cell and month is left out there; NaN where that is all of them.

    Raises
    ------
    ValueError
        If `predictors` has no source_id, or fewer than two years in `period`.

    Notes
    -----
    The denominator for the index of a product that is smoother than its sources: with its own
    standard deviation the index would grow with every source that is added, although the drying
    stays the same.
    """
    if "source_id" not in predictors.dims:
        raise ValueError(f"`predictors` must have the dimension source_id, got {predictors.dims}")
    past = predictors.sel(time=slice(*period))
    years = np.unique(past["time"].dt.year.values)
    if years.size < 2:
        raise ValueError(
            f"`period` must hold two or more years of `predictors`, got {period[0]} to "
            f"{period[1]}, but `predictors` covers {_months_covered(predictors)}"
        )
    _, spread = _monthly_mean_and_standard_deviation(past)
    typical = spread.median("source_id")
    typical.attrs = {
        "long_name": "median interannual standard deviation of the sources",
        "period": f"{period[0]}-{period[1]}",
    }
    if "units" in predictors.attrs:
        typical.attrs["units"] = predictors.attrs["units"]
    return typical.transpose("month", ...).rename("interannual_std")
