"""Months, seasons, winters and years: which months make a part of the year, and their means."""

import calendar

import numpy as np
import xarray as xr

SEASONS = {"MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11), "DJF": (12, 1, 2)}
MONTHS = {calendar.month_abbr[month]: (month,) for month in range(1, 13)}
# parts of the year, in the order of a portrait
PARTS = {"annual": tuple(range(1, 13))} | SEASONS | MONTHS


def yearly_mean(field, months):
    """Mean of the same months of each year, every month weighted equally.

    Parameters
    ----------
    field : xr.DataArray
        One value per month along ``time``, in ascending order.
    months : sequence of int
        Calendar months, 1 to 12.

    Returns
    -------
    xr.DataArray
        With dimension ``year`` (int) in place of time: the years, if any, with all of `months`.
        NaN where a cell lacks one of them.

    Raises
    ------
    ValueError
        If `field` does not hold one value per month, or `months` are none of the calendar.

    Notes
    -----
    A season that crosses New Year belongs to the year of its January: if `months` hold 12 and
    1 but not all twelve, December and the months that lead up to it count for the next year.
    """
    months = set(months)
    if not months or not months <= set(range(1, 13)):
        raise ValueError(f"`months` must be numbers from 1 to 12, got {sorted(months)}")
    require_monthly(field, "field")
    month, year = field["time"].dt.month.values, field["time"].dt.year.values
    if 1 in months and len(months) < 12:
        late = 12
        while late in months:  # the run of months that ends with December
            year = np.where(month == late, year + 1, year)
            late -= 1

    asked = np.isin(month, list(months))
    years, counts = np.unique(year[asked], return_counts=True)
    full = years[counts == len(months)]
    blocks = field.isel(time=asked & np.isin(year, full)).coarsen(time=len(months))
    mean = blocks.construct(time=("year", "month")).mean("month", skipna=False, keep_attrs=True)
    return mean.assign_coords(year=full)


def annual_mean(field):
    """Mean of each calendar year, every month weighted equally.

    Parameters
    ----------
    field : xr.DataArray
        One value per month along ``time``, in ascending order.

    Returns
    -------
    xr.DataArray
        With dimension ``year`` (int) in place of time: only years with all twelve months.
        NaN where a cell lacks one of them.

    Raises
    ------
    ValueError
        If `field` does not hold one value per month, or no full year.
    """
    mean = yearly_mean(field, PARTS["annual"])
    if mean.sizes["year"] == 0:
        raise ValueError(f"`field` must hold a full calendar year, got {months_covered(field)}")
    return mean


def seasonal_mean(field):
    """Mean of each season of each year, every month weighted equally.

    Parameters
    ----------
    field : xr.DataArray
        One value per month along ``time``, in ascending order.

    Returns
    -------
    xr.DataArray
        Dimensions ``season`` (MAM, JJA, SON, DJF) and ``year`` (int) take the place of time.
        Winter belongs to the year of its January. A season that lacks a month is NaN:
        2015-2100 has 85 winters, from that of 2016 on.

    Raises
    ------
    ValueError
        If `field` does not hold one value per month, or no full season.
    """
    means = [yearly_mean(field, months) for months in SEASONS.values()]
    if not any(mean.sizes["year"] for mean in means):
        raise ValueError(f"`field` must hold a full season, got {months_covered(field)}")
    return xr.concat(means, xr.DataArray(list(SEASONS), dims="season", name="season"), join="outer")


def monthly_climatology(field):
    """Mean of each calendar month, with dimension month, in the precision of the field."""
    number = field["time"].dt.month.values
    means = [  # a loop, because groupby takes several times the memory
        field.isel(time=number == month).astype(float).mean("time").astype(field.dtype)
        for month in range(1, 13)
    ]
    return xr.concat(means, xr.DataArray(range(1, 13), dims="month", name="month"))


def monthly_statistics(field):
    """Mean and standard deviation (population) of each calendar month, in double precision.

    Dimension ``month``, 1 to 12, takes the place of time; NaN for a month that `field` lacks, and
    as the standard deviation of a series that does not vary.
    """
    number = field["time"].dt.month.values
    months = xr.DataArray(np.unique(number), dims="month", name="month")
    found = []
    for month in months.values:  # one after the other, as above
        values = field.isel(time=number == month).astype(float)
        found.append((values.mean("time"), values.std("time")))
    mean, spread = (xr.concat(of, months).reindex(month=range(1, 13)) for of in zip(*found))
    # rounding gives a constant series a spread of about 1e-16 of its mean
    return mean, spread.where(spread > 1e-12 * abs(mean))


def require_monthly(field, name):
    """Raise ValueError unless `field`, called `name`, holds one value per month, ascending."""
    month = 12 * field["time"].dt.year.values + field["time"].dt.month.values
    if not (np.diff(month) > 0).all():
        remedy = "got a repeated or earlier month; take monthly means or sort by time"
        raise ValueError(f"`{name}` must hold one value per month in ascending order, {remedy}")


def months_covered(field):
    """First and last month of `field` in words: ``2015-01 to 2100-12``."""
    first, last = field["time"].values[[0, -1]]
    return f"{str(first)[:7]} to {str(last)[:7]}"
