"""Judgements on the statements of the paper."""

import re

import numpy as np
import pandas as pd
import xarray as xr

from smcore.config import LABELS, Region, paper_claims
from smcore.grids import box_mask
from smcore.metrics import area_share

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
