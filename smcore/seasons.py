"""Months, seasons, winters and years: which months make a part of the year, and their means."""

import calendar

import numpy as np
import xarray as xr

SEASONS = {"MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11), "DJF": (12, 1, 2)}
MONTHS = {calendar.month_abbr[month]: (month,) for month in range(1, 13)}
# parts of the year, in the order of a portrait
PARTS = {"annual": tuple(range(1, 13))} | SEASONS | MONTHS


def yearly_mean(field, months):
    """Mean of the same calendar months of each year, every month weighted equally.

    ``time``, monthly, gives way to ``year`` (int): the years with all of `months`, NaN where a cell
    lacks one. A season that crosses New Year belongs to the year of its January: if `months` hold
    12 and 1 but not all twelve, December and the months that lead up to it are the next year's.
    """
    months = set(months)
    if not months or not months <= set(range(1, 13)):
        raise ValueError(f"`months` must be numbers from 1 to 12, got {sorted(months)}")
    require_monthly(field, "field")
    month, year = field["time"].dt.month.values, field["time"].dt.year.values
    if 1 in months and len(months) < 12:  # after the last month left out, it is next year's
        year = year + (month > max(set(range(1, 13)) - months))
    asked = np.isin(month, list(months))
    years, counts = np.unique(year[asked], return_counts=True)
    full = years[counts == len(months)]
    blocks = field.isel(time=asked & np.isin(year, full)).coarsen(time=len(months))
    mean = blocks.construct(time=("year", "month")).mean("month", skipna=False, keep_attrs=True)
    return mean.assign_coords(year=full)


def annual_mean(field):
    """Mean of each full calendar year, ``year`` in place of time; NaN where a month is missing."""
    mean = yearly_mean(field, PARTS["annual"])
    if mean.sizes["year"] == 0:
        raise ValueError(f"`field` must hold a full calendar year, got {months_covered(field)}")
    return mean


def seasonal_mean(field):
    """Mean of each season (MAM, JJA, SON, DJF), by ``season`` and ``year`` in place of time.

    NaN where a month is missing: 2015-2100 has 85 winters, each in the year of its January.
    """
    means = [yearly_mean(field, months) for months in SEASONS.values()]
    if not any(mean.sizes["year"] for mean in means):
        raise ValueError(f"`field` must hold a full season, got {months_covered(field)}")
    return xr.concat(means, xr.Variable("season", list(SEASONS)), join="outer")


def _of_each_month(field, statistic):
    """The "mean" or "std" of each calendar month, 1 to 12, in double precision."""
    month = field["time"].dt.month.values
    # one after the other, because groupby takes several times the memory
    parts = (field.isel(time=month == number).astype(float) for number in range(1, 13))
    found = [getattr(part, statistic)("time") for part in parts]
    return xr.concat(found, xr.Variable("month", range(1, 13)))


def monthly_climatology(field):
    """Mean of each calendar month, with dimension month, in the precision of the field."""
    return _of_each_month(field, "mean").astype(field.dtype)


def monthly_statistics(field):
    """Mean and standard deviation (population) of each calendar month, in double precision.

    NaN for a month that `field` lacks, and as the standard deviation of what does not vary.
    """
    mean, spread = _of_each_month(field, "mean"), _of_each_month(field, "std")
    # rounding gives a constant series a spread of about 1e-16 of its mean
    return mean, spread.where(spread > 1e-12 * abs(mean))


def require_monthly(field, name):
    """Raise ValueError unless `field`, called `name`, holds one value per month, ascending."""
    month = 12 * field["time"].dt.year.values + field["time"].dt.month.values
    if not (np.diff(month) > 0).all():
        remedy = "take monthly means or sort by time"
        raise ValueError(f"`{name}` must hold one value per month in ascending order; {remedy}")


def months_covered(field):
    """First and last month of `field` in words: ``2015-01 to 2100-12``."""
    first, last = field["time"].values[[0, -1]]
    return f"{str(first)[:7]} to {str(last)[:7]}"
