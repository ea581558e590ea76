"""Changes between periods: by season, by month, by region."""

from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from smcore import demo, prepared, product
from smcore.baselines import anomalies
from smcore.grids import box_mask, cell_area
from smcore.metrics import together
from smcore.regrid import coarse_weights
from smcore.seasons import PARTS, SEASONS, monthly_climatology, months_covered, yearly_mean

YEAR_AND_SEASONS = ("annual", *SEASONS)


def change_rate(theta, *, period, baseline, months=None, region=None):
    """Change of the area mean between two periods, in per cent of the earlier one.

    Parameters
    ----------
    theta : xr.DataArray
        Volumetric water content, one value per month along ``time``, with lat, lon and any others.
    period, baseline : pair of str
        First and last year, both included; ValueError if none has all of the months.
    months : sequence of int, optional
        Calendar months, 1 to 12, by default all; a season that crosses New Year belongs to the
        year of its January.
    region : xr.DataArray or mapping, optional
        A mask (lat, lon) or a box ``dict(south=, north=, west=, east=)`` in degrees, whose cells
        are weighted with cos(lat) like their areas, or weights (float). Default: all cells.
        ValueError if it holds no value.

    Returns
    -------
    xr.DataArray
        ``100 * (mean of period / mean of baseline - 1)`` in %, of area means, see also
        :func:`two_averages`. Months weigh the same, and only years with all of them count; of a
        month's mean, a cell without a value is left out.
    """
    return _rate(_area_mean(theta, region), period, baseline, months)


def regional_means(theta, *, regions):
    """Area means (..., region, time) of masks, boxes or weights by name, see `change_rate`."""
    means = {key: _area_mean(theta, region, f"region {key!r}") for key, region in regions.items()}
    return together(means, dim="region").transpose(..., "region", "time").assign_attrs(theta.attrs)


def regional_runs(read, experiments, *, regions):
    """Regional means of scenarios, each after the historical run, of what `read` gives."""
    runs = {run: regional_means(read(run), regions=regions) for run in ("historical", *experiments)}
    past = runs.pop("historical")
    continued = {name: xr.concat([past, run], "time") for name, run in runs.items()}
    return together(continued, dim="experiment_id")


def product_and_sources(study, *, regions):
    """Regional runs of the product, first along ``source_id``, and of its interpolated sources."""
    read = partial(prepared.open_predictors, study)
    areas = {name: mask * cell_area(mask.lat, mask.lon) for name, mask in regions.items()}
    coarse = read("historical").isel(time=0)
    weights = {name: coarse_weights(area, coarse) for name, area in areas.items()}
    fused = regional_runs(partial(product.fused, study), study.experiments, regions=regions)
    sources = regional_runs(read, study.experiments, regions=weights)
    return xr.concat([fused.expand_dims(source_id=["product"]), sources], "source_id")


def every_product(study, series, *, regions):
    """Regional months of products under the strongest scenario, `series` holding the sources'.

    By ``dataset``: presets' networks, a synthetic truth, the reference's seasonal cycle with the
    ensemble mean's smoothed anomalies (delta_change_31), and the ensemble mean.
    """
    read = {f"ynet_{name}": partial(product.fused, one) for name, one in study.presets.items()}
    if study.synthetic:
        read["truth"] = lambda run: demo.truth(study, run)["theta"]
    strongest, years = study.experiments[-1], study.periods.train
    runs = {name: regional_runs(one, [strongest], regions=regions)[0] for name, one in read.items()}
    mean = series[1:].sel(experiment_id=strongest).mean("source_id")
    observed = prepared.open_reference(study).sel(time=slice(*years)).load()
    cycle = monthly_climatology(regional_means(observed, regions=regions))
    smoothed = anomalies(mean, train_period=years, years=31).groupby("time.month") + cycle
    return together(runs | {"delta_change_31": smoothed, "ensemble_mean": mean})


def portrait(series, *, periods, baseline):
    """Change rates in % of monthly series, by ``part`` of the year and ``period`` ("2021-2040")."""
    rates = {}
    for part, months in PARTS.items():
        one = {"-".join(period): _rate(series, period, baseline, months) for period in periods}
        rates[part] = together(one, dim="period")
    return together(rates, dim="part").transpose(..., "part", "period")


def beside_sources(rates):
    """``change`` of the product, first along ``source_id``, beside median, min, max of the others.

    ``same_sign`` is their share, in %, with the sign of the product.
    """
    change, sources = rates.isel(source_id=0, drop=True), rates.isel(source_id=slice(1, None))
    of = {f"sources_{key}": getattr(sources, key)("source_id") for key in ("median", "min", "max")}
    same = (np.sign(sources) == np.sign(change)).mean("source_id")
    return xr.Dataset({"change": change, **of, "same_sign": 100 * same})


def running_change(series, periods):
    """Annual change from the baseline in %, as running means of 11 years, by ``experiment_id``.

    "historical" ends with the last mean that holds none but its years; there scenarios begin.
    """
    yearly = yearly_mean(series, PARTS["annual"])
    before = yearly.sel(year=slice(*map(int, periods.baseline))).mean("year")
    change = (100 * (yearly / before - 1)).rolling(year=11, center=True).mean().dropna("year")
    last = int(periods.future[0]) - 6  # the last year around which all eleven are historical
    past = change.isel(experiment_id=[0]).assign_coords(experiment_id=["historical"])
    past = past.where(change["year"] <= last)
    lines = xr.concat([past, change.where(change["year"] >= last)], "experiment_id")
    return lines.assign_attrs(units="%", long_name="change from " + "-".join(periods.baseline))


def other_baselines(series, periods):
    """Portraits of the last period, in %, against the ``baseline`` of a study and others."""
    pairs = [periods.baseline, ("1985", "2004"), periods.train, periods.test, periods.historical]
    inside = {"-".join(pair): pair for pair in pairs if periods.historical[0] <= pair[0]}
    last = periods.change[-1:]
    rates = {name: portrait(series, periods=last, baseline=pair) for name, pair in inside.items()}
    return together(rates, dim="baseline").squeeze("period", drop=True)


def amounts(series, *, period, baseline):
    """Mean in the baseline, and change until `period` in 10-3 (``quantity``) by year and season."""
    found = {}
    for part in YEAR_AND_SEASONS:
        later, earlier = _means(series, period, baseline, PARTS[part])
        both = {"baseline": earlier, "change": 1000 * (later - earlier)}
        found[part] = together(both, dim="quantity")
    return together(found, dim="part")


def two_averages(theta, *, period, baseline, months=None, region=None):
    """The change rate (``ratio_of_means``) beside the mean of the cells' own, in %, and why.

    Rates of the halves of the area with less and with more water in the baseline, and the drier's
    share of that. A cell without water there has no ratio; one that lacks a month takes no part.
    """
    if set(theta.dims) != {"time", "lat", "lon"}:
        raise ValueError(f"`theta` must have the dimensions time, lat, lon, got {theta.dims}")
    after, before = _means(theta, period, baseline, months)
    cells = xr.Dataset({"after": after, "before": before, "area": _weights(theta, region)})
    cells = cells.to_dataframe().astype(float).dropna().query("area > 0").sort_values("before")
    if cells.empty:
        raise ValueError("`region` must contain values of `theta`, got only NaN; choose land")
    area, wet = cells["area"], cells.query("before > 0")
    water = cells[["after", "before"]].mul(area, axis=0)
    dry = area.cumsum() - area / 2 <= area.sum() / 2
    parts = {"ratio_of_means": water, "drier_half": water[dry], "wetter_half": water[~dry]}
    after, before = pd.DataFrame({name: part.sum() for name, part in parts.items()}).values
    result = pd.Series(100 * (after / before - 1), list(parts))
    ratios = 100 * (wet["after"] / wet["before"] - 1)
    result["mean_of_ratios"] = np.average(ratios, weights=wet["area"])
    result["drier_half_water"] = 100 * before[1] / before[0]
    return result


def both_averages(theta, *, regions, **periods):
    """The two averages of the year and its seasons in several regions, as rows of a table."""
    found = {
        (name, part): two_averages(theta, months=PARTS[part], region=region, **periods)
        for name, region in regions.items()
        for part in YEAR_AND_SEASONS
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
    region = region if isinstance(region, xr.DataArray) else box_mask(theta, region)
    if region.dtype.kind not in "bf":
        raise ValueError(f"{name} must be a mask (bool) or weights (float), got {region.dtype}")
    if not (region >= 0).all():
        raise ValueError(f"{name} must hold weights of at least 0, got NaN or a negative one")
    with xr.set_options(arithmetic_join="exact"):
        weights = region * (area if region.dtype == bool else xr.ones_like(area))
    if not weights.any():
        ends = f"lat {lat.min():g} to {lat.max():g}, lon {lon.min():g} to {lon.max():g}"
        raise ValueError(
            f"{name} must contain cells of `theta`, got none: south of a box lies below north, "
            f"west below east, and `theta` covers {ends}"
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
            asked = f"a year of `theta` with all of the months {list(months)}"
            got = f"{first} to {last}, but `theta` covers {months_covered(series)}"
            raise ValueError(f"`{name}` must contain {asked}, got {got}")
        means.append(mean.mean("year", skipna=False))
    return means
