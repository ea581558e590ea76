"""Figures that several chapters share.

Every function takes labelled arrays, returns a matplotlib figure and saves nothing. The figure is
closed for pyplot, so that a notebook shows it once: as the value of the cell that made it.
Datasets and experiments come by their ids; how they look stands in ``data/figures.yml``.
"""

from itertools import product

import cartopy.crs as ccrs
import numpy as np
import seaborn as sns
import shapely
import xarray as xr
from cartopy.mpl.ticker import LatitudeFormatter, LongitudeFormatter
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withTickedStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from smcore import drawing
from smcore.config import ROOT
from smcore.drawing import QUANTITIES, figure_of, legend, look, mark, ordered, printed, styled

PLATE = ccrs.PlateCarree()
MAPS = drawing.FIGURES["maps"]  # the look of what lies on the colours
PARTS = drawing.FIGURES["parts"]
TICKED = [withTickedStroke(spacing=3.5, angle=-90, length=0.45)]
LAND = shapely.from_geojson((ROOT / "data" / "land.geojson").read_text(encoding="utf-8"))


@styled
def maps(
    field, *, quantity, row=None, col=None, dots=None, hatching=None, study_area=None, places=None,
    notes=None, zero_line=False,
):  # fmt: skip
    """Maps of a field (lat, lon), one panel for each value of `row` and `col`, with one colour bar.

    Its units are those of `quantity` in ``data/figures.yml``. `dots` and `hatching` are boolean on
    its cells, named by ``long_name``; a dot stands for a block of which at least half are True.
    `study_area` is a polygon; `places` has longitudes and latitudes of a point, or along a line, by
    name; `notes` are short texts by `row` and `col`. `zero_line` tells the signs without colour.
    """
    style, dims = drawing.quantity_of(field, quantity), [dim for dim in (row, col) if dim]
    field = ordered(field, "field", *dims, "lat", "lon")
    handles = []
    if zero_line:
        handles.append(Line2D([], [], path_effects=TICKED, **MAPS["zero_line"]))
    if study_area is not None:
        handles.append(Patch(label="study area", **MAPS["study_area"]))
    if dots is not None:
        dots = drawing.alike(dots, "dots", field)
        handles.append(Line2D([], [], label=dots.attrs.get("long_name", "dots"), **MAPS["dots"]))
    if hatching is not None:
        hatching = drawing.alike(hatching, "hatching", field).astype(float)
        label = hatching.attrs.get("long_name", "hatching")
        handles.append(Patch(label=label, **MAPS["hatching"]))

    panels = [dict(zip(dims, values)) for values in product(*(field[dim].values for dim in dims))]
    columns = len(panels) if len(panels) <= 4 else int(np.ceil(np.sqrt(len(panels))))
    columns = len(panels) // field.sizes[row] if row else columns
    west, east, south, north = edges = drawing.extent(field)
    aspect = 1 / np.cos(np.deg2rad((south + north) / 2))  # true to scale in the middle
    rows = -(-len(panels) // columns)
    # laid out in inches: the shape of a map is known, and nothing has to be searched
    total = drawing.ONE_COLUMN if columns == 1 else drawing.TWO_COLUMNS
    left, right, gap = 0.5 if len(dims) == 2 else 0.36, 0.08, 0.08
    top, head = [(0.04, 0), (0.03, 0.18), (0.14, 0.07)][len(dims)]  # of the figure, of each row
    width = (total - left - right - (columns - 1) * gap) / columns
    height = width * (north - south) / (east - west) * aspect
    in_a_row = 1 if columns == 1 else 3  # of the legend
    below = 0.66 + 0.14 * -(-len(handles) // in_a_row)
    deep = top + below + rows * (height + head)
    grid = {"left": left / total, "right": 1 - right / total, "wspace": gap / width}
    grid |= {"bottom": below / deep, "top": 1 - (top + head) / deep, "hspace": head / height}
    options = {"columns": columns, "beside": below + top, "layout": None, "gridspec_kw": grid}
    options["subplot_kw"] = {"projection": PLATE, "facecolor": drawing.MISSING}
    titles = [printed(*panel.values()) if len(dims) == 1 else "" for panel in panels]
    fig, axes = figure_of(titles, height + head, **options)

    places, ticks = places or {}, MaxNLocator(4, steps=[1, 2, 5, 10])
    block = max(1, round(0.055 * field.sizes["lon"] / width))  # cells between dots, 1.4 mm apart
    for number, (ax, panel) in enumerate(zip(axes, panels)):
        here = field.sel(panel)
        ax.pcolormesh(here.lon, here.lat, here, norm=style.norm, cmap=style.cmap, rasterized=True)
        ax.add_geometries([LAND], PLATE, **MAPS["land"])
        if zero_line:
            line = ax.contour(here.lon, here.lat, here, [0], colors="0.1", linewidths=0.5)
            line.set_path_effects(TICKED)
        if study_area is not None:
            ax.add_geometries([study_area], PLATE, **MAPS["study_area"])
        if dots is not None:
            ax.plot(*drawing.thinned(dots.sel(panel), block), **MAPS["dots"])
        if hatching is not None:
            shade = {"colors": "none", "hatches": [MAPS["hatching"]["hatch"]]}
            ax.contourf(here.lon, here.lat, hatching.sel(panel), [0.5, 1.5], **shade)
        ax.set(xticks=ticks.tick_values(west, east), yticks=ticks.tick_values(south, north))
        ax.xaxis.set_major_formatter(LongitudeFormatter())
        ax.yaxis.set_major_formatter(LatitudeFormatter())
        edge = {"labelleft": number % columns == 0, "labelbottom": number + columns >= len(panels)}
        ax.tick_params(**MAPS["ticks"], **edge)
        ax.grid(**MAPS["grid"])
        ax.set_extent(edges, PLATE)
        ax.set_aspect(aspect)
        if len(dims) == 2:  # heads above the columns and beside the rows
            ax.set_title(printed(panel[col]) if number < columns else "", loc="center")
            ax.set_ylabel(printed(panel[row]) if edge["labelleft"] else "")
        for name, (x, y) in places.items():
            side, shift = ("left", 0.7) if np.ndim(x) else ("right", -0.7)
            ax.plot(x, y, "k--" if np.ndim(x) else "k.", linewidth=0.7, markersize=4)
            ax.text(np.min(x) + shift, np.max(y) - 0.7, name, va="top", ha=side, **MAPS["text"])
        if notes is not None:
            ax.text(0.015, 0.03, notes.sel(panel).item(), transform=ax.transAxes, **MAPS["text"])
    bar = min(0.93, 4.2 / total)  # its share of the width
    cax = fig.add_axes((0.5 - bar / 2, (below - 0.3) / deep, bar, 0.09 / deep))
    drawing.colour_bar(fig, style, cax=cax)
    return legend(fig, handles, loc="lower center", ncols=in_a_row, borderaxespad=0.1)


@styled
def time_series(series, *, x="time", line="dataset", panel="region", sources=None):
    """Lines along `x` ("time", "month" from 1 to 12 or "year"), of water content if not named.

    Behind them, shaded, the range of `sources` (also source_id), for the lines they have.
    """
    series, theta = ordered(series, "series", panel, line, x).sortby(x), QUANTITIES["theta"]
    fig, axes = figure_of(series[panel].values, sharex=True, **drawing.FIGURES["lines"][x])
    for ax, values in zip(axes, series):
        drawing.lines(ax, values, marker="")
    units = drawing.written(series.attrs.get("units", theta.units))
    fig.supylabel(f"{series.attrs.get('long_name', theta.label)} ({units})")
    if x == "month":
        axes[0].set_xticks(range(1, 13), "JFMAMJJASOND")
    if sources is not None:
        sources = ordered(sources, "sources", panel, line, "source_id", x)
        low, high = sources.min("source_id"), sources.max("source_id")
        for (ax, here), name in product(zip(axes, series[panel].values), sources[line].values):
            at, colour, label = {panel: here, line: name}, look(name)["color"], printed(name)
            shade = {"facecolor": (colour, 0.2), "edgecolor": (colour, 0.7)} | PARTS["band"]
            shade |= {"linestyle": look(name)["linestyle"], "label": f"{label}, sources"}
            ax.fill_between(sources[x], low.sel(at), high.sel(at), **shade)
    return legend(fig, ncols=5)


@styled
def loss_curve(history, *, best_epoch, baseline):
    """Losses in (m3 m-3)2 by epoch, a star on the kept one, the errors of `baseline` across."""
    losses = history.rename(columns={"train": "training"})[["training", "validation"]]
    fig, (ax,) = figure_of([""], 1.9)
    marker = "o" if len(history) <= 30 else ""
    drawing.lines(ax, xr.DataArray(losses.T), marker=marker, markersize=2)
    for (name, value), dash in zip(baseline.items(), ["--", ":", "-."]):
        ax.axhline(value, linestyle=dash, label=printed(name), **PARTS["level"])
    best = history["validation"].loc[best_epoch]
    ax.plot(best_epoch, best, label=f"kept: epoch {best_epoch}", **PARTS["kept_epoch"])
    ax.set(yscale="log", ylabel=f"mean squared error of θ\nin ({drawing.written('m3 m-3')})²")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return legend(fig, ncols=3)


@styled
def index_bound(slopes, *, years):
    """Slopes (series, trend) of the index of so many years, below their bound."""
    slopes = ordered(slopes, "slopes", "series", "trend")
    bound = 10 * np.sqrt(12 / (years**2 - 1))  # since no correlation is above one
    fig, (ax,) = figure_of([""], 1.95)
    drawing.lines(ax, slopes, markersize=2.5)
    ax.axhline(bound, linestyle=":", label=f"bound, {bound:.3f}", **PARTS["level"])
    ax.set(xscale="log", ylim=(0, 1.1 * bound), ylabel=QUANTITIES["ssmi_slope"].title)
    shown = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    ax.set_xticks(shown, shown)
    ax.minorticks_off()
    ax.set_xlabel("trend per decade (standard deviations of a source)")
    return legend(fig, ncols=2)


@styled
def ranking(table):
    """RMSD (``test``, ``future_truth``) of each ``method`` in worlds of two varied assumptions.

    Logarithmic: the worst is about ten times as far off as the best.
    """
    methods = table["method"].unique()
    unknown = [name for name in methods if look(name) is drawing.LOOKS["source"]]
    if unknown:
        raise ValueError(f"`table` must hold methods out of {list(drawing.LOOKS)}, got {unknown}")
    titles = ["difference from the reference, test years", "difference from the truth, 2071–2100"]
    heads = {  # the assumption that varies, while the other is zero
        "shared_weather": "correlation of the sources' weather with the reference's",
        "bias_drift": "growth of each source's bias per century (1: it doubles)",
    }
    fig, axes = figure_of(titles, 2.9)
    for ax, score, varied, fixed in zip(axes, ["test", "future_truth"], heads, reversed(heads)):
        worlds = table[table[fixed] == 0].pivot(index="method", columns=varied, values=score)
        drawing.lines(ax, xr.DataArray(worlds.loc[methods]), markersize=4, markerfacecolor="white")
        ax.set(yscale="log", xticks=worlds.columns, xlabel=heads[varied])
        ax.minorticks_off()
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(axis="y")
    axes[0].set_ylabel(f"RMSD of water content ({drawing.written('m3 m-3')}), logarithmic")
    return legend(fig, ncols=3, handlelength=4)


@styled
def intervals(scores, *, label, better, line):
    """Scores (``value``, ``low``, ``high``), the best on top, one panel for each thing ``against``.

    They are better to the "left" or "right"; that of the dataset `line` runs through the panel.
    """
    scores = scores.sortby(scores["value"].isel(against=0), ascending=better == "left")
    scores = scores.map(ordered, args=("scores", "against", "dataset"))
    titles = [f"against the {of}" for of in scores["against"].values]
    names = scores["dataset"].values
    options = {"columns": len(titles), "wide": True, "sharey": True}
    fig, axes = figure_of(titles, 0.3 + 0.165 * len(names), **options)
    for number, ax in enumerate(axes):
        for row, name in enumerate(names):
            value, *ends = (scores[key][number, row] for key in ("value", "low", "high"))
            ax.plot(ends, [row, row], color=look(name)["color"], linewidth=1.2)
            mark(ax, value, row, name)
        level = float(scores["value"][number].sel(dataset=line))
        ax.axvline(level, color="0.3", linewidth=0.7, linestyle="--", zorder=0)
        ax.set_xlabel(f"{label} ({'better →' if better == 'right' else '← better'})")
        ax.grid(axis="x")
    ax.set_yticks(range(len(names)), map(printed, names))
    ax.set_ylim(len(names) - 0.4, -0.6)
    return fig


@styled
def change_spread(change, sources):
    """Change rates in % of datasets before a bar over those of sources, with a tick for each."""
    change = ordered(change, "change", "region", "dataset", "part")
    sources = ordered(sources, "sources", "region", "source_id", "part")
    sources = sources.sel(region=change["region"], part=change["part"])
    rows, names = np.arange(change.sizes["part"]), change["dataset"].values
    fig, axes = figure_of(change["region"].values, 0.35 + 0.36 * len(rows), sharey=True)
    for ax, shown, spread in zip(axes, change, sources):
        low, high = spread.min("source_id"), spread.max("source_id")
        ax.use_sticky_edges = False  # else the longest bar ends at the frame
        ax.barh(rows, high - low, left=low, **PARTS["range_of_sources"])
        row = np.tile(rows, len(spread))
        ax.vlines(spread.values.ravel(), row - 0.36, row + 0.36, **PARTS["a_source"])
        for name, values, shift in zip(names, shown, np.linspace(-0.28, 0.28, len(names))):
            mark(ax, values, rows + shift, name, markeredgecolor="white")
        ax.axvline(0, color="black", linewidth=0.6, zorder=1)
        ax.set_xlabel(QUANTITIES["change"].title)
    ax.set_yticks(rows, change["part"].values)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return legend(fig)


@styled
def permutations(results, *, quantity):
    """Histograms, by dataset id, of what `smcore.metrics.year_permutation_test` gives."""
    titles = [f"{printed(name)}, p = {float(one['p_value']):.3f}" for name, one in results.items()]
    fig, axes = figure_of(titles, 1.5, columns=min(len(results), 3))
    for ax, result in zip(axes, results.values()):
        count = f"{result.sizes['permutation']} orders of the years"
        ax.hist(result["permuted"], bins=30, color="0.75", label=count)
        ax.axvline(float(result["observed"]), color="#0072b2", linewidth=1.5, label="as they are")
        ax.xaxis.set_major_locator(MaxNLocator(3))
    fig.supxlabel(QUANTITIES[quantity].title)
    return legend(fig, loc="outside upper center")


@styled
def heat_map(values, *, quantity, row, col, panel):
    """Tables of colours with the numbers of a quantity; dimensions `row`, `col` and `panel`."""
    values = ordered(values, "values", panel, row, col)
    text = np.vectorize(lambda value: drawing.numeral(value, "z.2f"))(values)
    options = {"height": 0.24 + 0.2 * values.sizes[row], "columns": 1, "wide": True, "sharex": True}
    return drawing.tables_of(values, text, quantity, **options)[0]


@styled
def share_matrix(product, sources, *, rows):
    """Shares of drying area in % by `rows` and experiment_id, of product and sources."""
    product = ordered(product, "product", rows, "experiment_id")
    sources = ordered(sources, "sources", "source_id", rows, "experiment_id")
    middle, *ends = (getattr(sources, of)("source_id") for of in ("median", "min", "max"))
    titles = ["product", "sources: median (range)"]
    cells = xr.concat([product, middle], "panel").assign_coords(panel=titles)
    span = np.vectorize("{:.0f}  ({:.0f}–{:.0f})".format)(middle, *ends)
    text, height = [np.vectorize("{:.0f}".format)(product), span], 0.5 + 0.28 * product.sizes[rows]
    return drawing.tables_of(cells, text, "drying_share", height, shrink=0.6, sharey=True)[0]


@styled
def portrait(change, *, marks=None):
    """Change rates in % as tables of colours, one a region: part by period and experiment_id.

    Parts are year, four seasons, twelve months; cells of `marks` (bool) get a triangle.
    """
    change = ordered(change, "change", "region", "part", "period", "experiment_id")
    cells = change.stack(column=["period", "experiment_id"])
    form = np.vectorize(lambda x: drawing.numeral(x, "z.1f" if abs(x) < 9.95 else "z.0f"))
    text = form(cells.fillna(0))  # numpy warns of NaN
    fig, axes = drawing.tables_of(cells, text, "change", 4, shrink=0.6, sharey=True)
    width, (_, rows, columns) = change.sizes["experiment_id"], cells.shape
    starts = width * np.arange(change.sizes["period"])
    for ax in axes:
        ax.hlines([1, 5], 0, columns, color="white", linewidth=3)  # below year and seasons
        ax.vlines(starts[1:], 0, rows, color="white", linewidth=3)
        ax.tick_params(axis="x", labelrotation=90)
        heads = ax.secondary_xaxis("top")
        heads.set_xticks(starts + width / 2, change["period"].values)
        heads.tick_params(length=0)
        heads.spines[:].set_visible(False)
    if marks is not None:
        marked = drawing.alike(marks, "marks", change).stack(column=["period", "experiment_id"])
        for ax, cell in zip(axes, (marked & cells.notnull()).values):
            row, column = np.nonzero(cell)
            ax.plot(column + 1, row, label=marks.attrs.get("long_name"), **PARTS["corner"])
        legend(fig)
    return fig


@styled
def quality_matrix(table):
    """Verdicts on the files of sources (rows) and experiments (columns): symbols on colours."""
    verdicts, looks = table.to_numpy(), drawing.FIGURES["verdicts"]
    unknown = sorted(set(verdicts.flat) - looks.keys(), key=str)
    if unknown:
        raise ValueError(f"`table` must hold verdicts out of {list(looks)}, got {unknown}")
    fig, (ax,) = figure_of([""], 0.3 + 0.165 * len(table))
    symbols, colours = zip(*looks.values())
    codes = np.vectorize([*looks].index)(verdicts)
    options = {"xticklabels": [printed(name) for name in table], "yticklabels": table.index}
    options |= {"cmap": ListedColormap(colours), "vmin": 0, "vmax": len(looks), "cbar": False}
    sns.heatmap(codes, annot=np.array(symbols)[codes], fmt="", linewidths=0.4, ax=ax, **options)
    ax.tick_params(length=0, labeltop=True, labelbottom=False, labelrotation=0)
    handles = [
        Patch(facecolor=colour, label=f"{symbol} {name} ({(verdicts == name).sum()})")
        for name, (symbol, colour) in looks.items()
    ]
    return legend(fig, handles, handlelength=1, columnspacing=1, handletextpad=0.4)


@styled
def taylor(statistics, *, families=None):
    """Normalised diagram of Taylor (2001), https://doi.org/10.1029/2000JD900719, points numbered.

    Of ``std_ratio`` s and ``correlation`` r by dataset; families share colour and marker. The
    distance from the star, the reference, is ubRMSD_ratio = sqrt(1 + s**2 - 2 s r).
    """
    table = statistics[["std_ratio", "correlation"]].to_dataframe().dropna()
    table = table.drop(index="reference", errors="ignore")
    radius, angle = table["std_ratio"], np.arccos(table["correlation"].clip(-1, 1))
    widest = np.pi if (angle > np.pi / 2).any() else np.pi / 2
    outer = max(1.5, radius.max() + 0.1)
    height = max(3.7, 0.125 * len(table))  # the legend is long
    fig, (ax,) = figure_of([""], height, wide=True, subplot_kw={"polar": True})
    ticks = np.array([0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
    ticks = np.union1d(-ticks, ticks) if widest > 2 else ticks
    ax.set(xlim=(0, widest), ylim=(0, outer), yticks=np.arange(0.5, outer, 0.5))
    ax.set_xticks(np.arccos(ticks), map(drawing.numeral, ticks))
    ax.tick_params(labelsize=6.5, pad=1)
    middle = {"textcoords": "offset points", "ha": "center", "va": "center"}
    turned = middle | {"rotation": np.rad2deg(widest / 2) - 90}
    ax.annotate("correlation", (widest / 2, outer), (16, 16) if widest < 2 else (0, 20), **turned)
    text = "standard deviation / that of the reference\n(dashed: ubRMSD / the same)"
    ax.annotate(text, (0, outer / 2 if widest < 2 else 0), (0, -24), **middle)
    x, y = np.meshgrid(np.linspace(0, widest, 181), np.linspace(0, outer, 101))
    distance = np.sqrt(1 + y**2 - 2 * y * np.cos(x))
    circles = ax.contour(x, y, distance, np.arange(0.25, outer + 1, 0.25), **PARTS["circles"])
    ax.clabel(circles, circles.levels[1::2], fontsize=6, fmt="%g")
    mark(ax, 0, 1, "reference", clip_on=False, markersize=10)
    families, palette = families or {}, sns.color_palette("tab10")
    kinds = list(dict.fromkeys(families.values()))
    for number, (name, *point) in enumerate(zip(table.index, angle, radius), start=1):
        style = {"clip_on": False, "label": f"{number} {printed(name)}"}
        if name in families:
            kind = kinds.index(families[name])
            style |= {"marker": "ov^P"[kind % 4], "color": palette[kind % 10]}
            style["label"] += f" ({families[name]})"
        mark(ax, *point, name, **style)
        turn = np.deg2rad(100 * number)  # neighbours in the list have their numbers apart
        step = (7 * np.cos(turn), 7 * np.sin(turn))
        ax.annotate(number, point, step, size=6, zorder=6, **middle)
    return legend(fig, loc="outside right center", ncols=1, fontsize=6)
