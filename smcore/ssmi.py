"""The standardised soil moisture index: what defines it, and what it can show."""

import xarray as xr

from smcore import seasons

INDICES = ("ssmi", "ssmi_sources", "theta")


def ssmi(theta, *, baseline=("2015", "2100"), standard_deviation=None):
    """Standardised soil moisture index of each month.

    Parameters
    ----------
    theta : xr.DataArray
        Volumetric water content, one value per month along ``time`` (else ValueError).
    baseline : pair of str, default: ("2015", "2100")
        First and last year, both included, of the months that define mean and standard deviation.
        ValueError if `theta` has none of them.
    standard_deviation : xr.DataArray, optional
        Divide by this one, with any of the dimensions month (1 to 12), lat, lon, in the units of
        `theta` (else ValueError). Default: the series' own, of the population (``ddof=0``).

    Returns
    -------
    xr.DataArray
        ``(theta - mean) / standard deviation`` of each cell and calendar month, without units,
        in the dimensions of `theta`; NaN where the standard deviation is zero.
        ``attrs["baseline"]`` names the months that were used.

    Notes
    -----
    Standardised by its own future, the index measures signal to noise: for a straight line of
    N years the slope is at most ``sqrt(12 / (N**2 - 1))`` per year, however steep the line.
    """
    seasons.require_monthly(theta, "theta")
    past = theta.sel(time=slice(*baseline))
    if past.sizes["time"] == 0:
        raise ValueError(
            f"`baseline` must contain months of `theta`, got {baseline[0]} to {baseline[1]}, "
            f"but `theta` covers {seasons.months_covered(theta)}; choose a baseline inside"
        )
    units = theta.attrs.get("units"), getattr(standard_deviation, "attrs", {}).get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(
            f"`standard_deviation` must have the units of `theta`: convert {units[1]} to {units[0]}"
        )
    mean, own = seasons.monthly_statistics(past)
    spread = own if standard_deviation is None else standard_deviation
    month = theta["time"].dt.month
    with xr.set_options(arithmetic_join="exact"):
        index = theta - mean.astype(theta.dtype).sel(month=month)
        spread = spread.where(spread > 0).astype(theta.dtype)
        index = index / (spread.sel(month=month) if "month" in spread.dims else spread)
    index.attrs = {
        "long_name": "standardised soil moisture index",
        "units": "1",
        "baseline": seasons.months_covered(past),
    }
    return index.drop_vars("month", errors="ignore").transpose(*theta.dims).rename("ssmi")


def interannual_std(predictors, period):
    """Standard deviation (population) over the years of a period, the median over the sources.

    Dimensions month, lat, lon; a source that does not vary, or has no value, is left out. Divided
    by its own, the index of a product grows with every source that is averaged, its drying not.
    """
    if "source_id" not in predictors.dims:
        raise ValueError(f"`predictors` must have the dimension source_id, got {predictors.dims}")
    past = predictors.sel(time=slice(*period))
    if len(set(past["time"].dt.year.values)) < 2:
        raise ValueError(
            f"`period` must hold two or more years of `predictors`, got {period[0]} to "
            f"{period[1]}, but `predictors` covers {seasons.months_covered(predictors)}"
        )
    _, spread = seasons.monthly_statistics(past)
    typical = spread.median("source_id").transpose("month", ...).rename("interannual_std")
    typical.attrs = {key: value for key, value in predictors.attrs.items() if key == "units"}
    long_name = "median interannual standard deviation of the sources"
    return typical.assign_attrs(long_name=long_name, period="-".join(period))


def index_baseline(study, years=None):
    """The pair of years that defines the index: `years`, or by default all of the scenarios."""
    if years is None:
        return study.periods.future
    first, last = study.periods.historical[0], study.periods.future[1]
    pair = tuple(map(str, years)) if isinstance(years, list | tuple) else ()
    known = map(str, range(int(first), int(last) + 1))
    if len(pair) != 2 or pair[0] >= pair[1] or not set(pair) <= set(known):
        raise ValueError(
            f"`baseline_period` must be two years from {first} to {last}, the earlier one first, "
            f'such as ["{first}", "{study.periods.historical[1]}"], got {years!r}'
        )
    return pair
