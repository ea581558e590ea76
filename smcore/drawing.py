"""What figures share: levels, colours, dashes, letters, units as printed, lines, tables of colours.

Levels, colours, markers and dashes stand in ``data/figures.yml``. Widths are those of a journal:
8.5 cm for one column and 17.8 cm for two.
"""

import re
from dataclasses import dataclass
from itertools import cycle
from string import ascii_letters

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import xarray as xr
import yaml
from matplotlib.colors import BoundaryNorm
from matplotlib.ticker import MaxNLocator

from smcore.config import ROOT, label

ONE_COLUMN, TWO_COLUMNS = 8.5 / 2.54, 17.8 / 2.54  # inches
MISSING = "0.87"  # ocean and missing cells
FIGURES = yaml.safe_load((ROOT / "data" / "figures.yml").read_text(encoding="utf-8"))
styled = plt.rc_context(FIGURES["style"])  # decorates what draws


@dataclass(frozen=True)
class Quantity:
    """How a quantity is drawn: the same levels and colours in every figure."""

    label: str
    units: str  # CF
    levels: tuple[float, ...]
    cmap: str
    extend: str = "both"

    @property
    def title(self):
        return f"{self.label} ({written(self.units)})"

    @property
    def norm(self):
        return BoundaryNorm(self.levels, plt.get_cmap(self.cmap).N, extend=self.extend)


QUANTITIES = {name: Quantity(**values) for name, values in FIGURES["quantities"].items()}
LOOKS = {
    label(name): {"linestyle": (0, one.pop("dashes")) if "dashes" in one else "-"} | one
    for name, one in FIGURES["looks"].items()
}


def look(name):
    """Colour, marker and dashes of an experiment or dataset; one that is not known is a source."""
    any_other = LOOKS["YNet"] if str(name).startswith("ynet_") else LOOKS["source"]
    return LOOKS.get(printed(name), any_other)


def written(units):
    """CF units as they are printed: m3 m-3 becomes m³ m⁻³."""
    raised = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
    units = {"1": "dimensionless"}.get(units, units.replace("decade-1", "per decade"))
    return re.sub(r"(?<=[a-z])-?\d+", lambda power: power[0].translate(raised), units)


def printed(value):
    """A value of a coordinate as a page shows it."""
    return str(value)[:7] if isinstance(value, np.datetime64) else label(value)


def numeral(value, form="g"):
    """A number with a true minus sign."""
    return format(value, form).replace("-", "−")


def quantity_of(field, quantity):
    """The quantity of that name; refused are unknown ones, and a field in other units."""
    if quantity not in QUANTITIES:
        raise ValueError(f"`quantity` must be one of {list(QUANTITIES)}, got {quantity!r}")
    expected = QUANTITIES[quantity].units
    units = field.attrs.get("units", expected)
    if re.sub(r"\bper (\w+)", r"\1-1", units).removeprefix("1 ") != expected:
        message = f"`field` must be in {expected!r} to be drawn as {quantity!r}, got {units!r}: "
        raise ValueError(message + "convert it and set attrs['units']")
    return QUANTITIES[quantity]


def ordered(array, argument, *dims):
    """The array with its dimensions in this order; others are refused."""
    if set(array.dims) != set(dims):
        raise ValueError(f"`{argument}` must have the dimensions {dims}, got {array.dims}")
    return array.transpose(*dims)


def alike(array, argument, field):
    """The array with the dimensions of a field in their order; other coordinates are refused."""
    return xr.align(field, ordered(array, argument, *field.dims), join="exact")[1]


def figure_of(
    titles, height, *, columns=None, wide=False, beside=0.45, layout="constrained", **options
):
    """A figure and its axes, one a title, lettered if there are several, three or two in a row.

    One may be as `wide` as two. In inches: the `height` of a row and what is `beside` the rows.
    """
    count = len(titles)
    columns = columns or min(count, 3 if count % 3 == 0 else 2)
    rows = -(-count // columns)
    width = TWO_COLUMNS if wide or columns > 1 else ONE_COLUMN
    size = width, beside + height * rows
    fig = plt.figure(figsize=size, dpi=200, facecolor="white", layout=layout)
    plt.close(fig)  # complete all the same: pyplot just does not show it a second time
    axes = fig.subplots(rows, columns, squeeze=False, **options).flatten()
    for ax in axes[count:]:
        ax.remove()
    for letter, ax, title in zip(cycle(ascii_letters), axes, titles):
        ax.set_title(f"({letter}) {printed(title)}" if title and count > 1 else printed(title))
    return fig, axes[:count]


def legend(fig, handles=None, **options):
    """The figure with a legend below: of these handles, or of what the first axes shows."""
    handles = handles or fig.axes[0].get_legend_handles_labels()[0]
    if handles:
        options = {"loc": "outside lower center", "ncols": min(len(handles), 4)} | options
        fig.legend(handles=handles, **options)
    return fig


def colour_bar(fig, style, **place):
    """A bar with every level: in the axes `cax`, or below the axes `ax`."""
    place |= {"ticks": style.levels, "format": "{x:g}", "orientation": "horizontal"}
    bar = fig.colorbar(plt.cm.ScalarMappable(style.norm, style.cmap), **place)
    bar.set_label(style.title, labelpad=1)


def lines(ax, values, **style):
    """Lines of `values` with dims (name, x); sources share one entry of the legend."""
    names, x = (values[dim].values for dim in values.dims)
    labels = {name: printed(name) for name in names}
    sources = [name for name in names if look(name) is LOOKS["source"]]
    if len(sources) > 1:
        labels |= dict.fromkeys(sources, "_") | {sources[0]: f"{len(sources)} sources"}
    for name, line in zip(names, values.values):
        ax.plot(x, line, **look(name) | {"label": labels[name]} | style)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.margins(x=0.02)


def mark(ax, x, y, name, **more):
    """Points of a dataset, without a line."""
    edge = {"linestyle": "none", "markeredgewidth": 0.4, "markeredgecolor": "black", "zorder": 4}
    ax.plot(x, y, **{"markersize": 5, "label": printed(name)} | look(name) | edge | more)


def tables_of(cells, text, quantity, height, *, shrink=1, **options):
    """A figure of coloured cells (panel, row, column) and their texts, with one colour bar."""
    style = QUANTITIES[quantity]
    fig, axes = figure_of(cells[cells.dims[0]].values, height, **options)
    rows, columns = (cells[dim].to_index().get_level_values(-1) for dim in cells.dims[1:])
    looks = {"yticklabels": rows, "xticklabels": [printed(name) for name in columns], "fmt": ""}
    looks |= {"norm": style.norm, "cmap": style.cmap, "cbar": False, "linewidths": 0.3}
    for ax, table, words in zip(axes, cells.values, text):
        sns.heatmap(table, annot=words, annot_kws={"size": 6.5}, ax=ax, **looks)
        ax.tick_params(length=0)
        ax.tick_params(axis="y", labelrotation=0)
        ax.set_facecolor(MISSING)
    colour_bar(fig, style, ax=list(axes), aspect=50, fraction=0.04, pad=0.02, shrink=shrink)
    return fig, axes


def extent(field):
    """West, east, south and north edge of the cells."""
    lon, lat = np.sort(field.lon), np.sort(field.lat)
    x, y = (lon[1] - lon[0]) / 2, (lat[1] - lat[0]) / 2
    return lon[0] - x, lon[-1] + x, lat[0] - y, lat[-1] + y


def thinned(mask, size):
    """Centres of the blocks of `size` x `size` cells of which at least half are True."""
    blocks = mask.astype(float).coarsen(lat=size, lon=size, boundary="trim").mean()
    lat, lon = np.nonzero(blocks.values >= 0.5)
    return blocks.lon.values[lon], blocks.lat.values[lat]
