"""What is found for the statements of the paper, and whether it agrees with them."""

import numpy as np

from smcore.claims import SCENARIO, between_sources, finding, listed
from smcore.config import Region, label, paper_claims
from smcore.grids import box_mask, cell_area
from smcore.metrics import BETTER, PERMUTED, area_share, bootstrap_years, confidence_interval
from smcore.seasons import MONTHS, SEASONS

CELLS = ("lat", "lon")
WEAKEST, STRONGEST = {"experiment_id": 0}, {"experiment_id": -1}  # scenario
PLATEAU = 3000  # m
VARIANT = "SSMI by its own standard deviation over {}"
NO_CELLS = "the study area has no cells to judge it by"


def training_findings(history):
    """The first epoch within 1 % of the lowest loss in ``history["validation"]``, not judged."""
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

    Share, low and high, by draws of years from `annual`, (year, lat, lon); NaN if `mask` is empty.
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

    `scores` (:func:`smcore.validation.score_table`) and `statistics` are of the dataset `product`,
    ``ensemble_mean`` and the sources, `annual` the MAE (dataset, year, lat, lon) of the first two,
    `cycles` (dataset, site, month) of ``reference`` and ``ensemble_mean``; `gap` has the ends of
    the MAE of `product` less that of ``ensemble_mean``.
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
        words = {"interval": f"years {low:.1f} to {high:.1f} %", "region": region}
        words["note"] = f"counts as agreement: {_written(claims[name])} %"
        found[name] = _within([mask], f"{share:.1f} %", _fits(share, claims[name]), **words)
    claim, errors = claims["mae-inner-mongolia"], annual.sel(dataset=product).mean("year")
    boxes = [Region(**box) for box in claim["boxes"].values()]
    masks = [here & box_mask(errors, box) for box in boxes]
    medians = [float(errors.weighted(area * mask).quantile(0.5)) for mask in masks]
    text = "; ".join(f"{name} {one:.3f} m³ m⁻³" for name, one in zip(claim["boxes"], medians))
    agrees = all(_fits(median, claim) for median in medians)
    region, note = "; ".join([place, *map(str, boxes)]), "area-weighted medians of the cells"
    found["mae-inner-mongolia"] = _within(masks, text, agrees, region=region, note=note)

    pooled = {"region": "land", "note": "pooled cells and months"}
    four = scores["value"].sel(score=list(PERMUTED))
    gain = four.sel(dataset=product, drop=True) - four.sel(dataset="ensemble_mean", drop=True)
    better = gain.transpose("score") * [BETTER[score] for score in PERMUTED] > 0
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
    extremes = sources["correlation"].max(), sources["ubrmsd_ratio"].min()
    for name, extreme in zip(("taylor-r", "taylor-ubrmsd"), extremes):
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
    agrees, reason = (not any(shifts), "") if shifts else (None, "no site has a series")
    note = "in phase: no shift of months brings the mean annual cycles closer"
    region = "the sites of Fig. 4 without the plateau's"
    found["phase"] = finding("; ".join(words), agrees, region=region, note=note, reason=reason)
    return found


def _within(masks, found, agrees, **words):
    """A finding, not judged and without an interval where one of the masks holds no cell."""
    if not all(mask.any() for mask in masks):
        agrees, words = None, words | {"interval": "", "reason": NO_CELLS}
    return finding(found, agrees, **words)


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

    `product` and `sources` have slopes per decade (experiment_id, lat, lon; with source_id), of the
    index by `baseline`. Left out are claims without their scenarios, or without cells in their box.
    """
    paper, result, both = paper_claims(), {}, (product, sources)
    variant = VARIANT.format("-".join(baseline))
    note = f"area means per decade, {variant}"
    boxes = study.regions | {"north-wetting": study.regions["north"]}
    boxes |= {name: Region(**paper[name]["box"]) for name in ("xinjiang-ssp126", "xinjiang-ssp585")}
    parts = {name: study_area & box_mask(study_area, box) for name, box in boxes.items()}
    where = {name: f"{study.study_area.name}, {box}" for name, box in boxes.items()}

    def means(name):
        return [slope.weighted(area.where(parts[name], 0)).mean(("lat", "lon")) for slope in both]

    (south, souths), (north, norths), (west, wests) = map(means, ("south", "north", "west"))
    masks, text = [parts["south"], parts["north"]], "south: {}; north: {}".format
    words = {"region": text(where["south"], where["north"]), "note": note}
    words["interval"] = text(between_sources(souths), between_sources(norths))
    found, agrees = text(listed(south), listed(north)), (south < 0).all() & (north > 0).all()
    result["south-dry-north-wet"] = _within(masks, found, agrees, **words)
    words = {"region": where["west"], "interval": between_sources(wests), "note": note}
    turns = west[0] > 0 > west[-1]
    result["northwest-turn"] = _within([parts["west"]], listed(west), turns, **words)
    for name in ("north-wetting", "xinjiang-ssp126", "xinjiang-ssp585"):
        claim = paper[name]
        named = [one for one in product["experiment_id"].values if one in claim["experiment"]]
        if not named or not parts[name].any():
            continue
        limit = claim["limit"]
        beyond = [slope.sel(experiment_id=named) * np.sign(limit) > abs(limit) for slope in both]
        share, shares = (area_share(reached, area, mask=parts[name]) for reached in beyond)
        words = {"region": where[name], "interval": between_sources(shares.squeeze(), "{:.0f} %")}
        words["note"] = f"{variant}; the text gives no share: read as {_written(claim)} %"
        result[name] = finding(listed(share, "{:.0f} %"), _fits(share, claim).all(), **words)
    if product.sizes["experiment_id"] > 1:
        belt, belts = (drying_belt(slope, parts["south"]) for slope in both)
        shift, shifts = (lat[STRONGEST] - lat[WEAKEST] for lat in (belt, belts))
        note = f"latitude of the lowest zonal mean, agrees if it moves south; {variant}; "
        words = {"region": where["south"], "note": f"{note}sources on the coarse grid"}
        words["interval"] = f"shift, {between_sources(shifts, '{:+.0f} degrees')}"
        masks, found = [belt.notnull()], listed(belt, "{:.1f}N")
        result["drying-belt-shifts"] = _within(masks, found, shift < 0, **words)
    return result


def season_findings(slopes, static, study, *, baseline):
    """Findings by claim on the seasons; `baseline` are the years of the index.

    `slopes` of the seasonal index per decade are (source_id, experiment_id, season, lat, lon), the
    product first; `static` has ``study_area`` (bool) and ``elevation`` (m).
    """
    paper, boxes, found = paper_claims(), study.regions, {}
    variant = VARIANT.format("-".join(baseline))
    inside, area = static["study_area"], cell_area(static["lat"], static["lon"])
    masks = {key: inside & box_mask(static, boxes[key]) for key in ("north", "south", "west")}
    where = {key: f", {boxes[key]}" for key in masks}
    masks["low"] = inside & ~(masks["west"] & (static["elevation"] > PLATEAU))
    where["low"] = f" without land above {PLATEAU} m{where['west']}"
    spring, summer, autumn, winter = (slopes.sel(season=name, drop=True) for name in SEASONS)

    def mean(slope, at=None):
        return slope.weighted(area.where(masks.get(at, inside), 0)).mean(CELLS)

    def share(condition, at=None):
        return 100 * mean(condition, at)

    def add(claim, values, holds=None, form="{:+.3f}", note="", at=None, needs=None):
        region, mask = study.study_area.name + where.get(at, ""), masks.get(needs or at, inside)
        note = f"{note}; {variant}" if note else variant
        found.update(_judged(paper[claim], values, holds, form, mask, region, note))

    add("spring-area", share(spring < 0), form="{:.1f} %")
    fast = share(winter <= paper["winter-south"]["limit"], "south")
    add("winter-south", fast, form="{:.1f} %", at="south")
    dry, cold = share(slopes < 0), mean(winter, "south")
    least, most = dry.idxmin("season"), dry.idxmax("season")
    add("summer-wettest", least, least == "JJA", "{}", "season with the smallest drying area")
    south = f"mean winter slope{where['south']}: {listed(cold[0])}"
    note = f"season with the largest drying area; {south}"
    add("winter-driest", most, (most == "DJF") & (cold < 0), "{}", note, needs="south")
    wetting, note = mean(summer.where(summer > 0)), "mean over the cells that become wetter"
    add("summer-wetting", wetting, wetting > paper["summer-wetting"]["limit"], "{:.3f}", note)
    slower, ratio = paper["autumn-slower"]["limit"], mean(autumn.where(autumn > 0)) / wetting
    note = f"SON over JJA, {note}; much lower: below {slower}"
    add("autumn-slower", ratio, ratio < slower, "{:.2f}", note)
    lowest = summer.where(inside).quantile(0.01, CELLS).drop_vars("quantile")
    reached = (lowest <= paper["summer-drying"]["value"]).any("experiment_id")
    note = "in a few areas: the lowest 1 % of the cells, in any scenario"
    add("summer-drying", lowest, reached, note=note)
    drying, note = mean(autumn.where(autumn < 0), "west"), "mean over the cells that dry"
    add("autumn-west", drying, drying <= paper["autumn-west"]["value"], note=note, at="west")
    if slopes.sizes["experiment_id"] > 1:
        growing = share(spring < 0, "low")
        add("spring-grows", growing, growing.diff("experiment_id") > 0, "{:.0f} %", at="low")
        means = mean(slopes.sel(season=["JJA", "SON"]), "north")
        rise = means[STRONGEST] - means[WEAKEST]
        note = "mean slope of the strongest scenario less that of the weakest"
        add("conclusion-north-autumn", rise, rise > 0, note=note, at="north")
    return found


def period_findings(rates, study):
    """Findings by claim on the change rates of north and south.

    `rates` in % are (source_id, region, part, period, experiment_id), the product first.
    """
    paper, found, over = paper_claims(), {}, ["period", "experiment_id"]
    of = {name: rates.sel(region=name, drop=True) for name in rates["region"].values}
    several = rates.sizes["period"] > 1

    def add(claim, values, holds, note, *names, form="{:+.1f} %"):
        boxes = "; ".join(f"{name}: {study.regions[name]}" for name in names)
        region = f"study area ({study.study_area.name}), {boxes}"
        known = rates[0].sel(region=list(names)).notnull().any(["part", *over]).all()
        found.update(_judged(paper[claim], values, holds, form, known, region, note))

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
        note = "means over scenarios and periods: June, July, August the highest; and December and "
        note += "January under SSP1-2.6 negative in each period after the first"
        add("south-months", months, holds & cold, note, "south")
    return found


def _judged(claim, values, holds, form, mask, region, note):
    """The finding on a product, by claim: with the range of its sources, and in how many it holds.

    `values`, and whether they fit, by default if near the paper's, have source_id and at most one
    other dimension, along which all have to. Empty without a scenario that the claim names.
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
    words = {"region": region, "interval": interval, "note": note}
    return {claim["id"]: _within([mask], listed(values[0], form), holds[0], **words)}
