"""The standardised soil moisture index, and the annual and seasonal means it is read by."""

import numpy as np
import xarray as xr

from smcore.seasons import monthly_statistics, months_covered, require_monthly


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
    require_monthly(theta, "theta")
    past = theta.sel(time=slice(*baseline))
    if past.sizes["time"] == 0:
        raise ValueError(
            f"`baseline` must contain months of `theta`, got {baseline[0]} to {baseline[1]}, "
            f"but `theta` covers {months_covered(theta)}; choose a baseline inside"
        )
    units = theta.attrs.get("units"), getattr(standard_deviation, "attrs", {}).get("units")
    if None not in units and units[0] != units[1]:
        raise ValueError(
            f"`standard_deviation` must have the units of `theta`, {units[0]!r}, got "
            f"{units[1]!r}; convert it"
        )

    mean, own = monthly_statistics(past)
    spread = own if standard_deviation is None else standard_deviation
    month = theta["time"].dt.month
    with xr.set_options(arithmetic_join="exact"):
        index = theta - mean.astype(theta.dtype).sel(month=month)
        spread = spread.where(spread > 0).astype(theta.dtype)
        index = index / (spread.sel(month=month) if "month" in spread.dims else spread)

    index.attrs = {
        "long_name": "standardised soil moisture index",
        "units": "1",
        "baseline": months_covered(past),
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
            f"{period[1]}, but `predictors` covers {months_covered(predictors)}"
        )
    _, spread = monthly_statistics(past)
    typical = spread.median("source_id")
    typical.attrs = {
        "long_name": "median interannual standard deviation of the sources",
        "period": f"{period[0]}-{period[1]}",
    }
    if "units" in predictors.attrs:
        typical.attrs["units"] = predictors.attrs["units"]
    return typical.transpose("month", ...).rename("interannual_std")


INDICES = ("ssmi", "ssmi_sources", "theta")


def index_baseline(study, years=None):
    """The years that define the index: those asked for, or the scenario's own.

    Parameters
    ----------
    study : Study
        Its historical run and its scenarios have to hold the years.
    years : pair of str or int, optional
        First and last year, both included. Default: all years of the scenarios.

    Returns
    -------
    pair of str

    Raises
    ------
    ValueError
        If `years` are not two years in order, within those of the study.
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
    """What :func:`trend` needs for a quantity: "ssmi", "ssmi_sources" or "theta".

    Parameters
    ----------
    index : str
        "ssmi", the index divided by the series' own standard deviation, as in the paper;
        "ssmi_sources", divided by that of the sources; or "theta", the water content.
    baseline : pair of str
        Years that define the index.
    standard_deviation : xr.DataArray
        That of the sources, see :func:`smcore.ssmi.interannual_std`.
    """
    if index not in INDICES:
        raise ValueError(f"`index` must be one of {', '.join(INDICES)}, got {index!r}")
    if index == "theta":
        return {}
    given = standard_deviation if index == "ssmi_sources" else None
    return {"baseline": baseline, "standard_deviation": given}


def months_for(read, experiment_id, *, study, baseline):
    """The months of an experiment, continued back into the historical run where it is needed.

    Parameters
    ----------
    read : function
        From an experiment_id to its months, with the dimension ``time``.
    experiment_id : str
        A scenario.
    study : Study
        Says where its scenarios begin.
    baseline : pair of str
        Years that define the index.
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
    years : int, default: 86
        Length of the series.
    sources : int, default: 25
        How many series with the same line and independent noise the ensemble mean is made of.
    window : int, default: 10
        Years of the centred running mean; at both ends it takes the years that are there.
    draws : int, default: 400
        Repetitions that are averaged.
    seed : int, default: 0
        Of the random numbers.

    Returns
    -------
    xr.DataArray
        Slope per decade with dimensions ``series`` ("one source", "ensemble mean", "its running
        mean") and ``trend``. None exceeds ``10 * sqrt(12 / (years**2 - 1))``.
    """
    noise = np.random.default_rng(seed).normal(size=(draws, sources, years))
    one, several = noise[:, 0], noise.mean(axis=1)
    year = np.arange(years) - (years - 1) / 2
    found = []
    for trend_per_decade in trends:
        line = trend_per_decade / 10 * year
        slopes = []
        for series in (line + one, line + several, _running_mean(line + several, window)):
            index = (series - series.mean(axis=1, keepdims=True)) / series.std(
                axis=1, keepdims=True
            )
            slopes.append(10 * (index @ year).mean() / (year @ year))
        found.append(slopes)
    return xr.DataArray(
        np.transpose(found),
        dims=("series", "trend"),
        coords={
            "series": ["one source", "ensemble mean", "its running mean"],
            "trend": list(trends),
        },
        attrs={"units": "decade-1", "sources": sources, "window": window},
    )


def _running_mean(series, window):
    """Centred running mean of (series, years); at both ends of the years that are there."""
    years = series.shape[1]
    first = np.maximum(np.arange(years) - window // 2, 0)
    last = np.minimum(np.arange(years) - window // 2 + window, years)
    total = np.cumsum(np.pad(series, ((0, 0), (1, 0))), axis=1)
    return (total[:, last] - total[:, first]) / (last - first)
