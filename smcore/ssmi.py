"""The standardised soil moisture index: what defines it, and what it can show."""

import xarray as xr

from smcore import seasons

INDICES = ("ssmi", "ssmi_sources", "theta")


def ssmi(theta, *, baseline=("2015", "2100"), standard_deviation=None):
    """Standardised soil moisture index of each month.

    Parameters
    ----------
    theta : xr.DataArray
        Volumetric water content, one value per month along ``time``.
    baseline : pair of str, default: ("2015", "2100")
        First and last year, both included, of the months of `theta` that define mean and standard
        deviation.
    standard_deviation : xr.DataArray, optional
        Divide by this one, with any of the dimensions month (1 to 12), lat, lon, in the units of
        `theta`. Default: the series' own over the baseline, of the population (``ddof=0``).

    Returns
    -------
    xr.DataArray
        ``(theta - mean) / standard deviation`` of each cell and calendar month, without units,
        in the dimensions of `theta`; NaN where the standard deviation is zero.
        ``attrs["baseline"]`` names the months that were used.

    Raises
    ------
    ValueError
        If `theta` does not hold one value per month, or none in `baseline`, or if
        `standard_deviation` is in other units.

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
    """What a source usually varies by from year to year: the median over the sources.

    The divisor for a product that is smoother than its sources: by its own standard deviation its
    index grows with every source that is averaged, its drying does not. Population standard
    deviation over the years of `period`, dimensions month (1 to 12), lat, lon, in the units of
    `predictors`. In each cell and month a source that does not vary, or has no value, is left out.
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
    return typical.assign_attrs(
        {key: value for key, value in predictors.attrs.items() if key == "units"},
        long_name="median interannual standard deviation of the sources",
        period=f"{period[0]}-{period[1]}",
    )


def index_baseline(study, years=None):
    """The pair of years that defines the index: `years`, text or numbers, or all of the scenarios.

    Raises ValueError unless they are two years in order that the study holds.
    """
    if years is None:
        return study.periods.future
    first, last = study.periods.historical[0], study.periods.future[1]
    pair = tuple(map(str, years)) if isinstance(years, list | tuple) else ()
    if not (
        len(pair) == 2
        and all(map(str.isdigit, pair))
        and int(first) <= int(pair[0]) < int(pair[1]) <= int(last)
    ):
        raise ValueError(
            f"`baseline_period` must be two years from {first} to {last}, the earlier one first, "
            f'such as ["{first}", "{study.periods.historical[1]}"], got {years!r}'
        )
    return pair
