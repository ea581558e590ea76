"""Changes between periods: by season, by month, by region."""

import calendar

import numpy as np
import xarray as xr

# parts of the year, in the order of a portrait
PARTS = {
    "annual": tuple(range(1, 13)),
    "MAM": (3, 4, 5),
    "JJA": (6, 7, 8),
    "SON": (9, 10, 11),
    "DJF": (12, 1, 2),
} | {calendar.month_abbr[month]: (month,) for month in range(1, 13)}


def change_rate(theta, *, period, baseline, months=None, region=None):
    """Change of the area mean between two periods, in per cent of the earlier one.

    Parameters
    ----------
    theta : xr.DataArray
        Volumetric water content, one value per month along ``time``, with lat and lon;
        further dimensions are kept. Holds both periods.
    period, baseline : pair of str
        First and last year, both included.
    months : sequence of int, optional
        Calendar months, 1 to 12. Default: all.
    region : xr.DataArray of bool or mapping, optional
        A mask (lat, lon), or ``dict(south=, north=, west=, east=)`` in degrees: the cells
        whose centres lie inside, on the southern and western border included, on the
        northern and eastern not, so that neighbouring regions share no cell. Default: all
        cells.

    Returns
    -------
    xr.DataArray
        ``100 * (mean of period / mean of baseline - 1)`` in %.

    Raises
    ------
    ValueError
        If a period holds no year with all of `months`, a region holds no cell with a value,
        or `months` or `region` is not of the form above.

    Notes
    -----
    It is the ratio of area means, not the mean of the cells' ratios, which dry cells would
    dominate. Cells are weighted with cos(lat), months equally, and a year counts only if all
    of `months` are there. A cell without a value is left out of that month's mean.

    A season that crosses New Year belongs to the year of its January: if `months` hold both
    12 and 1 but not all twelve, December, and the months asked for that lead up to it, count
    for the following year. The winters 2021-2040 begin in December 2020.
    """
    series = _area_mean(theta, region)
    return _rate(series, period, baseline, PARTS["annual"] if months is None else months)


def portrait(theta, *, periods, baseline, regions):
    """Change rates by region, part of the year and period.

    Parameters
    ----------
    theta : xr.DataArray
        As in :func:`change_rate`.
    periods : sequence of pairs of str
        First and last year of each period, both included.
    baseline : pair of str
        First and last year of the period they are compared with.
    regions : mapping of str to region
        Each as `region` in :func:`change_rate`; None for all cells.

    Returns
    -------
    xr.DataArray
        Change rate in % with dimensions ``region``, ``part`` (annual, MAM, JJA, SON, DJF,
        Jan, ..., Dec) and ``period`` ("2021-2040"), after any further ones of `theta`.

    Raises
    ------
    ValueError
        As in :func:`change_rate`.
    """
    by_region = []
    for region in regions.values():
        series = _area_mean(theta, region)  # small from here on
        by_part = [
            xr.concat([_rate(series, period, baseline, months) for period in periods], "period")
            for months in PARTS.values()
        ]
        by_region.append(xr.concat(by_part, "part"))

    result = xr.concat(by_region, "region").assign_coords(
        region=list(regions),
        part=list(PARTS),
        period=[f"{first}-{last}" for first, last in periods],
    )
    return result.transpose(..., "region", "part", "period")


def _area_mean(theta, region):
    inside = _inside(theta, region)
    if not inside.any():
        raise ValueError(
            f"`region` must contain cells of `theta`, got {_name(region)}, but `theta` covers "
            f"lat {theta['lat'].values.min():g} to {theta['lat'].values.max():g}, "
            f"lon {theta['lon'].values.min():g} to {theta['lon'].values.max():g}"
        )
    weights = np.cos(np.deg2rad(theta["lat"])) * inside
    series = theta.weighted(weights).mean(("lat", "lon")).compute()
    if series.isnull().all():
        raise ValueError(
            f"`region` must contain values of `theta`, got only NaN in {_name(region)}"
        )
    return series


def _inside(theta, region):
    lat, lon = theta["lat"], theta["lon"]
    if region is None:
        return xr.ones_like(lat * lon, dtype=bool)
    if isinstance(region, xr.DataArray):
        if region.dtype != bool:
            raise ValueError(f"`region` must be boolean, got {region.dtype}; compare it first")
        with xr.set_options(arithmetic_join="exact"):
            return region & xr.ones_like(lat * lon, dtype=bool)
    if set(region) != {"south", "north", "west", "east"}:
        raise ValueError(
            f"`region` must have the keys south, north, west and east, got {sorted(region)}"
        )
    rows = (lat >= region["south"]) & (lat < region["north"])
    columns = (lon >= region["west"]) & (lon < region["east"])
    return rows & columns


def _name(region):
    return "a mask" if isinstance(region, xr.DataArray) else region


def _rate(series, period, baseline, months):
    later = _mean_over(series, period, months, "period")
    earlier = _mean_over(series, baseline, months, "baseline")
    rate = 100 * (later / earlier - 1)
    rate.attrs = {"long_name": "change rate", "units": "%"}
    return rate.rename("change_rate")


def _mean_over(series, period, months, name):
    if not set(months) or not set(months) <= set(range(1, 13)):
        raise ValueError(f"`months` must be numbers from 1 to 12, got {list(months)}")
    if len(period) != 2 or not all(str(year).isdigit() for year in period):
        raise ValueError(f"`{name}` must be a first and a last year, got {period}")
    first, last = (int(year) for year in period)
    month = series["time"].dt.month.values
    year = series["time"].dt.year.values
    if 1 in months and len(set(months)) < 12:
        late = 12
        while late in months:  # the run of months that ends with December
            year = np.where(month == late, year + 1, year)
            late -= 1

    keep = np.isin(month, list(months)) & (year >= first) & (year <= last)
    years, counts = np.unique(year[keep], return_counts=True)
    full = keep & np.isin(year, years[counts == len(set(months))])
    if not full.any():
        times = series["time"].values
        raise ValueError(
            f"`{name}` must contain a year of `theta` with all of the months {list(months)}, got "
            f"{first} to {last}, but `theta` covers {str(times[0])[:7]} to {str(times[-1])[:7]}"
        )
    return series.isel(time=full).mean("time", skipna=False)
