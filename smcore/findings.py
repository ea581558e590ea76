"""What is found for the statements of the paper, and whether it agrees with them."""

import numpy as np

from smcore.claims import SCENARIO, between_sources, finding, listed
from smcore.config import Region, label, paper_claims
from smcore.grids import box_mask, cell_area
from smcore.metrics import area_share, bootstrap_years, confidence_interval
from smcore.seasons import MONTHS, SEASONS

CELLS = ("lat", "lon")
PLATEAU = 3000  # m
VARIANT = "SSMI by its own standard deviation over {}"
NO_CELLS = "the study area has no cells to judge it by"


def training_findings(history):
    """When the training had converged: the first epoch within 1 % of the lowest loss.

    `history` (pd.DataFrame) has the losses ``validation`` by its index epoch. It is not judged,
    since the paper gives no definition.
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
    """Share of a mask in % whose mean error keeps to a claim's threshold, such as "< 0.04".

    `annual` is the mean absolute error of each year, (year, lat, lon). Returns share, low and high,
    by draws of years; NaN where `mask` is empty.
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

    `scores` and `statistics` (:func:`smcore.validation.score_table`,
    :func:`smcore.metrics.taylor_statistics`) are of what the paper compares: the dataset `product`,
    ``ensemble_mean`` and the sources. `annual` has the mean absolute errors of the first two
    (dataset, year, lat, lon), `cycles` the mean annual cycles (dataset, site, month) of
    ``reference`` and ``ensemble_mean``; `static` holds ``study_area`` and ``elevation``, `gap`
    ``low`` and ``high`` of the MAE of `product` less that of ``ensemble_mean``.
    """
    claims, found, place = paper_claims(), {}, study.study_area.name
    area = cell_area(annual["lat"], annual["lon"])
    here = static["study_area"] & annual.notnull().all(["dataset", "year"])
    west, south = (box_mask(annual, study.regions[name]) for name in ("west", "south"))
    plateau = here & (static["elevation"] > PLATEAU)
    for name, dataset, mask, region in (
        ("mae-area", product, here, place),
        ("mae-plateau", product, plateau, f"{place} above {PLATEAU} m"),
        ("mae-ensemble", "ensemble_mean", here & (west | south), f"west and south of {place}"),
    ):
        share, low, high = share_with_error(annual.sel(dataset=dataset), claims[name], area, mask)
        words = {"region": region, "note": f"agrees {_written(claims[name])} %"}
        words["interval"] = f"years {low:.1f} to {high:.1f} %" if mask.any() else ""
        agrees = _unless_empty(_fits(share, claims[name]), mask)
        found[name] = finding(f"{share:.1f} %", **agrees, **words)
    claim, errors = claims["mae-inner-mongolia"], annual.sel(dataset=product).mean("year")
    boxes = [Region(**box) for box in claim["boxes"].values()]
    masks = [here & box_mask(errors, box) for box in boxes]
    medians = [float(errors.weighted(area * mask).quantile(0.5)) for mask in masks]
    text = "; ".join(f"{name} {one:.3f} m³ m⁻³" for name, one in zip(claim["boxes"], medians))
    agrees = _unless_empty(all(_fits(median, claim) for median in medians), *masks)
    region, note = "; ".join([place, *map(str, boxes)]), "area-weighted medians of the cells"
    found["mae-inner-mongolia"] = finding(text, **agrees, region=region, note=note)

    pooled = {"region": "land", "note": "pooled cells and months"}
    four = scores["value"].sel(score=["mae", "rmsd", "ubrmsd", "correlation"])
    gain = four.sel(dataset=product, drop=True) - four.sel(dataset="ensemble_mean", drop=True)
    better = gain.transpose("score") * [-1, -1, -1, 1] > 0
    low, high = (f"{1000 * float(gap[end]):+.2f}".replace("-", "−") for end in ("low", "high"))
    interval = f"difference in MAE {low} to {high} 10⁻³ m³ m⁻³ (years)"
    text = f"better in {int(better.sum())} of 4"
    found["better-than-ensemble"] = finding(text, better.all(), interval=interval, **pooled)
    r, distance, spread = (statistics[of] for of in ("correlation", "ubrmsd_ratio", "std_ratio"))
    best = [str(one.idxmax("dataset").item()) for one in (r, -distance, -abs(spread - 1))]
    text = f"best r, ubRMSD, std: {', '.join(map(label, best))}"
    found["better-than-all"] = finding(text, set(best) == {product}, **pooled)

    ours, mean = statistics.sel(dataset=product), statistics.sel(dataset="ensemble_mean")
    sources = statistics.drop_sel(dataset=[product, "ensemble_mean"]).rename(dataset="source_id")
    between = {of: between_sources(sources[of], "{:.2f}") for of in sources}
    extremes = {
        "taylor-r": sources["correlation"].max(),
        "taylor-ubrmsd": sources["ubrmsd_ratio"].min(),
    }
    for name, extreme in extremes.items():
        fits, interval = _fits(extreme, claims[name]), between[extreme.name]
        found[name] = finding(f"{float(extreme):.2f}", fits, interval=interval, **pooled)
    after = _behind(sources, mean)
    text = f"{int(after.sum())} of {after.size} sources are behind it in both"
    found["taylor-second"] = finding(text, after.all() and _behind(mean, ours), **pooled)
    text = f"{float(mean['std_ratio']):.2f} against {float(sources['std_ratio'].mean()):.2f}"
    found["taylor-amplitude"] = finding(text, False, interval=between["std_ratio"], **pooled)

    shifts, words = [], []
    for cycle in cycles.dropna("site").transpose("site", ...):
        name, ours, theirs = cycle.site.item(), *cycle.sel(dataset=["ensemble_mean", "reference"])
        if "Plateau" not in name:
            shifts.append(phase_shift(ours, theirs))
            bias = f"bias {float((ours - theirs).mean()):+.3f} m³ m⁻³"
            words.append(f"{name}: shifted by {shifts[-1]} months, {bias}")
    found["phase"] = finding(
        "; ".join(words),
        not any(shifts) if shifts else None,
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
    """Findings by claim on the slopes of the annual index, section 3.3.1 and figure 6 of the paper.

    `product` and `sources` have the slopes per decade (experiment_id, lat, lon; with source_id);
    `area` and the mask `study_area` are those of the cells; `baseline` are the years of the index,
    for the notes. A claim whose scenarios the slopes lack, or whose own box has no cells, is left
    out; not judged where a box of the study holds none.
    """
    variant = VARIANT.format("-".join(baseline))
    paper, result, both = paper_claims(), {}, (product, sources)
    boxes = study.regions | {"north-wetting": study.regions["north"]}
    boxes |= {name: Region(**paper[name]["box"]) for name in ("xinjiang-ssp126", "xinjiang-ssp585")}
    parts = {name: study_area & box_mask(study_area, box) for name, box in boxes.items()}
    where = {name: f"{study.study_area.name}, {box}" for name, box in boxes.items()}

    def means(name):
        return [slope.weighted(area.where(parts[name], 0)).mean(("lat", "lon")) for slope in both]

    (south, souths), (north, norths), (west, wests) = map(means, ("south", "north", "west"))
    agrees = _unless_empty((south < 0).all() & (north > 0).all(), parts["south"], parts["north"])
    result["south-dry-north-wet"] = finding(
        f"south: {listed(south)}; north: {listed(north)}",
        **agrees,
        region=f"south: {where['south']}; north: {where['north']}",
        interval=f"south: {between_sources(souths)}; north: {between_sources(norths)}",
        note=f"area means per decade, {variant}",
    )
    agrees = _unless_empty(west[0] > 0 > west[-1], parts["west"])
    words = {"interval": between_sources(wests), "note": f"area means per decade, {variant}"}
    result["northwest-turn"] = finding(listed(west), **agrees, region=where["west"], **words)
    for name in ("north-wetting", "xinjiang-ssp126", "xinjiang-ssp585"):
        claim = paper[name]
        named = [one for one in product["experiment_id"].values if one in claim["experiment"]]
        if not named or not parts[name].any():
            continue
        limit = claim["limit"]
        beyond = [slope.sel(experiment_id=named) * np.sign(limit) > abs(limit) for slope in both]
        share, shares = (area_share(reached, area, mask=parts[name]) for reached in beyond)
        words = {"region": where[name], "interval": between_sources(shares.squeeze(), "{:.0f} %")}
        note = f"{variant}; the text gives no share: read as {_written(claim)} %"
        text = listed(share, "{:.0f} %")
        result[name] = finding(text, _fits(share, claim).all(), note=note, **words)
    if product.sizes["experiment_id"] > 1:
        belt, belts = (drying_belt(slope, parts["south"]) for slope in both)
        shift, shifts = (
            lat.isel(experiment_id=-1) - lat.isel(experiment_id=0) for lat in (belt, belts)
        )
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
    """Findings by claim on the seasons.

    `slopes` of the seasonal index per decade have the dimensions source_id (first of all the
    product, then its sources), experiment_id, season, lat, lon; `static` has ``study_area`` (bool)
    and ``elevation`` (m); `baseline` are the years of the index, for the notes.
    """
    paper, place, boxes = paper_claims(), study.study_area.name, study.regions
    variant = VARIANT.format("-".join(baseline))
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
    """Findings by claim on the change rates of north and south.

    `rates` in % have the dimensions source_id (first of all the product, then its sources),
    region, part, period, experiment_id; the parts as in :func:`smcore.changes.portrait`.
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
    """The finding on a product, by claim: with the range of its sources, and in how many it holds.

    `values`, and whether they fit, have source_id, the product first, and at most one other
    dimension, along which all have to; by default those fit that are near the paper's. Nothing
    without a scenario that the claim names; not judged where `mask` is empty.
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
