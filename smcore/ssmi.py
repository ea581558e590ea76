"""The standardised soil moisture index: what defines it, and what it can show."""

import numpy as np
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
        First and last year, both included, of the months that define mean and standard
        deviation; of those, the ones that `theta` holds.
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

    The denominator for the index of a product that is smoother than its sources: with its own
    standard deviation the index grows with every source that is averaged, the drying does not.

    Parameters
    ----------
    predictors : xr.DataArray
        Volumetric water content with dimensions source_id, time, lat, lon, one value per month.
    period : pair of str
        First and last year, both included. Years before the scenarios make it the same for all.

    Returns
    -------
    xr.DataArray
        Standard deviation of the population over the years, dimensions month (1 to 12), lat,
        lon, in the units of `predictors`. A source that does not vary, or has no value, in a
        cell and month is left out there; NaN where that is all of them.

    Raises
    ------
    ValueError
        If `predictors` has no source_id, or fewer than two years in `period`.
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


def index_options(index, baseline, standard_deviation):
    """Baseline and divisor that :func:`smcore.trends.trend` needs for one reading of a trend.

    `index` is "ssmi", divided by the series' own standard deviation, as in the paper;
    "ssmi_sources", divided by `standard_deviation`, see :func:`interannual_std`; or "theta", the
    water content, which needs neither. Raises ValueError for another one.
    """
    if index not in INDICES:
        raise ValueError(f"`index` must be one of {', '.join(INDICES)}, got {index!r}")
    if index == "theta":
        return {}
    given = standard_deviation if index == "ssmi_sources" else None
    return {"baseline": baseline, "standard_deviation": given}


def months_for(read, experiment_id, *, study, baseline):
    """The months of a scenario, after those of the historical run where `baseline` needs them.

    `read` is a function from an experiment_id to its months, with the dimension ``time``.
    """
    scenario = read(experiment_id)
    if int(baseline[0]) >= int(study.periods.future[0]):
        return scenario
    return xr.concat([read("historical"), scenario], "time", combine_attrs="drop_conflicts")


def slope_of_a_noisy_line(trends, *, years=86, sources=25, window=10, draws=400, seed=0):
    """Least-squares slope of the standardised index of a straight line under white noise.

    Parameters
    ----------
    trends : sequence of float
        Trends of the line per decade, in units of the standard deviation of the noise.
    years, sources : int, default: 86, 25
        Length of the series, and how many of them, with the same line and independent noise,
        the ensemble mean is made of.
    window : int, default: 10
        Years of the centred running mean; at both ends it takes the years that are there.
    draws, seed : int, default: 400, 0
        Repetitions that are averaged, and seed of the random numbers.

    Returns
    -------
    xr.DataArray
        Slope per decade with dimensions ``series`` ("one source", "ensemble mean", "its running
        mean") and ``trend``. None exceeds ``10 * sqrt(12 / (years**2 - 1))``.
    """
    values = np.random.default_rng(seed).normal(size=(draws, sources, years))
    noise = xr.DataArray(values, dims=("draw", "source_id", "year"))
    year = xr.DataArray(np.arange(years) - (years - 1) / 2, dims="year")
    line = year * xr.DataArray(list(trends), {"trend": list(trends)}, ["trend"]) / 10
    several = line + noise.mean("source_id")
    smooth = several.rolling(year=window, center=True, min_periods=1).mean()
    names = ["one source", "ensemble mean", "its running mean"]
    series = xr.concat([line + noise[:, 0], several, smooth], xr.Variable("series", names))
    index = (series - series.mean("year")) / series.std("year")
    slope = 10 * xr.dot(index, year, dim="year").mean("draw") / (year**2).sum()
    return slope.transpose("series", "trend").assign_attrs(units="decade-1")
