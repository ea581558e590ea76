"""Trends of the century ahead: what a product says, what its sources say, how they agree."""

import numpy as np
import xarray as xr
from scipy.ndimage import label

from smcore.config import LABELS
from smcore.grids import box_mask
from smcore.metrics import area_share, correlation, together, variance_ratio
from smcore.seasons import annual_mean
from smcore.ssmi import ssmi
from smcore.trends import METHODS, false_discovery_rate, mann_kendall, theil_sen

INDICES = ("ssmi", "ssmi_sources", "theta")
CELLS = ("lat", "lon")


def trend(theta, period, *, baseline=None, standard_deviation=None, mean=annual_mean, test=True):
    """Slope of the yearly means per decade, and whether it is significant.

    Parameters
    ----------
    theta : xr.DataArray
        Volumetric water content, one value per month along ``time``; further dimensions,
        such as ``source_id``, are kept.
    period : pair of str
        First and last year of the trend, both included.
    baseline : pair of str, optional
        The slope is that of the index with this baseline, see :func:`smcore.ssmi.ssmi`.
        Default: that of `theta` itself.
    standard_deviation : xr.DataArray, optional
        Of the index, as there; only with a `baseline`.
    mean : function, default: smcore.ssmi.annual_mean
        From months to years; ``seasonal_mean`` adds the dimension ``season``.
    test : bool, default: True
        Whether each cell is tested.

    Returns
    -------
    xr.Dataset
        ``slope`` (Theil-Sen) per decade and, with `test`, ``p_value`` (Mann-Kendall, "ar1").

    Raises
    ------
    ValueError
        If a `standard_deviation` is given without a `baseline`, or as :func:`smcore.ssmi.ssmi`.
    """
    if baseline is None:
        if standard_deviation is not None:
            raise ValueError("`standard_deviation` is that of an index: give its `baseline`, too")
        monthly = theta
    else:
        monthly = ssmi(theta, baseline=baseline, standard_deviation=standard_deviation)
    yearly = mean(monthly).sel(year=slice(*map(int, period)))
    result = (10 * theil_sen(yearly)["slope"]).to_dataset(name="slope")
    units = monthly.attrs.get("units", "")
    result["slope"].attrs = {"units": f"{units} decade-1".removeprefix("1 ").strip()}
    if test:
        result["p_value"] = mann_kendall(yearly)["p_value"]
    return result


def agreement(trends, *, alpha=0.05):
    """How far the sources agree on the sign of a trend, and how many of them are sure of it.

    Parameters
    ----------
    trends : xr.Dataset
        From :func:`trend`, with the dimension ``source_id``; with or without ``p_value``.
    alpha : float, default: 0.05
        Level of each source's own test.

    Returns
    -------
    xr.Dataset
        ``sign`` of the majority (-1, 0 for a draw, 1), ``same_sign``, the share of the
        sources with that sign (of a draw: with either), and, of tested trends,
        ``significant``, the share that has that sign and a p-value below `alpha`. Shares lie
        in 0 to 1 and are of the sources that have a slope; NaN where none has.

    Notes
    -----
    The simple approach of the IPCC's sixth report hatches what fewer than 80 % of the models
    agree on.

    References
    ----------
    Gutiérrez et al. (2021), Atlas, in: Climate Change 2021: The Physical Science Basis,
    doi:10.1017/9781009157896.021, Cross-Chapter Box Atlas.1
    """
    check_alpha(alpha)
    slope = trends["slope"]
    number = slope.notnull().sum("source_id")
    number = number.where(number > 0)
    up, down = (slope > 0).sum("source_id") / number, (slope < 0).sum("source_id") / number
    found = xr.Dataset({"sign": np.sign(up - down), "same_sign": np.maximum(up, down)})
    if "p_value" in trends:
        with_majority = (np.sign(slope) == found["sign"]) & (found["sign"] != 0)
        sure = with_majority & (trends["p_value"] < alpha)
        found["significant"] = sure.sum("source_id") / number
    return found


def shares(trends, area, regions, *, alpha=0.05):
    """Shares of area that dry and that wet, that do so significantly, and after correction.

    Parameters
    ----------
    trends : xr.Dataset
        From :func:`trend`; dimensions beside lat and lon are kept. Each map, over lat and lon,
        is one family of tests; cells that are NaN take no part.
    area : xr.DataArray
        Area of the cells (lat, lon).
    regions : dict of str to xr.DataArray of bool
        Masks (lat, lon) by name.
    alpha : float, default: 0.05
        Level of the test in each cell. The false discovery rate is controlled at twice that
        level, see :func:`smcore.trends.false_discovery_rate`.

    Returns
    -------
    xr.Dataset
        In % of a region's area, dimension ``region`` first: ``drier``, ``wetter``, the same
        with ``_significant`` (p below `alpha`) and with ``_corrected``.
    """
    check_alpha(alpha)
    slope, p_value = trends["slope"], trends["p_value"]
    corrected = xr.apply_ufunc(
        lambda p: false_discovery_rate(xr.DataArray(p), alpha=2 * alpha).values,
        p_value,
        input_core_dims=[CELLS],
        output_core_dims=[CELLS],
        vectorize=True,  # one map at a time
    ).transpose(*p_value.dims)
    result = {}
    for name, of_sign in {"drier": slope < 0, "wetter": slope > 0}.items():
        for suffix, condition in {
            "": of_sign,
            "_significant": of_sign & (p_value < alpha),
            "_corrected": of_sign & corrected,
        }.items():
            by_region = {key: area_share(condition, area, mask=m) for key, m in regions.items()}
            result[name + suffix] = together(by_region, dim="region")
    return xr.Dataset(result)


def likeness(estimate, reference, area, regions):
    """How like two maps of slopes are, region by region.

    Parameters
    ----------
    estimate, reference : xr.DataArray
        Slopes with dimensions lat, lon, in the same units; further ones are kept, and broadcast
        where only one of them has them.
    area : xr.DataArray
        Area of the cells (lat, lon): the weight in all but the median.
    regions : dict of str to xr.DataArray of bool
        Masks (lat, lon) by name.

    Returns
    -------
    xr.Dataset
        By ``region``: ``same_sign``, % of the area; ``correlation`` of the patterns;
        ``std_ratio``, the ratio of the standard deviations over the cells, and ``regression``,
        the slope of a line through `estimate` over `reference`; ``median_ratio``, the median
        of the cells' ratios; ``skill``, 1 less the mean squared difference over the mean square
        of `reference`: 1 is perfect, 0 as good as no trend at all, negative worse.

    Notes
    -----
    Both sides have to differ from zero to have the same sign. A ratio below 1 is a signal that
    has been damped; the regression line counts both, a damped pattern and a wrong one. It
    equals ``correlation * std_ratio``.
    """
    by_region = {}
    for name, mask in regions.items():
        here = mask & estimate.notnull() & reference.notnull()
        x, y = estimate.where(here), reference.where(here)
        found = xr.Dataset({"same_sign": area_share(x * y > 0, area, mask=here)})
        found["correlation"] = correlation(x, y, dim=CELLS, weights=area)
        found["std_ratio"] = np.sqrt(variance_ratio(x, y, dim=CELLS, weights=area))
        found["regression"] = found["correlation"] * found["std_ratio"]
        found["median_ratio"] = (x / y.where(y != 0)).median(CELLS)
        weights = area.fillna(0)
        squares = (y**2).weighted(weights).mean(CELLS)
        found["skill"] = 1 - ((x - y) ** 2).weighted(weights).mean(CELLS) / squares
        by_region[name] = found
    return together(by_region, dim="region")


def largest_patch(mask, area):
    """The largest connected patch of a mask: its share of a whole, and where it lies.

    Parameters
    ----------
    mask : xr.DataArray of bool
        Dimensions lat, lon. Cells that share an edge are connected.
    area : xr.DataArray
        Area of the cells (lat, lon); zero or NaN outside the whole that the share is of.

    Returns
    -------
    xr.Dataset
        ``share`` in %, ``centre_lat`` and ``centre_lon``, weighted with the area, in degrees;
        NaN where `mask` is empty.
    """
    mask = mask.transpose(*CELLS)
    area = area.transpose(*CELLS).fillna(0)
    patches, number = label(mask.values)
    if number == 0:
        return xr.Dataset({name: np.nan for name in ("share", "centre_lat", "centre_lon")})
    sizes = np.bincount(patches.ravel(), weights=area.values.ravel())
    weights = area.where(patches == 1 + sizes[1:].argmax(), 0)
    return xr.Dataset(
        {
            "share": 100 * weights.sum() / area.sum(),
            "centre_lat": (weights * mask["lat"]).sum() / weights.sum(),
            "centre_lon": (weights * mask["lon"]).sum() / weights.sum(),
        }
    )


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


def rejections_of_smoothed_noise(*, years=86, window=10, draws=2000, alpha=0.05, seed=0):
    """How often trend tests reject on a running mean of white noise, which has no trend.

    Parameters
    ----------
    years : int, default: 86
        Length of the series.
    window : int, default: 10
        Years of the centred running mean; at both ends it takes the years that are there.
    draws : int, default: 2000
        Number of series.
    alpha : float, default: 0.05
        Level of the tests.
    seed : int, default: 0
        Of the random numbers.

    Returns
    -------
    xr.DataArray
        Share of the series in % with dimension ``test``, those of `smcore.trends.METHODS`.
    """
    check_alpha(alpha)
    noise = np.random.default_rng(seed).normal(size=(draws, years))
    series = xr.DataArray(
        _running_mean(noise, window), coords={"year": np.arange(years)}, dims=("draw", "year")
    )
    rejected = {
        method: 100 * (mann_kendall(series, method=method)["p_value"] < alpha).mean("draw")
        for method in METHODS
    }
    return together(rejected, dim="test").assign_attrs(units="%")


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


def region_masks(static, study):
    """The regions of the chapters: all land, the study area, the study's boxes, and the east.

    Parameters
    ----------
    static : xr.Dataset
        From :func:`smcore.prepare.open_static`.
    study : Study
        Its study area and regions.

    Returns
    -------
    dict of str to xr.DataArray
        Boolean masks (lat, lon). The boxes hold all land whose cells' centres lie in them; "east"
        is "north" and "south" together, unless the study names another one.

    Raises
    ------
    ValueError
        If a region holds no land.
    """
    land = static["land"]
    boxes = {name: land & box_mask(static, box) for name, box in study.regions.items()}
    masks = {"all land": land, study.study_area.name: static["study_area"]}
    masks |= {"east": boxes["north"] | boxes["south"]} | boxes
    for name, mask in masks.items():
        if not mask.any():
            raise ValueError(
                f"`regions` must hold land, got none in {name!r}: degrees north and east of a "
                f"box in {study.domain}, south below north and west below east"
            )
    return masks


def on_cells_of(field, fine):
    """Each fine cell with the value of the coarse cell that it lies in.

    Parameters
    ----------
    field : xr.DataArray or xr.Dataset
        Dimensions lat, lon (coarse) and any others.
    fine : xr.DataArray of bool
        Mask (lat, lon) on the fine grid: the others become NaN.
    """
    near = field.sel(lat=fine["lat"], lon=fine["lon"], method="nearest")
    return near.assign_coords(lat=fine["lat"], lon=fine["lon"]).where(fine)


def between_sources(values, form="{:+.3f}"):
    """The range of a statistic over the sources, in words.

    Parameters
    ----------
    values : xr.DataArray
        Dimension ``source_id``, or that and ``experiment_id``: then over both.
    form : str, default: "{:+.3f}"
        How a number is written, with its unit behind it where it has one.
    """
    over = "sources and scenarios" if "experiment_id" in values.dims else "sources"
    number, _, unit = form.partition("}")
    low, high = (f"{number}}}".format(float(value)) for value in (values.min(), values.max()))
    return f"{over} {low} to {high}{unit}"


def by_scenario(values, form="{:+.3f}"):
    """A statistic of each scenario in words: ``SSP1-2.6 +0.010, SSP5-8.5 -0.020``.

    Parameters
    ----------
    values : xr.DataArray
        Dimension ``experiment_id``.
    form : str, default: "{:+.3f}"
        How a number is written.
    """
    names = values["experiment_id"].values
    return ", ".join(
        f"{LABELS[name]} {form.format(float(values.sel(experiment_id=name)))}" for name in names
    )


def check_alpha(alpha):
    """Raise ValueError unless `alpha` can be the level of a test, and twice that a rate."""
    if not isinstance(alpha, int | float) or not 0 < alpha < 0.5:
        raise ValueError(
            f"`alpha` must lie between 0 and 0.5, because the false discovery rate is controlled "
            f"at twice that level, got {alpha!r}"
        )


def level_with_best(scores, *, within):
    """The names whose score is the highest, or so close to it that the difference says nothing.

    Parameters
    ----------
    scores : pd.Series
        By name; the higher the better.
    within : float
        A score less than this below the highest is level with it.

    Returns
    -------
    list of str
        The best first.
    """
    ranked = scores.sort_values(ascending=False, kind="stable")
    return list(ranked.index[ranked > ranked.iloc[0] - within])


def _running_mean(series, window):
    """Centred running mean of (series, years); at both ends of the years that are there."""
    years = series.shape[1]
    first = np.maximum(np.arange(years) - window // 2, 0)
    last = np.minimum(np.arange(years) - window // 2 + window, years)
    total = np.cumsum(np.pad(series, ((0, 0), (1, 0))), axis=1)
    return (total[:, last] - total[:, first]) / (last - first)
