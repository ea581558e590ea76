"""What is found for the statements of the paper, and whether it agrees with them."""

import numpy as np

from smcore.claims import SCENARIO, between_sources, finding, listed
from smcore.config import Region, label, paper_claims
from smcore.grids import box_mask, cell_area
from smcore.metrics import area_share, bootstrap_years, confidence_interval
from smcore.seasons import MONTHS, SEASONS

CELLS = ("lat", "lon")
PLATEAU = 3000  # m
NO_CELLS = "the study area has no cells to judge it by"


def training_findings(history):
    """When the training had converged, as the paper's claim on its loss may be read.

    Parameters
    ----------
    history : pd.DataFrame
        Index epoch; column ``validation``, the loss in the validation years.

    Returns
    -------
    dict
        The finding ``loss-converged``: the first epoch within 1 % of the lowest loss. It cannot
        be judged, since the paper gives no definition.
    """
    losses = history["validation"]
    found = f"epoch {losses.index[losses <= 1.01 * losses.min()][0]}"
    note = "within 1 % of the lowest validation loss"
    return {"loss-converged": finding(found, None, region="box", note=note)}


def phase_shift(cycle, reference):
    """Months by which a mean annual cycle lags another, -6 to 5: where the two correlate best."""
    shifts = sorted(range(-6, 6), key=abs)
    return max(shifts, key=lambda months: np.corrcoef(np.roll(cycle, -months), reference)[0, 1])


def share_with_error(annual, claim, area, mask):
    """Share of an area in % whose mean error keeps to a claim's threshold, and its interval.

    `annual` is the mean absolute error of each year, (year, lat, lon), `claim` one of the paper's
    with a ``threshold`` such as "< 0.04". Returns share, low and high, by draws of years; NaN where
    `mask` is empty.
    """
    if not mask.any():
        return np.nan, np.nan, np.nan
    sign, limit = claim["threshold"].split()

    def share(errors):
        meets = errors < float(limit) if sign == "<" else errors > float(limit)
        return area_share(meets, area, mask=mask)

    bounds = confidence_interval(share(bootstrap_years(annual, resamples=300, seed=0)))
    return float(share(annual.mean("year"))), *map(float, bounds)


def validation_findings(study, product, scores, statistics, annual, cycles, static, *, gap):
    """Findings by claim on what the paper says of its product in the test years.

    Parameters
    ----------
    study : Study
        Its regions and the name of its study area.
    product : str
        Id of the product that is meant.
    scores, statistics : xr.Dataset
        From :func:`smcore.validation.score_table` and :func:`smcore.metrics.taylor_statistics`,
        of what the paper compares: `product`, ``ensemble_mean`` and the sources.
    annual : xr.DataArray
        Mean absolute error (dataset, year, lat, lon) of `product` and ``ensemble_mean``.
    cycles : xr.DataArray
        Mean annual cycles (dataset, site, month) of ``reference`` and ``ensemble_mean``.
    static : xr.Dataset
        ``study_area`` and ``elevation`` on the fine grid.
    gap : xr.Dataset
        ``low`` and ``high``, the interval of the MAE of `product` less that of ``ensemble_mean``.
    """
    claims, found, place = paper_claims(), {}, study.study_area.name
    area = cell_area(annual["lat"], annual["lon"])
    here = static["study_area"] & annual.notnull().all(["dataset", "year"])
    boxes = {name: here & box_mask(annual, box) for name, box in study.regions.items()}
    high, outer = here & (static["elevation"] > 3000), boxes["west"] | boxes["south"]
    for name, dataset, mask, region in (
        ("mae-area", product, here, place),
        ("mae-plateau", product, high, f"{place} above 3000 m"),
        ("mae-ensemble", "ensemble_mean", outer, f"west and south of {place}"),
    ):
        share, low, high = share_with_error(annual.sel(dataset=dataset), claims[name], area, mask)
        found[name] = finding(
            f"{share:.1f} %",
            **_unless_empty(_fits(share, claims[name]), mask),
            region=region,
            interval="" if np.isnan(share) else f"years {low:.1f} to {high:.1f} %",
            note=f"agrees {_written(claims[name])} %",
        )
    claim, errors = claims["mae-inner-mongolia"], annual.sel(dataset=product).mean("year")
    named = {name: Region(**box) for name, box in claim["boxes"].items()}
    masks = {name: here & box_mask(errors, box) for name, box in named.items()}
    medians = {
        name: float(errors.weighted(area * mask).quantile(0.5)) for name, mask in masks.items()
    }
    found["mae-inner-mongolia"] = finding(
        "; ".join(f"{name} {median:.3f} m³ m⁻³" for name, median in medians.items()),
        **_unless_empty(all(_fits(one, claim) for one in medians.values()), *masks.values()),
        region=f"{place}; " + "; ".join(map(str, named.values())),
        note="area-weighted medians of the cells",
    )

    pooled = {"region": "land", "note": "pooled cells and months"}
    four = scores["value"].sel(score=["mae", "rmsd", "ubrmsd", "correlation"])
    gain = four.sel(dataset=product, drop=True) - four.sel(dataset="ensemble_mean", drop=True)
    better = gain.transpose("score") * [-1, -1, -1, 1] > 0
    found["better-than-ensemble"] = finding(
        f"better in {int(better.sum())} of 4",
        better.all(),
        interval="difference in MAE {:+.2f} to {:+.2f} 10⁻³ m³ m⁻³ (years)".format(
            *(1000 * float(gap[end]) for end in ("low", "high"))
        ).replace("-", "−"),
        **pooled,
    )
    r, distance, spread = (statistics[of] for of in ("correlation", "ubrmsd_ratio", "std_ratio"))
    best = [str(one.idxmax("dataset").item()) for one in (r, -distance, -abs(spread - 1))]
    text = f"best r, ubRMSD, std: {', '.join(map(label, best))}"
    found["better-than-all"] = finding(text, set(best) == {product}, **pooled)

    ours, mean = statistics.sel(dataset=product), statistics.sel(dataset="ensemble_mean")
    sources = statistics.drop_sel(dataset=[product, "ensemble_mean"]).rename(dataset="source_id")
    between = {of: between_sources(sources[of], "{:.2f}") for of in sources}
    for name, of, extreme in (
        ("taylor-r", "correlation", float(sources["correlation"].max())),
        ("taylor-ubrmsd", "ubrmsd_ratio", float(sources["ubrmsd_ratio"].min())),
    ):
        agrees = _fits(extreme, claims[name])
        found[name] = finding(f"{extreme:.2f}", agrees, interval=between[of], **pooled)
    after = _behind(sources, mean)
    text = f"{int(after.sum())} of {after.size} sources are behind it in both"
    found["taylor-second"] = finding(text, after.all() and _behind(mean, ours), **pooled)
    text = f"{float(mean['std_ratio']):.2f} against {float(sources['std_ratio'].mean()):.2f}"
    interval = between["std_ratio"]
    found["taylor-amplitude"] = finding(text, False, interval=interval, **pooled)

    cycles = cycles.sel(site=[name for name in cycles["site"].values if "Plateau" not in name])
    cycles = cycles.dropna("site")
    ours, theirs = (cycles.sel(dataset=of) for of in ("ensemble_mean", "reference"))
    shifts = {
        name: phase_shift(ours.sel(site=name), theirs.sel(site=name)) for name in ours.site.values
    }
    offset = (ours - theirs).mean("month").to_series()
    found["phase"] = finding(
        "; ".join(
            f"{name}: shifted by {months} months, bias {offset[name]:+.3f} m³ m⁻³"
            for name, months in shifts.items()
        ),
        None if not shifts else not any(shifts.values()),
        region="the sites of Fig. 4 without the plateau's",
        note="in phase: no shift of months brings the mean annual cycles closer",
        reason="" if shifts else "no site has a series",
    )
    return found


def _unless_empty(agrees, *masks):
    """What agrees, or why that cannot be said where a mask holds no cell, for :func:`finding`."""
    empty = not all(mask.any() for mask in masks)
    return {"agrees": None, "reason": NO_CELLS} if empty else {"agrees": agrees}


def _ends(claim):
    """What agrees lies between these two numbers: given, or by a margin from the paper's."""
    value, margin = claim.get("value"), claim.get("margin")
    return claim["agrees"] if margin is None else (value - margin, value + margin)


def _fits(values, claim):
    """Whether values agree with a claim; the ends do not: half is not more than half."""
    low, high = _ends(claim)
    return (low < values) & (values < high)


def _written(claim):
    """What agrees with a claim, in words: ``above 50``, ``between 40 and 55``."""
    low, high = _ends(claim)
    if np.isinf(high):
        return f"above {low:g}"
    return f"below {high:g}" if np.isinf(low) else f"between {low:g} and {high:g}"


def _behind(one, other):
    """Whether a dataset of a Taylor diagram is behind another in distance and in correlation."""
    farther = one["ubrmsd_ratio"] > other["ubrmsd_ratio"]
    return farther & (one["correlation"] < other["correlation"])


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
        Findings by claim id; without those whose scenarios the slopes lack, or the cells of a
        claim's own box. Not judged where a box of the study holds no cells.
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
        f"south: {listed(south)}; north: {listed(north)}",
        **_unless_empty((south < 0).all() and (north > 0).all(), parts["south"], parts["north"]),
        region=f"south: {where['south']}; north: {where['north']}",
        interval=f"south: {between_sources(souths)}; north: {between_sources(norths)}",
        note=f"area means per decade, {variant}",
    )
    result["northwest-turn"] = finding(
        listed(west),
        **_unless_empty(west[0] > 0 > west[-1], parts["west"]),
        region=where["west"],
        interval=between_sources(wests),
        note=f"area means per decade, {variant}",
    )
    for name in ("north-wetting", "xinjiang-ssp126", "xinjiang-ssp585"):
        claim = paper[name]
        named = [one for one in product["experiment_id"].values if one in claim["experiment"]]
        if not named or not parts[name].any():
            continue
        limit = claim["limit"]
        beyond = [slope.sel(experiment_id=named) * np.sign(limit) > abs(limit) for slope in both]
        share, shares = (area_share(reached, area, mask=parts[name]) for reached in beyond)
        result[name] = finding(
            listed(share, "{:.0f} %"),
            _fits(share, claim).all(),
            region=where[name],
            interval=between_sources(shares.squeeze(), "{:.0f} %"),
            note=f"{variant}; the text gives no share: read as {_written(claim)} %",
        )
    if product.sizes["experiment_id"] > 1:
        belt, belts = (drying_belt(slope, parts["south"]) for slope in both)
        first, last = {"experiment_id": 0}, {"experiment_id": -1}
        shift, shifts = (lat[last] - lat[first] for lat in (belt, belts))
        result["drying-belt-shifts"] = finding(
            listed(belt, "{:.1f}N"),
            **_unless_empty(shift < 0, belt.notnull()),
            region=where["south"],
            interval=f"shift, {between_sources(shifts, '{:+.0f} degrees')}",
            note=f"latitude of the lowest zonal mean, agrees if it moves south; {variant}; "
            "sources on the coarse grid",
        )
    return result


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
        return 100 * mean(condition, mask)

    def mean(slope, mask=inside):
        return slope.weighted(area.where(mask, 0)).mean(CELLS)

    def add(claim, values, holds=None, form="{:+.3f}", note="", region="", mask=inside):
        words = {"region": place + region, "note": "; ".join(filter(None, [note, variant]))}
        found.update(_judged(paper[claim], values, holds, form, mask, **words))

    add("spring-area", share(spring < 0), form="{:.1f} %")
    fast = share(winter <= paper["winter-south"]["limit"], masks["south"])
    add("winter-south", fast, form="{:.1f} %", region=south, mask=masks["south"])
    dry, cold = share(slopes < 0), mean(winter, masks["south"])
    least, most = dry.idxmin("season"), dry.idxmax("season")
    note = "season with the smallest drying area"
    add("summer-wettest", least, least == "JJA", "{}", note)
    note = f"season with the largest drying area; mean winter slope{south}: {listed(cold[0])}"
    add("winter-driest", most, (most == "DJF") & (cold < 0), "{}", note, mask=masks["south"])
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
    words = {"note": note, "region": west, "mask": masks["west"]}
    add("autumn-west", drying, drying <= paper["autumn-west"]["value"], **words)
    if slopes.sizes["experiment_id"] > 1:
        low = inside & ~(masks["west"] & (static["elevation"] > PLATEAU))
        growing, but = share(spring < 0, low), f" without land above {PLATEAU} m{west}"
        holds = growing.diff("experiment_id") > 0
        add("spring-grows", growing, holds, "{:.0f} %", region=but, mask=low)
        means = mean(slopes.sel(season=["JJA", "SON"]), masks["north"])
        rise = means.isel(experiment_id=-1) - means.isel(experiment_id=0)
        note = "mean slope of the strongest scenario less that of the weakest"
        words = {"note": note, "region": north, "mask": masks["north"]}
        add("conclusion-north-autumn", rise, rise > 0, **words)
    return found


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
        known = rates[0].sel(region=list(names)).notnull().any(["part", *over]).all()
        found.update(_judged(paper[claim], values, holds, form, known, **words))

    def by_season(region, *largest):
        """Signed means, whether those seasons are the largest by size, and the sizes in words."""
        seasons = of[region].sel(part=list(SEASONS))
        sizes = abs(seasons).mean(over)
        size = f"size, the mean absolute change ({listed(sizes[0], '{:.1f} %')})"
        note = f"means over all scenarios and periods; by {size}, {' and '.join(largest)}"
        return seasons.mean(over), leads(sizes, largest), f"{note} above the others"

    def leads(values, names):
        first = values["part"].isin(names)
        return values.where(first).min("part") > values.where(~first).max("part")

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
        means, holds, note = by_season("north", "MAM", "JJA")
        holds = holds & (means.sel(part="MAM") < 0) & (means.sel(part="JJA") > 0)
        note = f"{note}; MAM negative and JJA positive"
        add("north-seasons", means, holds, note, "north")
    if "south" in of:
        add("south-seasons", *by_season("south", "JJA", "DJF"), "south")
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


def _judged(claim, values, holds, form, mask, *, region, note):
    """A finding on the product, with the range of the sources and in how many the claim holds.

    `values`, and whether they fit, have source_id, the product first, and at most one other
    dimension: of a source all have to. By default those fit that are near the paper's. Of
    scenarios, those that the claim names; no finding without any. Not judged where `mask` is
    empty.
    """
    if holds is None:
        holds = _fits(values, claim)
        note = f"margin {claim['margin']} points; {note}"
    if named := SCENARIO.findall(str(claim.get("experiment", ""))):
        here = values["experiment_id"].isin(named).values
        values, holds = values.isel(experiment_id=here), holds.isel(experiment_id=here)
        if not here.any():
            return {}
    holds = holds.all([dim for dim in holds.dims if dim != "source_id"]).values
    spread = "" if form == "{}" else f"{between_sources(values[1:], form)}; "
    interval = f"{spread}holds in {holds[1:].sum()} of {holds[1:].size} sources"
    agrees = _unless_empty(holds[0], mask)
    words = {"region": region, "interval": interval if mask.any() else "", "note": note}
    return {claim["id"]: finding(listed(values[0], form), **agrees, **words)}
