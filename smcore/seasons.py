"""Months, seasons and years: which months make a part of the year, and their means."""

import calendar

import numpy as np
import xarray as xr

SEASONS = ["MAM", "JJA", "SON", "DJF"]
# parts of the year, in the order of a portrait
PARTS = {
    "annual": tuple(range(1, 13)),
    "MAM": (3, 4, 5),
    "JJA": (6, 7, 8),
    "SON": (9, 10, 11),
    "DJF": (12, 1, 2),
} | {calendar.month_abbr[month]: (month,) for month in range(1, 13)}


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
    _require_one_value_per_month(field, "field")
    mean = _mean_of_full_groups(field, field["time"].dt.year.values, 12)
    if mean.sizes["group"] == 0:
        raise ValueError(f"`field` must hold a full calendar year, got {_months_covered(field)}")
    return mean.rename(group="year")


def seasonal_mean(field):
    """Mean of each season of each year, every month weighted equally.

    Parameters
    ----------
    field : xr.DataArray
        One value per month along ``time``, in ascending order.

    Returns
    -------
    xr.DataArray
        With dimensions ``season`` (MAM, JJA, SON, DJF) and ``year`` (int) in place of
        time. Winter belongs to the year of its January. Only seasons with all three months:
        2015-2100 has 85 winters, and DJF of 2015 is NaN. NaN also where a cell lacks a month.

    Raises
    ------
    ValueError
        If `field` does not hold one value per month, or no full season.
    """
    _require_one_value_per_month(field, "field")
    # counts the seasons: 4 * year + 0 to 2 for MAM to SON, and 4 * year - 1 for the year's DJF
    number = (12 * field["time"].dt.year.values + field["time"].dt.month.values) // 3 - 1
    means = _mean_of_full_groups(field, number, 3)
    if means.sizes["group"] == 0:
        raise ValueError(f"`field` must hold a full season, got {_months_covered(field)}")

    by_season = []
    for season in range(4):
        this = means.sel(group=means["group"] % 4 == season)
        by_season.append(this.assign_coords(group=(this["group"] + 1) // 4).rename(group="year"))
    season = xr.DataArray(SEASONS, dims="season", name="season")
    return xr.concat(by_season, dim=season, join="outer")


def monthly_climatology(field):
    """Mean of each calendar month, with dimension month, in the precision of the field."""
    number = field["time"].dt.month.values
    means = [  # a loop, because groupby takes several times the memory
        field.isel(time=number == month).astype(float).mean("time").astype(field.dtype)
        for month in range(1, 13)
    ]
    return xr.concat(means, dim=xr.DataArray(range(1, 13), dims="month", name="month"))


def _require_one_value_per_month(field, name):
    month = 12 * field["time"].dt.year.values + field["time"].dt.month.values
    if not (np.diff(month) > 0).all():
        raise ValueError(
            f"`{name}` must hold one value per month in ascending order, got a repeated or "
            "earlier month; take monthly means or sort by time"
        )


def _months_covered(field):
    first, last = field["time"].values[[0, -1]]
    return f"{str(first)[:7]} to {str(last)[:7]}"


def _monthly_mean_and_standard_deviation(field):
    """Both with dimension month, 1 to 12, in double precision."""
    month = field["time"].dt.month.values
    months = np.unique(month)
    means, spreads = [], []
    for number in months:  # a loop, because groupby takes several times the memory
        values = field.isel(time=month == number).astype(float)
        means.append(values.mean("time"))
        spreads.append(values.std("time"))
    index = xr.DataArray(months, dims="month", name="month")
    mean = xr.concat(means, dim=index).reindex(month=range(1, 13))
    spread = xr.concat(spreads, dim=index).reindex(month=range(1, 13))
    # rounding gives a constant series a spread of about 1e-16 of its mean
    return mean, spread.where(spread > 1e-12 * abs(mean))


def _mean_of_full_groups(field, group, size):
    """Mean over consecutive months of the same group, for groups that have `size` months."""
    groups, counts = np.unique(group, return_counts=True)
    full = groups[counts == size]
    blocks = field.isel(time=np.isin(group, full)).coarsen(time=size)
    mean = blocks.construct(time=("group", "month")).mean("month", skipna=False, keep_attrs=True)
    return mean.assign_coords(group=full)
