"""Judgements on the statements of the paper."""

import re

import numpy as np
import pandas as pd
import xarray as xr

from smcore.config import LABELS, Region, label, paper_claims
from smcore.grids import box_mask, cell_area
from smcore.metrics import area_share
from smcore.seasons import MONTHS, SEASONS

SCENARIO = re.compile(r"ssp\d{3}")
PAPER_SCENARIOS = ("ssp126", "ssp245", "ssp370", "ssp585")


def finding(found, agrees, *, region, interval="", note="", reason=""):
    """What a chapter found for one claim.

    Parameters
    ----------
    found : str
        The computed counterpart as it is to be printed, with its unit.
    agrees : bool or None
        Whether it is what the claim says; None where that cannot be said.
    region : str
        The area that it was computed for.
    interval : str, optional
        Between what it may lie, and of what kind that interval is.
    note : str, optional
        Variant of the definition, where the paper leaves it open.
    reason : str, optional
        Why it cannot be said whether it agrees. By default: the text gives no definition.
    """
    agrees = None if agrees is None else bool(agrees)
    return {
        "found": str(found),
        "agrees": agrees,
        "interval": interval,
        "region": region,
        "note": note,
        "reason": reason,
    }


def judged(findings, claims, experiments):
    """Findings of a chapter, without a judgement where a scenario is missing.

    Parameters
    ----------
    findings : dict
        By claim id, as :func:`finding` makes them.
    claims : list of dict
        As in ``data/paper_claims.yml``. A claim is about the scenarios that its ``experiment``
        names, and about all four of the paper where it names none, such as "all" or
        "low to high".
    experiments : sequence of str
        Scenarios that the findings come from.

    Returns
    -------
    dict
        The same findings. One that lacks a scenario keeps its number, but has ``agrees`` None,
        a ``reason``, and ``lacking``, which keeps it from a verdict on any data.
    """
    by_id = {claim["id"]: claim for claim in claims}
    result = {}
    for name, one in findings.items():
        lacking = _lacking(by_id[name], experiments)
        if lacking:
            one = one | {"agrees": None, "reason": _without(lacking), "lacking": lacking}
        result[name] = one
    return result


def _lacking(claim, experiments):
    """Scenarios that a claim is about and that are not among `experiments`."""
    needed = SCENARIO.findall(str(claim.get("experiment", ""))) or PAPER_SCENARIOS
    return [name for name in needed if name not in experiments]


def _without(lacking):
    return f"this study has no {', '.join(lacking)}: name it under `experiments` of the profile"


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


# --- trends ---


def median_and_range(values, form="{:.0f}"):
    """Median of the sources and their range in words: ``61 (48–71)``.

    `values` has the dimension source_id; the result is an array of str of the others.
    """
    three = (getattr(values, of)("source_id") for of in ("median", "min", "max"))
    written = "{} ({}–{})".format
    return xr.apply_ufunc(lambda *x: written(*map(form.format, x)), *three, vectorize=True)


def beside_range(value, values):
    """Where a number lies beside others: "below", "within" or "above" their range."""
    below, above = value < float(values.min()), value > float(values.max())
    return "below" if below else "above" if above else "within"


def closer(skill, other, *, within=0.03):
    """Whether an estimate is "closer" than another, "level" or "farther", by their skill.

    A difference less than `within` says nothing; "not decided" where one of them is NaN or None.
    """
    if pd.isna(skill) or pd.isna(other):
        return "not decided"
    difference = float(skill) - float(other)
    return "level" if abs(difference) < within else "closer" if difference > 0 else "farther"


def drying_belt(slope, part):
    """Latitude of the most severe drying: of the lowest mean slope along a parallel of a mask.

    `slope` and `part` have dimensions lat, lon; a parallel needs 5 degrees of longitude in `part`.
    """
    step = float(abs(slope["lon"][1] - slope["lon"][0]))
    wide = part.sum("lon") * step >= 5
    return slope.where(part).mean("lon").where(wide).idxmin("lat")


def trend_findings(product, sources, area, study_area, study, *, baseline):
    """Findings on the slopes of the annual index, section 3.3.1 and figure 6 of the paper.

    Parameters
    ----------
    product, sources : xr.DataArray
        Slopes of the index per decade (experiment_id, lat, lon; with source_id) on the same cells.
    area, study_area, study : xr.DataArray, xr.DataArray of bool, Study
        Area of the cells and mask of the study area (lat, lon); boxes "north", "south" and "west".
    baseline : pair of str
        Years of the index, for the notes.

    Returns
    -------
    dict
        Findings by claim id; without those whose scenarios or land the slopes lack.
    """
    variant = f"SSMI by its own standard deviation over {'-'.join(baseline)}"
    paper, result, both = paper_claims(), {}, (product, sources)
    boxes = study.regions | {"north-wetting": study.regions["north"]}
    boxes |= {name: Region(**paper[name]["box"]) for name in ("xinjiang-ssp126", "xinjiang-ssp585")}
    parts = {name: study_area & box_mask(study_area, box) for name, box in boxes.items()}
    where = {name: f"{study.study_area.name}, {box}" for name, box in boxes.items()}

    def means(name):
        return [slope.weighted(area.where(parts[name], 0)).mean(("lat", "lon")) for slope in both]

    (south, souths), (north, norths), (west, wests) = map(means, ("south", "north", "west"))
    result["south-dry-north-wet"] = finding(
        f"south: {by_scenario(south)}; north: {by_scenario(north)}",
        (south < 0).all() and (north > 0).all(),
        region=f"south: {where['south']}; north: {where['north']}",
        interval=f"south: {between_sources(souths)}; north: {between_sources(norths)}",
        note=f"area means per decade, {variant}",
    )
    result["northwest-turn"] = finding(
        by_scenario(west),
        west[0] > 0 > west[-1],
        region=where["west"],
        interval=between_sources(wests),
        note=f"area means per decade, {variant}",
    )
    for name in ("north-wetting", "xinjiang-ssp126", "xinjiang-ssp585"):
        claim = paper[name]
        named = [one for one in product["experiment_id"].values if one in claim["experiment"]]
        if not named or not parts[name].any():
            continue
        limit, (low, high) = claim["limit"], claim["accepted"]
        beyond = [slope.sel(experiment_id=named) * np.sign(limit) > abs(limit) for slope in both]
        share, shares = (area_share(reached, area, mask=parts[name]) for reached in beyond)
        result[name] = finding(
            by_scenario(share, "{:.0f} %"),
            ((share > low) & (share <= high)).all(),
            region=where[name],
            interval=between_sources(shares.squeeze(), "{:.0f} %"),
            note=f"{variant}; the text gives no share: read as {low} to {high} %",
        )
    if product.sizes["experiment_id"] > 1:
        belt, belts = (drying_belt(slope, parts["south"]) for slope in both)
        first, last = {"experiment_id": 0}, {"experiment_id": -1}
        shift, shifts = (lat[last] - lat[first] for lat in (belt, belts))
        result["drying-belt-shifts"] = finding(
            by_scenario(belt, "{:.1f}N"),
            shift < 0,
            region=where["south"],
            interval=f"shift, {between_sources(shifts, '{:+.0f} degrees')}",
            note=f"latitude of the lowest zonal mean, agrees if it moves south; {variant}; "
            "sources on the coarse grid",
        )
    return result


# --- seasons ---

CELLS = ("lat", "lon")
PLATEAU = 3000  # m


def season_findings(slopes, static, study, *, baseline):
    """Findings on the seasons, as :func:`finding` makes them, by claim id.

    Parameters
    ----------
    slopes : xr.DataArray
        Slopes of the seasonal index per decade, dimensions source_id (first of all the product,
        then its sources), experiment_id, season, lat, lon.
    static : xr.Dataset
        ``study_area`` (bool) and ``elevation`` (m) of the cells.
    study : Study
        Names the study area and the boxes north, south and west.
    baseline : pair of str
        Years of the index, for the notes.
    """
    paper, place, boxes = paper_claims(), study.study_area.name, study.regions
    variant = f"SSMI by its own standard deviation over {'-'.join(baseline)}"
    inside, area = static["study_area"], cell_area(static["lat"], static["lon"])
    masks = {key: inside & box_mask(static, boxes[key]) for key in ("north", "south", "west")}
    north, south, west = (f", {boxes[key]}" for key in masks)
    spring, summer, autumn, winter = (slopes.sel(season=name, drop=True) for name in SEASONS)
    found = {}

    def share(condition, mask=inside):
        return area_share(condition, area, mask=mask)

    def mean(slope, mask=inside):
        return slope.weighted(area.where(mask, 0)).mean(CELLS)

    def add(claim, values, holds=None, form="{:+.3f}", note="", region=""):
        words = {"region": place + region, "note": "; ".join(filter(None, [note, variant]))}
        found.update(_judged(paper[claim], values, holds, form, **words))

    add("spring-area", share(spring < 0), form="{:.1f} %")
    fast = share(winter <= paper["winter-south"]["limit"], masks["south"])
    add("winter-south", fast, form="{:.1f} %", region=south)
    dry, cold = share(slopes < 0), mean(winter, masks["south"])
    least, most = dry.idxmin("season"), dry.idxmax("season")
    note = "season with the smallest drying area"
    add("summer-wettest", least, least == "JJA", "{}", note)
    note = f"season with the largest drying area; mean winter slope{south}: {_listed(cold[0])}"
    add("winter-driest", most, (most == "DJF") & (cold < 0), "{}", note)
    wetting, note = mean(summer.where(summer > 0)), "mean over the cells that become wetter"
    add("summer-wetting", wetting, wetting > paper["summer-wetting"]["limit"], "{:.3f}", note)
    slower, ratio = paper["autumn-slower"]["limit"], mean(autumn.where(autumn > 0)) / wetting
    note = f"SON over JJA, {note}; much lower: below {slower}"
    add("autumn-slower", ratio, ratio < slower, "{:.2f}", note)
    lowest = summer.where(inside).quantile(0.01, CELLS).drop_vars("quantile")
    reached = (lowest <= paper["summer-drying"]["value"]).any("experiment_id")
    note = "in a few areas: the lowest 1 % of the cells, in any scenario"
    add("summer-drying", lowest, reached, note=note)
    drying, note = mean(autumn.where(autumn < 0), masks["west"]), "mean over the cells that dry"
    add("autumn-west", drying, drying <= paper["autumn-west"]["value"], note=note, region=west)
    if slopes.sizes["experiment_id"] > 1:
        low = inside & ~(masks["west"] & (static["elevation"] > PLATEAU))
        growing, but = share(spring < 0, low), f" without land above {PLATEAU} m{west}"
        add("spring-grows", growing, growing.diff("experiment_id") > 0, "{:.0f} %", region=but)
        means = mean(slopes.sel(season=["JJA", "SON"]), masks["north"])
        rise = means.isel(experiment_id=-1) - means.isel(experiment_id=0)
        note = "mean slope of the strongest scenario less that of the weakest"
        add("conclusion-north-autumn", rise, rise > 0, note=note, region=north)
    return found


# --- periods ---


def period_findings(rates, study):
    """Findings on the change rates of north and south, as :func:`finding` makes them, by claim id.

    Parameters
    ----------
    rates : xr.DataArray
        In %, dimensions source_id (first of all the product, then its sources), region, part,
        period, experiment_id; the parts as in :func:`smcore.changes.portrait`.
    study : Study
        Names the study area and the boxes.
    """
    paper, found, over = paper_claims(), {}, ["period", "experiment_id"]
    of = {name: rates.sel(region=name, drop=True) for name in rates["region"].values}
    several = rates.sizes["period"] > 1

    def add(claim, values, holds, note, *names, form="{:+.1f} %"):
        boxes = "; ".join(f"{name}: {study.regions[name]}" for name in names)
        words = {"region": f"study area ({study.study_area.name}), {boxes}", "note": note}
        found.update(_judged(paper[claim], values, holds, form, **words))

    def sizes(region):
        return abs(of[region].sel(part=list(SEASONS))).mean(over)

    def leads(values, names):
        first = values["part"].isin(names)
        return values.where(first).min("part") > values.where(~first).max("part")

    size = "size: mean absolute change over all scenarios and periods"
    if {"north", "south"} <= set(of) and several:
        annual = abs(rates.sel(region=["north", "south"], part="annual"))
        grows = (annual.diff("period") > 0).all("period").sum(["region", "experiment_id"])
        rows, note = 2 * rates.sizes["experiment_id"], "each region and scenario; absolute value"
        form = f"{{:.0f}} of {rows}"
        add("rate-grows", grows, grows == rows, note, "north", "south", form=form)
    if "north" in of:
        may, august = of["north"].sel(part="May").min(over), of["north"].sel(part="Aug").max(over)
        add("north-may", may, None, "the lowest over scenarios and periods", "north")
        add("north-august", august, None, "the highest over scenarios and periods", "north")
        spring, summer = (of["north"].sel(part=part).mean(over) for part in ("MAM", "JJA"))
        holds = leads(sizes("north"), ["MAM", "JJA"]) & (spring < 0) & (summer > 0)
        note = f"{size}, MAM and JJA above the others; signed, MAM negative and JJA positive"
        add("north-seasons", sizes("north"), holds, note, "north")
    if "south" in of:
        holds, note = leads(sizes("south"), ["JJA", "DJF"]), f"{size}, JJA and DJF above the others"
        add("south-seasons", sizes("south"), holds, note, "south")
    if "south" in of and several and "ssp126" in rates["experiment_id"]:
        months = of["south"].sel(part=list(MONTHS)).mean(over)
        holds = leads(months, ["Jun", "Jul", "Aug"])
        later = of["south"].isel(period=slice(1, None)).sel(experiment_id="ssp126", drop=True)
        cold = later.sel(part=["Dec", "Jan"]).max(["part", "period"]) < 0
        note = (
            "means over scenarios and periods: June, July, August the highest; and December and "
            "January under SSP1-2.6 negative in each period after the first"
        )
        add("south-months", months, holds & cold, note, "south")
    return found


def direction(rate, same_sign):
    """Whether a region becomes "wetter" or "drier", by a change rate in %.

    "undecided" where less than 80 % of the sources, `same_sign`, have the sign of the rate.
    """
    return "undecided" if same_sign < 80 or rate == 0 else ("wetter" if rate > 0 else "drier")


def nearest_to_truth(rates, *, within=0.03):
    """How far datasets are from the truth, as a table with the nearest first.

    Parameters
    ----------
    rates : xr.DataArray
        Change rates in %, dimension dataset and any others.
    within : float, default: 0.03
        A network (``ynet_<preset>``) is level with the best one where its skill is less than
        this below.

    Returns
    -------
    pd.DataFrame
        ``distance``, the mean absolute difference in percentage points; ``skill``, 1 less the
        mean squared difference over the mean square of the truth; ``level``, as above. Empty
        where there is no ``truth`` among the datasets.
    """
    if "truth" not in rates["dataset"]:
        return pd.DataFrame(columns=["distance", "skill", "level"]).rename_axis("dataset")
    over = [dim for dim in rates.dims if dim != "dataset"]
    off = rates.drop_sel(dataset="truth") - rates.sel(dataset="truth")
    skill = (1 - (off**2).mean(over) / (rates.sel(dataset="truth") ** 2).mean()).to_series()
    best = level_with_best(skill[skill.index.str.startswith("ynet_")], within=within)
    found = {"distance": abs(off).mean(over), "skill": skill, "level": skill.index.isin(best)}
    return pd.DataFrame(found).sort_values("distance")


def _judged(claim, values, holds, form, *, region, note):
    """A finding on the product, with the range of the sources and in how many the claim holds.

    `values`, and whether they fit, have source_id, the product first, and at most one other
    dimension: of a source all have to. By default those fit that are near the paper's. Of
    scenarios, those that the claim names; no finding without any.
    """
    if holds is None:
        holds = abs(values - claim["value"]) < claim["margin"]
        note = f"margin {claim['margin']} points; {note}"
    if named := SCENARIO.findall(str(claim.get("experiment", ""))):
        here = values["experiment_id"].isin(named).values
        values, holds = values.isel(experiment_id=here), holds.isel(experiment_id=here)
        if not here.any():
            return {}
    holds = holds.all([dim for dim in holds.dims if dim != "source_id"]).values
    spread = "" if form == "{}" else f"{between_sources(values[1:], form)}; "
    interval = f"{spread}holds in {holds[1:].sum()} of {holds[1:].size} sources"
    words = {"region": region, "interval": interval, "note": note}
    return {claim["id"]: finding(_listed(values[0], form), holds[0], **words)}


def _listed(values, form="{:+.3f}"):
    """A value, or those of one dimension: ``SSP1-2.6 +0.010, SSP5-8.5 -0.020``."""
    if not values.dims:
        return form.format(values.item())
    named = zip(values[values.dims[0]].values, values.values)
    return ", ".join(f"{label(name)} {form.format(value)}" for name, value in named)
