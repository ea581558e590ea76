"""Changes between periods: by season, by month, by region."""

import numpy as np
import pandas as pd
import xarray as xr

from smcore.baselines import anomalies
from smcore.grids import box_mask
from smcore.metrics import together
from smcore.seasons import PARTS, SEASONS, monthly_climatology, months_covered, yearly_mean


def change_rate(theta, *, period, baseline, months=None, region=None):
    """Change of the area mean between two periods, in per cent of the earlier one.

    Parameters
    ----------
    theta : xr.DataArray
        Volumetric water content, one value per month along ``time``, with lat, lon and any others.
    period, baseline : pair of str
        First and last year, both included.
    months : sequence of int, optional
        Calendar months, 1 to 12, by default all; a season that crosses New Year belongs to the
        year of its January.
    region : xr.DataArray or mapping, optional
        A mask (lat, lon), or a box ``dict(south=, north=, west=, east=)`` in degrees: cells are
        weighted with cos(lat), to which the areas of evenly spaced ones are proportional. Or
        the weights themselves, as floats. Default: all cells.

    Returns
    -------
    xr.DataArray
        ``100 * (mean of period / mean of baseline - 1)`` in %: the ratio of area means, not the
        mean of the cells' ratios, see :func:`two_averages`. Months weigh the same, and only
        years with all of them count; of a month's mean, a cell without a value is left out.

    Raises
    ------
    ValueError
        If a period holds no year with all of `months`, a region holds no cell with a value,
        or `months` or `region` is not of the form above.
    """
    return _rate(_area_mean(theta, region), period, baseline, months)


def regional_means(theta, *, regions):
    """Area means of several regions, month by month: all that their change rates depend on.

    `regions` are masks, boxes or weights by name, as :func:`change_rate` takes them, None for all
    cells. In the units of `theta`, loaded, with the dimensions ``region`` and ``time`` last.
    """
    means = {key: _area_mean(theta, region, f"region {key!r}") for key, region in regions.items()}
    by_region = together(means, dim="region").transpose(..., "region", "time")
    return by_region.assign_attrs(theta.attrs)


def regional_runs(read, experiments, *, regions):
    """Regional means of each scenario, after those of the historical run that it continues.

    `read` gives the months of an experiment_id, "historical" or one of `experiments`. Dimension
    ``experiment_id`` stands before those of :func:`regional_means`.
    """
    past = regional_means(read("historical"), regions=regions)
    runs = {name: regional_means(read(name), regions=regions) for name in experiments}
    runs = {name: xr.concat([past, run], "time") for name, run in runs.items()}
    return together(runs, dim="experiment_id")


def portrait(series, *, periods, baseline):
    """Change rates in % by part of the year and period.

    `series` has one value per month along ``time``, which gives way to ``part`` (annual, MAM, JJA,
    SON, DJF, Jan, ..., Dec) and ``period`` ("2021-2040"), the last dimensions.
    """
    by_part = [
        xr.concat([_rate(series, period, baseline, months) for period in periods], "period")
        for months in PARTS.values()
    ]
    names = {"part": list(PARTS), "period": ["-".join(period) for period in periods]}
    return xr.concat(by_part, "part").assign_coords(names).transpose(..., "part", "period")


def beside_sources(rates):
    """Change rates in % of a product beside those of its sources, from a :func:`portrait` of both.

    First along ``source_id`` comes the product, whose rates are ``change``; ``sources_median``,
    ``sources_min`` and ``sources_max`` are those of the others, ``same_sign`` the share of them, in
    %, that has the sign of the product.
    """
    change, sources = rates.isel(source_id=0, drop=True), rates.isel(source_id=slice(1, None))
    result = {"change": change}
    for name in ("median", "min", "max"):
        result[f"sources_{name}"] = getattr(sources, name)("source_id")
    same = np.sign(sources) == np.sign(change)
    return xr.Dataset(result | {"same_sign": 100 * same.mean("source_id")})


def delta_change(raw, reference, *, regions, train_period):
    """Regional means of the reference's seasonal cycle plus the smoothed anomalies of a simulation.

    `raw` is the simulation, from :func:`regional_means` with the same `regions`, and `reference`
    the field (time, lat, lon). Both are taken about `train_period`, running means over 31 years.
    """
    observed = regional_means(reference.sel(time=slice(*train_period)).load(), regions=regions)
    cycle = monthly_climatology(observed).sel(month=raw["time"].dt.month).drop_vars("month")
    return cycle + anomalies(raw, train_period=train_period, years=31)


def other_baselines(series, periods):
    """A portrait of the last period against each ``baseline`` within the historical run, in %.

    These are the baseline of the study's `periods`, 1985-2004, and their training, test and
    historical years.
    """
    pairs = [periods.baseline, ("1985", "2004"), periods.train, periods.test, periods.historical]
    rates = {
        "-".join(pair): portrait(series, periods=periods.change[-1:], baseline=pair)
        for pair in pairs
        if periods.historical[0] <= pair[0]
    }
    return together(rates, dim="baseline").squeeze("period", drop=True)


def amounts(series, *, period, baseline):
    """Mean in the baseline, and the change of the mean until a period in 10-3, by season.

    `series` has one value per month along ``time``, in m3 m-3, which gives way to ``part`` (annual,
    MAM, JJA, SON, DJF) and ``quantity`` (baseline, change) as the first dimensions.
    """
    found = {}
    for part in ("annual", *SEASONS):
        later, earlier = _means(series, period, baseline, PARTS[part])
        both = {"baseline": earlier, "change": 1000 * (later - earlier)}
        found[part] = together(both, dim="quantity")
    return together(found, dim="part")


def two_averages(theta, *, period, baseline, months=None, region=None):
    """The ratio of area means beside the mean of the cells' ratios, and why they differ, in %.

    ``ratio_of_means`` is the change rate, ``mean_of_ratios`` that of the cells' own rates, weighted
    by area (a cell without water in the baseline has none). ``drier_half`` and ``wetter_half`` are
    the change rates of the cells that make up the drier half of the area in the baseline, and of
    the others; ``drier_half_water`` is the share of the water that the drier half holds then: its
    weight in the ratio of means. A cell of `theta` (time, lat, lon) that lacks one of the `months`
    takes no part; `region` is a mask, a box or weights.
    """
    if set(theta.dims) != {"time", "lat", "lon"}:
        raise ValueError(f"`theta` must have the dimensions time, lat, lon, got {theta.dims}")
    after, before = _means(theta, period, baseline, months)
    cells = xr.Dataset({"after": after, "before": before, "area": _weights(theta, region)})
    cells = cells.to_dataframe().astype(float).dropna().query("area > 0").sort_values("before")
    if cells.empty:
        raise ValueError("`region` must contain values of `theta`, got only NaN; choose land")
    area, wet = cells["area"], cells[cells["before"] > 0]
    dry = area.cumsum() - area / 2 <= area.sum() / 2
    parts = {"ratio_of_means": dry | True, "drier_half": dry, "wetter_half": ~dry}
    water = cells[["after", "before"]].mul(area, axis=0)
    water = pd.DataFrame({name: water[part].sum() for name, part in parts.items()}).T
    result = 100 * (water["after"] / water["before"] - 1)
    ratios = 100 * (wet["after"] / wet["before"] - 1)
    result["mean_of_ratios"] = np.average(ratios, weights=wet["area"])
    result["drier_half_water"] = 100 * water["before"]["drier_half"] / water["before"].iloc[0]
    return result


def both_averages(theta, *, regions, **periods):
    """The two averages of the year and its seasons in several regions, as rows of a table.

    `periods` are `period` and `baseline`, pairs of a first and a last year.
    """
    found = {
        (name, part): two_averages(theta, months=PARTS[part], region=region, **periods)
        for name, region in regions.items()
        for part in ("annual", *SEASONS)
    }
    return pd.DataFrame(found).T.rename_axis(index=["region", "part"])


def _area_mean(theta, region, name="`region`"):
    weights = _weights(theta, region, name)
    # only the rows and columns that take part, which spares most of the reading and the work
    rows, columns = (np.flatnonzero(weights.any(dim)) for dim in ("lon", "lat"))
    here = {"lat": slice(rows[0], rows[-1] + 1), "lon": slice(columns[0], columns[-1] + 1)}
    series = theta.isel(here).weighted(weights.isel(here)).mean(("lat", "lon")).compute()
    if series.isnull().all():
        raise ValueError(f"{name} must contain values of `theta`, got only NaN; choose land")
    return series


def _weights(theta, region, name="`region`"):
    """Weights of the cells, (lat, lon), not all zero."""
    lat, lon = theta["lat"], theta["lon"]
    area = np.cos(np.deg2rad(lat)) * xr.ones_like(lon)
    if region is None:
        return area
    if not isinstance(region, xr.DataArray):
        region = box_mask(theta, region)
    if region.dtype.kind not in "bf":
        raise ValueError(f"{name} must be a mask (bool) or weights (float), got {region.dtype}")
    if not (region >= 0).all():
        raise ValueError(f"{name} must hold weights of at least 0, got NaN or a negative one")
    with xr.set_options(arithmetic_join="exact"):
        weights = region * (area if region.dtype == bool else xr.ones_like(area))
    if not weights.any():
        raise ValueError(
            f"{name} must contain cells of `theta`, got none: south of a box lies below north, "
            f"west below east, and `theta` covers lat {lat.values.min():g} to "
            f"{lat.values.max():g}, lon {lon.values.min():g} to {lon.values.max():g}"
        )
    return weights.transpose("lat", "lon")


def _rate(series, period, baseline, months):
    later, earlier = _means(series, period, baseline, months)
    rate = 100 * (later / earlier - 1)
    return rate.rename("change_rate").assign_attrs(long_name="change rate", units="%")


def _means(series, period, baseline, months):
    """The means over the two periods, the later one first."""
    months = PARTS["annual"] if months is None else months
    means = []
    for name, pair in {"period": period, "baseline": baseline}.items():
        if len(pair) != 2 or not all(str(year).isdigit() for year in pair):
            raise ValueError(f"`{name}` must be a first and a last year, got {pair}")
        first, last = map(int, pair)
        year = series["time"].dt.year.values
        near = (year >= first - 1) & (year <= last)  # a winter has a December of the year before
        mean = yearly_mean(series.isel(time=near), months).sel(year=slice(first, last))
        if mean.sizes["year"] == 0:
            raise ValueError(
                f"`{name}` must contain a year of `theta` with all of the months {list(months)}, "
                f"got {first} to {last}, but `theta` covers {months_covered(series)}"
            )
        means.append(mean.mean("year", skipna=False))
    return means
