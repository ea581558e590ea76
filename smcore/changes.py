"""Changes between periods: by season, by month, by region."""

import numpy as np
import xarray as xr

from smcore.seasons import PARTS


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
    region : xr.DataArray or mapping, optional
        A mask (lat, lon); or ``dict(south=, north=, west=, east=)`` in degrees: the cells
        whose centres lie inside, on the southern and western border included, on the
        northern and eastern not, so that neighbouring regions share no cell; or the weights
        of the cells themselves, as numbers. Default: all cells.

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
    dominate; see :func:`two_averages`. Cells are weighted with cos(lat), to which the exact
    areas of evenly spaced cells are proportional. Months are weighted equally, and a year
    counts only if all of `months` are there. A cell without a value is left out of that
    month's mean.

    A season that crosses New Year belongs to the year of its January: if `months` hold both
    12 and 1 but not all twelve, December, and the months asked for that lead up to it, count
    for the following year. The winters 2021-2040 begin in December 2020.
    """
    series = _area_mean(theta, region)
    return _rate(series, period, baseline, PARTS["annual"] if months is None else months)


def regional_means(theta, *, regions):
    """Area means of several regions, month by month: all that their change rates depend on.

    Parameters
    ----------
    theta : xr.DataArray
        As in :func:`change_rate`.
    regions : mapping of str to region
        Each as `region` in :func:`change_rate`; None for all cells.

    Returns
    -------
    xr.DataArray
        In the units of `theta`, loaded, with dimensions ``region`` and ``time`` after any
        further ones.

    Raises
    ------
    ValueError
        If a region holds no cell with a value, or is not of the form it has to have.
    """
    means = []
    for name, region in regions.items():
        try:
            means.append(_area_mean(theta, region))
        except ValueError as error:
            raise ValueError(
                f"region {name!r}: {error}. Choose a region over land; of a box, south must lie "
                "below north, and west below east"
            ) from None
    result = xr.concat(means, xr.Variable("region", list(regions)))
    return result.transpose(..., "region", "time").assign_attrs(theta.attrs)


def portrait(series, *, periods, baseline):
    """Change rates by part of the year and period.

    Parameters
    ----------
    series : xr.DataArray
        One value per month along ``time``, such as :func:`regional_means`; further dimensions
        are kept. Holds all periods.
    periods : sequence of pairs of str
        First and last year of each period, both included.
    baseline : pair of str
        First and last year of the period they are compared with.

    Returns
    -------
    xr.DataArray
        Change rate in % with dimensions ``part`` (annual, MAM, JJA, SON, DJF, Jan, ..., Dec)
        and ``period`` ("2021-2040"), after those of `series` without time.

    Raises
    ------
    ValueError
        If a period holds no year with all months of a part.
    """
    by_part = [
        xr.concat([_rate(series, period, baseline, months) for period in periods], "period")
        for months in PARTS.values()
    ]
    result = xr.concat(by_part, "part").assign_coords(
        part=list(PARTS), period=[f"{first}-{last}" for first, last in periods]
    )
    return result.transpose(..., "part", "period")


def two_averages(theta, *, period, baseline, months=None, region=None):
    """The ratio of area means beside the mean of the cells' ratios, and why they differ.

    Parameters and errors are those of :func:`change_rate`; a cell that lacks one of the months
    asked for has no ratio and takes no part.

    Returns
    -------
    xr.Dataset
        ``ratio_of_means``: the change rate, in %. ``mean_of_ratios``: the mean of the cells'
        own change rates, weighted by area; a cell without water in the baseline has none.
        ``drier_half``, ``wetter_half``: the change rates (ratios of means) of the cells that
        make up the drier half of the area in the baseline, and of the others.
        ``drier_half_water``: the share of the region's water that the drier half holds then.
        All in %.

    Notes
    -----
    The ratio of means is itself a mean of the cells' ratios, each weighted with the water that
    the cell holds in the baseline. So the drier half counts with ``drier_half_water``, where
    the mean of ratios gives it half of the weight.
    """
    if set(theta.dims) != {"time", "lat", "lon"}:
        raise ValueError(f"`theta` must have the dimensions time, lat, lon, got {theta.dims}")
    weights = _weights(theta, region)
    months = PARTS["annual"] if months is None else months
    earlier = _mean_over(theta, baseline, months, "baseline")
    later = _mean_over(theta, period, months, "period")
    earlier, later, weights = (
        field.transpose("lat", "lon").values.astype(float).ravel()
        for field in xr.broadcast(earlier, later, weights)
    )
    here = (weights > 0) & np.isfinite(earlier) & np.isfinite(later)
    if not here.any():
        raise ValueError(
            f"`region` must contain values of `theta`, got only NaN in {_name(region)}"
        )
    order = np.argsort(earlier[here], kind="stable")
    earlier, later, weights = (field[here][order] for field in (earlier, later, weights))

    before, after = weights * earlier, weights * later  # water
    area = weights.cumsum()
    dry, wet = area - weights / 2 <= area[-1] / 2, earlier > 0
    ratios = 100 * (later[wet] / earlier[wet] - 1)
    with np.errstate(invalid="ignore"):  # a single cell has no wetter half
        result = {
            "ratio_of_means": 100 * (after.sum() / before.sum() - 1),
            "mean_of_ratios": np.average(ratios, weights=weights[wet]),
            "drier_half": 100 * (after[dry].sum() / before[dry].sum() - 1),
            "wetter_half": 100 * (after[~dry].sum() / before[~dry].sum() - 1),
            "drier_half_water": 100 * before[dry].sum() / before.sum(),
        }
    return xr.Dataset({name: ((), value, {"units": "%"}) for name, value in result.items()})


def _area_mean(theta, region):
    weights = _weights(theta, region)
    # only the rows and columns that take part, which spares most of the reading and the work
    rows, columns = (np.flatnonzero(weights.any(dim)) for dim in ("lon", "lat"))
    here = {"lat": slice(rows[0], rows[-1] + 1), "lon": slice(columns[0], columns[-1] + 1)}
    series = theta.isel(here).weighted(weights.isel(here)).mean(("lat", "lon")).compute()
    if series.isnull().all():
        raise ValueError(
            f"`region` must contain values of `theta`, got only NaN in {_name(region)}"
        )
    return series


def _weights(theta, region):
    """Weights of the cells, (lat, lon), not all zero."""
    lat, lon = theta["lat"], theta["lon"]
    if isinstance(region, xr.DataArray) and region.dtype.kind == "f":
        if not (region >= 0).all():
            raise ValueError("`region` must hold weights of at least 0, got NaN or a negative one")
        with xr.set_options(arithmetic_join="exact"):
            weights = region * xr.ones_like(lat * lon)
    else:
        weights = np.cos(np.deg2rad(lat)) * _inside(lat, lon, region)
    if not (weights > 0).any():
        raise ValueError(
            f"`region` must contain cells of `theta`, got {_name(region)} without any: `theta` "
            f"covers lat {lat.values.min():g} to {lat.values.max():g}, "
            f"lon {lon.values.min():g} to {lon.values.max():g}"
        )
    return weights.transpose("lat", "lon")


def _inside(lat, lon, region):
    if region is None:
        return xr.ones_like(lat * lon, dtype=bool)
    if isinstance(region, xr.DataArray):
        if region.dtype != bool:
            raise ValueError(
                f"`region` must be a mask (bool) or weights (float), got {region.dtype}"
            )
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
