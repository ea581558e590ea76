"""Figures that several chapters share.

Every function takes labelled arrays, returns a matplotlib figure and saves nothing. The figure is
closed for pyplot, so that a notebook shows it once: as the value of the cell that made it. Widths
are those of a journal, 8.5 cm for one column and 17.8 cm for two.
"""

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import cartopy.crs as ccrs
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import shapely
import xarray as xr
from cartopy.feature import ShapelyFeature
from cartopy.mpl.ticker import LatitudeFormatter, LongitudeFormatter
from matplotlib.colors import BoundaryNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, Polygon, Rectangle
from matplotlib.patheffects import withTickedStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

LAND = Path(__file__).parents[1] / "data" / "land.geojson"
ONE_COLUMN, TWO_COLUMNS = 8.5 / 2.54, 17.8 / 2.54  # inches
STYLE = {
    **{"font.size": 7.5, "axes.titlesize": 7.5, "axes.labelsize": 7.5, "legend.fontsize": 7},
    **{f"{axis}tick.labelsize": 6.5 for axis in "xy"},
    **{f"{axis}tick.major.width": 0.5 for axis in "xy"},
    **{f"{axis}tick.major.size": 2.5 for axis in "xy"},
    **{"axes.linewidth": 0.5, "lines.linewidth": 1.0, "hatch.linewidth": 0.4},
    "legend.frameon": False,
}
ZERO_TICKS = withTickedStroke(spacing=3.5, angle=-90, length=0.45)  # of a contour: downhill
MISSING, OUTLINE = "0.87", "#7b3294"  # ocean and missing cells; the study area
CORNER_MARK = [(-1, 1), (1, 1), (1, -1)]  # a triangle in the upper right corner


@dataclass(frozen=True)
class Quantity:
    """How a quantity is drawn: the same levels and colours in every figure."""

    label: str
    units: str  # CF
    levels: tuple[float, ...]
    cmap: str = "BrBG"  # brown is drier, green is wetter
    extend: str = "both"

    @property
    def title(self):
        return f"{self.label} ({_written(self.units)})"

    @property
    def norm(self):
        return BoundaryNorm(self.levels, plt.get_cmap(self.cmap).N, extend=self.extend)


def _centred(*positive):
    # zero is a level, so that the colour tells the sign
    return (*(-level for level in reversed(positive)), 0, *positive)


_WATER = (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
_ERROR = ("m3 m-3", (0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12), "YlOrRd", "max")
_CORRELATION = (-0.2, 0, 0.2, 0.4, 0.6, 0.8, 0.9, 1)
QUANTITIES = {
    "theta": Quantity("volumetric water content", "m3 m-3", _WATER, "YlGnBu", "max"),
    "mae": Quantity("mean absolute error", *_ERROR),
    "rmsd": Quantity("root mean square difference", *_ERROR),
    "ubrmsd": Quantity("unbiased root mean square difference", *_ERROR),
    "std": Quantity(
        "standard deviation", "m3 m-3", (0, 0.0025, 0.005, 0.01, 0.02, 0.04), "YlOrRd", "max"
    ),
    "bias": Quantity("bias", "m3 m-3", _centred(0.02, 0.04, 0.08, 0.12)),
    "difference": Quantity("difference", "m3 m-3", _centred(0.02, 0.04, 0.08, 0.12)),
    "correlation": Quantity("correlation", "1", _CORRELATION, "cividis", "min"),
    # purple is better, in skill and where the error of the second is taken from that of the first
    "skill_score": Quantity("skill score", "1", _centred(0.05, 0.1, 0.2, 0.4, 0.8), "PuOr"),
    "mae_difference": Quantity(
        "difference of mean absolute errors",
        "m3 m-3",
        _centred(0.0025, 0.005, 0.01, 0.02, 0.04),
        "PuOr_r",
    ),
    "anomaly_correlation": Quantity(
        "correlation without the season", "1", _centred(0.1, 0.2, 0.4, 0.6, 0.8), "PuOr", "neither"
    ),
    "variance_ratio": Quantity(
        "ratio of variances", "1", (0.05, 0.1, 0.2, 0.5, 0.8, 1.25, 2, 5, 10, 20), "PuOr"
    ),
    "ssmi_slope": Quantity("SSMI slope", "decade-1", _centred(0.05, 0.1, 0.2, 0.3, 0.4)),
    "theta_slope": Quantity(
        "slope of water content", "m3 m-3 decade-1", _centred(0.001, 0.002, 0.004, 0.008)
    ),
    # the other sign lies beyond the light end, where hatching shows
    "trend_ratio": Quantity("ratio of slopes", "1", (0, 0.25, 0.5, 0.8, 1.25, 2, 4), "cividis_r"),
    "drying_share": Quantity(
        "share of area that dries",
        "%",
        (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100),
        "BrBG_r",
        "neither",
    ),
    "change": Quantity("change of water content", "%", _centred(2, 5, 10, 15, 20, 30)),
}

# colours of the scenarios: IPCC AR6 WGI; the dashes keep them apart in print without colour
EXPERIMENTS = {
    "historical": {"label": "historical", "color": "black"},
    "ssp126": {"label": "SSP1-2.6", "color": "#173c66", "linestyle": (0, (2, 1))},
    "ssp245": {"label": "SSP2-4.5", "color": "#f79420"},
    "ssp370": {"label": "SSP3-7.0", "color": "#e71d25", "linestyle": (0, (4, 1))},
    "ssp585": {"label": "SSP5-8.5", "color": "#951b1e", "linewidth": 1.5},
}
REFERENCES = ("ERA5-Land", "reference")
ENSEMBLES = ("ensemble mean", "ensemble_mean")
# Okabe and Ito, safe for colour blindness
PRODUCT_COLOURS, ENSEMBLE_COLOUR = ("#0072b2", "#009e73", "#cc79a7"), "#d55e00"
PRODUCT_DASHES = ("-", (0, (7, 1, 1, 1)), (0, (1, 0.8)))
# dashes and markers tell the methods apart without colour; the networks are thick and lie below,
# so that a line on the same values is seen on them
METHODS = {
    "ensemble mean": {"color": ENSEMBLE_COLOUR, "linestyle": (0, (4, 1)), "marker": "s"},
    "mean and variance scaling": {"color": "0.3", "linestyle": (0, (1, 1)), "marker": "v"},
    "quantile delta mapping": {"color": "0.5", "linestyle": "-", "marker": "X"},
    "climatology": {"color": "black", "linestyle": (0, (3, 2)), "zorder": 3},
    "delta change": {"color": "#56b4e9", "linestyle": (0, (5, 1, 1, 1)), "marker": "o"},
    "delta change, 31 years": {"color": "#e69f00", "linestyle": "-", "marker": "^"},
    "ridge": {"color": "#cc79a7", "linestyle": (0, (2, 1)), "marker": "P"},
    "YNet (sound)": {"color": "#0072b2", "linewidth": 2.8, "marker": "D", "zorder": 1.9},
    "YNet (anchored)": {"color": "#009e73", "linewidth": 2.8, "marker": "o", "zorder": 1.9},
}
# symbol, colour and ink; light to dark from harmless to serious, so that greyscale keeps the order
VERDICTS = {
    "ok": ("✓", "#dff0d8", "black"),
    "warning": ("!", "#f2b13c", "black"),
    "accepted": ("≈", "#d9771e", "black"),
    "error": ("✗", "#8c1d18", "white"),
}


def _written(units):
    """CF units as they are printed: m3 m-3 becomes m³ m⁻³."""
    raised = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
    units = {"1": "dimensionless"}.get(units, units.replace("decade-1", "per decade"))
    return re.sub(r"(?<=[a-z])-?\d+", lambda power: power[0].translate(raised), units)


def _name(value):
    """A coordinate value as it is printed."""
    if isinstance(value, np.datetime64):
        return str(value)[:7]
    return EXPERIMENTS.get(str(value), {"label": str(value)})["label"]


def _letter(number):
    return f"({ascii_lowercase[number]})" if number < 26 else f"({number + 1})"


def _numbers(values):
    return [f"{value:g}".replace("-", "−") for value in values]


def _figure(width, height, **keywords):
    fig = plt.figure(figsize=(width, height), dpi=200, facecolor="white", **keywords)
    plt.close(fig)  # it stays a complete figure; pyplot just does not show it a second time
    return fig


def _require_dims(array, argument, *dims):
    if set(array.dims) != set(dims):
        raise ValueError(f"`{argument}` must have the dimensions {dims}, got {array.dims}")


# ------------------------------------------------------------------------------------------ maps


@plt.rc_context(STYLE)
def maps(
    field,
    *,
    quantity,
    row=None,
    col=None,
    dots=None,
    hatching=None,
    study_area=None,
    notes=None,
    zero_line=False,
):
    """Maps of a field, one panel for each value of `row` and `col`, with one colour bar.

    Parameters
    ----------
    field : xr.DataArray
        Dimensions lat, lon and those named by `row` and `col`, in any order.
    quantity : str
        A key of ``QUANTITIES``: fixes colours, levels and label. If `field` has units, they must
        be those of the quantity.
    row, col : str, optional
        Dimensions that run over rows and columns. More than four panels of `col` alone are
        wrapped into a grid.
    dots, hatching : xr.DataArray of bool, optional
        Dimensions of `field`. A dot stands for a block of cells of which at least half are True.
        An attribute ``long_name`` becomes a legend entry.
    study_area : shapely geometry, optional
        Drawn as a thin outline, in degrees.
    notes : xr.DataArray of str, optional
        Dimensions `row` and `col`: a short text for the lower left corner of each panel.
    zero_line : bool, default: False
        Whether a line separates the signs, with ticks towards the negative side, so that they
        are told apart without colour.

    Notes
    -----
    Equidistant cylindrical projection, true to scale at the central latitude: a box of latitudes
    and longitudes fills its panel.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"`quantity` must be one of {list(QUANTITIES)}, got {quantity!r}")
    style = QUANTITIES[quantity]
    panel_dims = [dim for dim in (row, col) if dim is not None]
    _require_dims(field, "field", *panel_dims, "lat", "lon")
    for argument, mask in {"dots": dots, "hatching": hatching}.items():
        if mask is not None:
            _require_dims(mask, argument, *field.dims)
            xr.align(field, mask, join="exact")
    units = field.attrs.get("units", style.units)
    if re.sub(r"\bper (\w+)", r"\1-1", units).removeprefix("1 ") != style.units:
        raise ValueError(
            f"`field` must be in {style.units!r} to be drawn as {quantity!r}, got {units!r}: "
            "convert it and set attrs['units']"
        )

    values = product(*(field[dim].values for dim in panel_dims))
    panels = [dict(zip(panel_dims, value)) for value in values]  # [{}] without dimensions
    if row is None:
        columns = len(panels) if len(panels) <= 4 else int(np.ceil(np.sqrt(len(panels))))
    else:
        columns = 1 if col is None else field.sizes[col]
    rows = -(-len(panels) // columns)

    # The grid is laid out in inches: the shape of a map is known, and nothing has to be searched.
    west, east, south, north = _extent(field)
    aspect = 1 / np.cos(np.deg2rad((south + north) / 2))
    legend = _map_legend(study_area, dots, hatching, zero_line)
    table = len(panel_dims) == 2  # heads above the columns and beside the rows
    left, right, gap = (0.46 if table else 0.32), 0.08, 0.07
    head = 0.18 if len(panel_dims) == 1 else 0.02  # above each panel
    entries = 1 if columns == 1 else 3  # legend entries in a line
    top, bottom = (0.2 if table else 0.05), 0.66 + 0.14 * -(-len(legend) // entries)
    total = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    width = (total - left - right - (columns - 1) * gap) / columns
    height = width * (north - south) / (east - west) * aspect
    deep = rows * (height + head) + (rows - 1) * gap + top + bottom
    fig = _figure(total, deep)

    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
    for number, panel in enumerate(panels):
        i, j = divmod(number, columns)
        x, y = left + j * (width + gap), deep - top - (i + 1) * (head + height) - i * gap
        place = (x / total, y / deep, width / total, height / deep)
        ax = fig.add_axes(place, projection=ccrs.PlateCarree(), facecolor=MISSING)
        here = field.sel(panel).transpose("lat", "lon")
        colours = {"norm": style.norm, "cmap": style.cmap, "rasterized": True}
        mesh = ax.pcolormesh(here.lon, here.lat, here, shading="nearest", **colours)
        ax.add_feature(_coastline())
        if study_area is not None:
            line = {"facecolor": "none", "edgecolor": OUTLINE, "linewidth": 0.6}
            ax.add_geometries([study_area], ccrs.PlateCarree(), **line)
        if hatching is not None:
            mask = hatching.sel(panel).transpose("lat", "lon").astype(float)
            ax.contourf(mask.lon, mask.lat, mask, [0.5, 1.5], colors="none", hatches=["/////"])
        if zero_line:
            line = ax.contour(here.lon, here.lat, here, [0], colors="0.1", linewidths=0.5)
            line.set_path_effects([ZERO_TICKS])
        if dots is not None:
            size = max(1, round(0.055 * field.sizes["lon"] / width))  # dots 1.4 mm apart
            edge = {"markeredgecolor": "white", "markeredgewidth": 0.2}  # seen on dark colours
            ax.plot(*_thinned(dots.sel(panel), size), "k.", markersize=2.2, **edge)
        ax.set_extent((west, east, south, north), ccrs.PlateCarree())
        ax.set_aspect(aspect)
        _graticule(ax, left=j == 0, below=number + columns >= len(panels))
        if table:
            letter = {"transform": ax.transAxes, "va": "top", "size": 6, "bbox": box}
            ax.text(0.012, 0.975, _letter(number), **letter)
            if i == 0:
                ax.set_title(_name(panel[col]), pad=3)
            if j == 0:
                middle = {"rotation": 90, "ha": "center", "va": "center"}
                fig.text(0.1 / total, (y + height / 2) / deep, _name(panel[row]), **middle)
        elif panel:
            ax.set_title(f"{_letter(number)} {_name(*panel.values())}", loc="left", pad=3)
        if notes is not None:
            text = str(notes.sel(panel).item())
            ax.text(0.015, 0.03, text, transform=ax.transAxes, size=6, bbox=box)

    bar = min(0.93 * total, 4.2) / total
    axis = fig.add_axes((0.5 - bar / 2, (bottom - 0.3) / deep, bar, 0.09 / deep))
    colour_bar = fig.colorbar(mesh, cax=axis, orientation="horizontal", ticks=style.levels)
    axis.set_xticklabels(_numbers(style.levels))
    colour_bar.set_label(style.title, labelpad=1)
    if legend:
        fig.legend(handles=legend, loc="lower center", ncols=entries, borderaxespad=0.1)
    return fig


def months(theta):
    """Maps of up to twelve months of volumetric water content, titled by year and month.

    Parameters
    ----------
    theta : xr.DataArray
        Dimensions time (at most 12), lat, lon; in m3 m-3.
    """
    if theta.sizes["time"] > 12:
        raise ValueError(f"`theta` must have at most 12 months, got {theta.sizes['time']}")
    names = theta.time.dt.strftime("%Y-%m").values
    return maps(theta.assign_coords(time=names), quantity="theta", col="time")


def _extent(field):
    """West, east, south and north edge of the cells."""
    lon, lat = np.sort(field.lon), np.sort(field.lat)
    x, y = (lon[1] - lon[0]) / 2, (lat[1] - lat[0]) / 2
    return lon[0] - x, lon[-1] + x, lat[0] - y, lat[-1] + y


@cache
def _coastline():
    land = shapely.from_geojson(LAND.read_text(encoding="utf-8"))
    line = {"facecolor": "none", "edgecolor": "0.2", "linewidth": 0.4}
    return ShapelyFeature([land], ccrs.PlateCarree(), **line)


def _thinned(mask, size):
    """Centres of the blocks of `size` x `size` cells of which at least half are True."""
    blocks = mask.astype(float).coarsen(lat=size, lon=size, boundary="trim").mean()
    lat, lon = np.nonzero(blocks.transpose("lat", "lon").values >= 0.5)
    return blocks.lon.values[lon], blocks.lat.values[lat]


def _graticule(ax, *, left, below):
    """A faint grid, labelled on the outer panels only."""
    west, east, south, north = ax.get_extent()
    locator = MaxNLocator(4, steps=[1, 2, 5, 10])
    lon, lat = locator.tick_values(west, east), locator.tick_values(south, north)
    ax.set_xticks(lon[(lon > west) & (lon < east)], crs=ccrs.PlateCarree())
    ax.set_yticks(lat[(lat > south) & (lat < north)], crs=ccrs.PlateCarree())
    ax.xaxis.set_major_formatter(LongitudeFormatter())
    ax.yaxis.set_major_formatter(LatitudeFormatter())
    ax.tick_params(labelleft=left, labelbottom=below, length=1.5, pad=1.5, labelsize=6)
    ax.grid(color="0.3", linewidth=0.3, alpha=0.35)


def _map_legend(study_area, dots, hatching, zero_line):
    handles = []
    if zero_line:
        mark = {"color": "0.1", "linewidth": 0.5, "path_effects": [ZERO_TICKS]}
        handles.append(Line2D([], [], label="zero, ticks to the negative side", **mark))
    if study_area is not None:
        handles.append(Line2D([], [], color=OUTLINE, linewidth=0.6, label="study area"))
    if dots is not None and "long_name" in dots.attrs:
        mark = {"marker": ".", "markersize": 2, "linestyle": "none", "color": "black"}
        handles.append(Line2D([], [], label=dots.attrs["long_name"], **mark))
    if hatching is not None and "long_name" in hatching.attrs:
        mark = {"facecolor": "white", "edgecolor": "black", "hatch": "/////", "linewidth": 0.4}
        handles.append(Patch(label=hatching.attrs["long_name"], **mark))
    return handles


# --------------------------------------------------------------------------------------- network

# colour and hatch of the kinds of layers, apart in greyscale too
LAYERS = {
    "field": ("white", ""),
    "convolution 3 × 3": ("#56b4e9", ""),
    "transposed convolution 3 × 3": ("#0b4f7d", ""),
    "convolution 1 × 1": ("#f0e442", ""),
    "bilinear interpolation": ("0.85", "//////"),
}


@plt.rc_context(STYLE)
def architecture(config, *, coarse, fine):
    """The layers of YNet from left to right: low ones on the coarse grid, tall ones on the fine.

    Parameters
    ----------
    config : YNetConfig
        Sizes of the network.
    coarse, fine : (int, int)
        Cells of the two grids along latitude and longitude.
    """
    channels, features, depth = config.in_channels, config.features, config.depth
    fig = _figure(TWO_COLUMNS, 2.6)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(0, TWO_COLUMNS), ylim=(-1.45, 1.15))  # inches
    ax.axis("off")
    low, high, wide, gap = 0.55, 1.1, 0.13, 0.15
    thin = 3.8 / (3 * depth)  # so that the extractor has the same width at any depth

    def layer(x, kind, height, *, text="", width=wide, y=0.0):
        colour, hatch = LAYERS[kind]
        line = {"edgecolor": "0.15", "linewidth": 0.4, "hatch": hatch}
        ax.add_patch(Rectangle((x, y - height / 2), width, height, facecolor=colour, **line))
        write(x + width / 2, y - height / 2 - 0.05, text)
        return x + width

    def write(x, y, text, va="top"):
        ax.text(x, y, text, ha="center", va=va, size=5.5, linespacing=1.2)

    def arrow(*places, bend="arc3"):
        line = {"linewidth": 0.5, "color": "0.15"}
        ax.plot(*zip(*places[:-1], strict=True), **line)
        head = {"arrowstyle": "-|>,head_width=0.12,head_length=0.25", "shrinkA": 0, "shrinkB": 0}
        ends = {"xy": places[-1], "xytext": places[-2]}
        ax.annotate("", **ends, arrowprops=head | line | {"connectionstyle": bend})

    def ahead(x):
        arrow((x, 0), (x + gap, 0))
        return x + gap

    source = 0.28
    x = first = ahead(layer(source, "field", low))
    write(
        source + wide / 2,
        low / 2 + 0.05,
        f"{channels} sources\n{coarse[0]} × {coarse[1]}",
        "bottom",
    )
    kept = []
    for number in range(1, depth + 1):
        x = layer(x, "convolution 3 × 3", low, width=thin)
        if config.skips and number % 2 == 0 and number < depth:
            kept.append(x - thin / 2)
    write((first + x) / 2, -low / 2 - 0.05, f"encoder: {depth} layers, {features} features")
    x = first = ahead(x)
    for number in range(1, depth + 1):
        x = layer(x, "transposed convolution 3 × 3", low, width=thin)
        x = layer(x, "convolution 3 × 3", low, width=thin)
        if number % 2 == 1 and number < depth and kept:
            arrow((kept.pop(), low / 2), (x - thin / 2, low / 2), bend="arc3,rad=-0.25")
    text = f"decoder: {depth} blocks, {features} features, {channels} at the end"
    write((first + x) / 2, -low / 2 - 0.05, text)

    radius, below = 0.065, -0.75
    plus = ahead(x) + radius
    ax.add_patch(Circle((plus, 0), radius, facecolor="white", edgecolor="0.15", linewidth=0.5))
    cross = {"color": "0.15", "linewidth": 0.5}
    ax.plot([plus - 0.04, plus + 0.04], [0, 0], **cross)
    ax.plot([plus, plus], [-0.04, 0.04], **cross)
    x = layer(ahead(plus + radius), "convolution 3 × 3", low, text=f"{channels}")
    x = layer(ahead(x), "bilinear interpolation", low, text=f"× {config.scale_factor}")
    x = layer(ahead(x), "convolution 3 × 3", high, text=f"{channels}")
    joined = ahead(x)
    # joined on the fine grid: auxiliary fields, features, inputs
    parts = [0.2, 0.45, 0.45] if config.auxiliary_channels else [0.45, 0.45]
    depth_joined = sum(parts)
    top = depth_joined / 2
    for height in parts:
        after = layer(joined, "field", height, y=top - height / 2)
        top -= height
    if config.auxiliary_channels:
        fields = layer(x - wide, "field", 0.35, y=high / 2 + 0.3)
        arrow(
            (fields, high / 2 + 0.3),
            (joined + wide / 2, high / 2 + 0.3),
            (joined + wide / 2, high / 2),
        )
        text = f"{config.auxiliary_channels} auxiliary fields\n{fine[0]} × {fine[1]}"
        ax.text(x - wide - 0.05, high / 2 + 0.3, text, ha="right", va="center", size=5.5)
    corner = source + wide / 2
    upsampled = plus + 2 * gap
    arrow((corner, -low / 2), (corner, below), (upsampled, below))
    arrow((plus, below), (plus, -radius))
    x = layer(upsampled, "bilinear interpolation", 0.3, text=f"× {config.scale_factor}", y=below)
    arrow((x, below), (joined + wide / 2, below), (joined + wide / 2, -depth_joined / 2))
    x = layer(ahead(after), "convolution 3 × 3", high, text=f"{features}")
    x = layer(ahead(x), "convolution 1 × 1", high, text="1")
    x = layer(ahead(x), "field", high)
    write(x - wide / 2, high / 2 + 0.05, f"θ\n{fine[0]} × {fine[1]}", "bottom")
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="0.15", linewidth=0.4, label=kind)
        for kind, (colour, hatch) in LAYERS.items()
    ]
    fig.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=6)
    return fig


# ----------------------------------------------------------------------------------------- lines


@plt.rc_context(STYLE)
def loss_curve(history, *, best_epoch=None, baseline=None):
    """Training and validation loss against the epoch.

    Parameters
    ----------
    history : pd.DataFrame
        Index epoch; columns ``train`` and ``validation``, the mean squared error of theta in
        (m3 m-3)2, and optionally ``learning_rate``, drawn below.
    best_epoch : int, optional
        The epoch whose weights were kept.
    baseline : dict of str to float, optional
        Name and validation error of estimates that the network has to beat.
    """
    heights = [4, 1] if "learning_rate" in history else [4]
    fig = _figure(ONE_COLUMN, 1.8 + 0.5 * len(heights), layout="constrained")
    axes = fig.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    marks = {"marker": "o", "markersize": 2} if len(history) <= 30 else {}
    axes[0].plot(history["train"], color="0.5", label="training", **marks)
    axes[0].plot(history["validation"], color=PRODUCT_COLOURS[0], label="validation", **marks)
    for number, (name, value) in enumerate((baseline or {}).items()):
        dash = ["--", ":", "-."][number % 3]
        axes[0].axhline(value, color="black", linewidth=0.8, linestyle=dash, label=name)
    if best_epoch is not None:
        best, label = history["validation"].loc[best_epoch], f"kept: epoch {best_epoch}"
        mark = {"marker": "*", "markersize": 8, "linestyle": "none", "color": ENSEMBLE_COLOUR}
        axes[0].plot(best_epoch, best, label=label, zorder=5, **mark)
    axes[0].set(yscale="log", ylabel=f"mean squared error of θ\nin ({_written('m3 m-3')})²")
    axes[0].legend(loc="best")
    if "learning_rate" in history:
        axes[1].plot(history["learning_rate"], color="0.5", drawstyle="steps-mid")
        axes[1].set(ylim=(0, None), ylabel="learning\nrate")
        axes[1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("epoch")
    return fig


@plt.rc_context(STYLE)
def intervals(scores, *, label, better, line):
    """Scores with their intervals, the best on top, one panel for each thing scored against.

    Parameters
    ----------
    scores : xr.Dataset
        ``value``, ``low`` and ``high`` (NaN without an interval), with dimensions dataset and
        against. Products and ensemble mean are coloured as in `site_series`.
    label : str
        What is scored, with its units.
    better : {"left", "right"}
        The side of better values.
    line : str
        The dataset whose value runs through its panel as a line.
    """
    _require_dims(scores["value"], "scores", "dataset", "against")
    styles = _dataset_styles([str(name) for name in scores["dataset"].values])
    scores = scores.sortby(scores["value"].isel(against=0), ascending=better == "left")
    names = [str(name) for name in scores["dataset"].values]
    fig = _figure(TWO_COLUMNS, 0.75 + 0.165 * len(names), layout="constrained")
    axes = fig.subplots(1, scores.sizes["against"], squeeze=False, sharey=True)[0]
    arrow = f"({'better →' if better == 'right' else '← better'})"
    for number, (ax, against) in enumerate(zip(axes, scores["against"].values)):
        here = scores.sel(against=against).transpose("dataset")
        for row, name in enumerate(names):
            product = name.startswith("product")
            colour = styles[name]["color"] if product or name in ENSEMBLES else "black"
            ends = here["low"].values[row], here["high"].values[row]
            ax.plot(ends, [row, row], color=colour, linewidth=1.2)
            mark = {"marker": "D" if product else "o", "markersize": 4, "color": colour}
            ax.plot(here["value"].values[row], row, markeredgecolor="black", **mark)
        level = float(here["value"].sel(dataset=line))
        ax.axvline(level, color="0.3", linewidth=0.7, linestyle="--", zorder=0)
        ax.set_title(f"{_letter(number)} against the {against}", loc="left")
        ax.set_xlabel(f"{label} {arrow}")
        ax.xaxis.set_major_locator(MaxNLocator(6))
        ax.grid(axis="x", color="0.9", linewidth=0.4)
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return fig


@plt.rc_context(STYLE)
def heat_map(values, *, quantity, row, col, panel):
    """A quantity as a table of colours with its numbers, one panel for each value of `panel`.

    Parameters
    ----------
    values : xr.DataArray
        Dimensions `row`, `col` and `panel`.
    quantity : str
        A key of ``QUANTITIES``.
    row, col, panel : str
        Dimensions that run over rows, columns and panels.
    """
    _require_dims(values, "values", row, col, panel)
    style = QUANTITIES[quantity]
    fig = _figure(
        TWO_COLUMNS,
        0.75 + values.sizes[panel] * (0.22 + 0.2 * values.sizes[row]),
        layout="constrained",
    )
    axes = fig.subplots(values.sizes[panel], squeeze=False, sharex=True)[:, 0]
    colours = plt.get_cmap(style.cmap)
    for number, (ax, name) in enumerate(zip(axes, values[panel].values)):
        here = values.sel({panel: name}).transpose(row, col)
        text = np.vectorize(lambda x: f"{x:z.2f}".replace("-", "−"))(here.values)
        options = {"norm": style.norm, "cmap": style.cmap, "cbar": False, "linewidths": 0.3}
        sns.heatmap(here.values, annot=text, fmt="", annot_kws={"size": 6.5}, ax=ax, **options)
        shown = here.values[~np.isnan(here.values)]
        for written, value in zip(ax.texts, shown):
            dark = np.dot(colours(style.norm(value))[:3], (0.299, 0.587, 0.114)) < 0.5
            written.set_color("white" if dark else "black")
        ax.set_yticks(np.arange(here.sizes[row]) + 0.5, here[row].values, rotation=0)
        ax.set_xticks(np.arange(here.sizes[col]) + 0.5, here[col].values)
        ax.tick_params(length=0)
        ax.set_facecolor(MISSING)
        ax.set_title(f"{_letter(number)} {_name(name)}", loc="left")
    mappable = plt.cm.ScalarMappable(style.norm, style.cmap)
    bar = fig.colorbar(mappable, ax=axes, location="bottom", ticks=style.levels, aspect=50)
    bar.ax.set_xticklabels(_numbers(style.levels))
    bar.set_label(style.title)
    return fig


@plt.rc_context(STYLE)
def permutations(results, *, quantity):
    """Histograms of a score over shuffled years, and the score of the years in their order.

    Parameters
    ----------
    results : dict of str to xr.Dataset
        From `smcore.metrics.year_permutation_test`, one panel each.
    quantity : str
        A key of ``QUANTITIES``, for the label.
    """
    columns = min(len(results), 3)
    rows = -(-len(results) // columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    fig = _figure(width, 0.4 + 1.5 * rows, layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False).flat
    for ax in axes[len(results) :]:
        ax.remove()
    for number, (ax, (name, result)) in enumerate(zip(axes, results.items())):
        count = f"{result.sizes['permutation']} orders of the years"
        ax.hist(result["permuted"], bins=30, color="0.75", label=count)
        observed = {"color": PRODUCT_COLOURS[0], "linewidth": 1.5, "label": "as they are"}
        ax.axvline(float(result["observed"]), **observed)
        title = f"{_letter(number)} {name}, p = {float(result['p_value']):.3f}"
        ax.set_title(title if len(results) > 1 else title[4:], loc="left")
        ax.set(ylabel="orders" if number % columns == 0 else None)
        ax.xaxis.set_major_locator(MaxNLocator(3))
    fig.supxlabel(QUANTITIES[quantity].title, fontsize=STYLE["axes.labelsize"])
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=2)
    return fig


@plt.rc_context(STYLE)
def ranking(table):
    """Scores of the methods in demo worlds whose two deciding assumptions are varied.

    Parameters
    ----------
    table : pd.DataFrame
        Columns ``shared_weather``, ``bias_drift``, ``method`` (of ``METHODS``), ``test`` and
        ``future_truth``, the last two in m3 m-3.

    Notes
    -----
    The first panel holds the worlds without a drift, the second those without shared weather.
    Logarithmic, because the worst method is about ten times as far off as the best.
    """
    methods = list(dict.fromkeys(table["method"]))
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"`table` must hold methods out of {list(METHODS)}, got {unknown}")
    panels = [
        {
            "worlds": table[table["bias_drift"] == 0],
            "x": "shared_weather",
            "y": "test",
            "title": "difference from the reference, test years",
            "label": "correlation of the sources' weather with the reference's",
        },
        {
            "worlds": table[table["shared_weather"] == 0],
            "x": "bias_drift",
            "y": "future_truth",
            "title": "difference from the truth, 2071–2100",
            "label": "growth of each source's bias per century (1: it doubles)",
        },
    ]
    fig = _figure(TWO_COLUMNS, 3.4, layout="constrained")
    marks = {"markersize": 4, "markerfacecolor": "white", "markeredgewidth": 0.8}
    for number, (ax, panel) in enumerate(zip(fig.subplots(1, 2), panels)):
        for name in methods:
            worlds = panel["worlds"].query("method == @name").sort_values(panel["x"])
            ax.plot(worlds[panel["x"]], worlds[panel["y"]], label=name, **marks | METHODS[name])
        ax.set(yscale="log", xlabel=panel["label"], xticks=sorted(set(panel["worlds"][panel["x"]])))
        ax.set_title(f"{_letter(number)} {panel['title']}", loc="left")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.grid(axis="y", color="0.9", linewidth=0.4)
    fig.axes[0].set_ylabel(f"RMSD of water content ({_written('m3 m-3')}), logarithmic")
    handles, labels = fig.axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, handlelength=4)
    return fig


@plt.rc_context(STYLE)
def site_series(series):
    """Time series at sites, one panel a site.

    Parameters
    ----------
    series : xr.DataArray
        Dimensions dataset, site, time. The dataset "ERA5-Land" or "reference" is drawn in black,
        "ensemble mean" and names that begin with "product" in colour, all others in grey.
    """
    _require_dims(series, "series", "dataset", "site", "time")
    fig = _figure(TWO_COLUMNS, 0.45 + 1.15 * series.sizes["site"], layout="constrained")
    axes = fig.subplots(series.sizes["site"], sharex=True, squeeze=False)[:, 0]
    _draw_lines(fig, axes, series, panel="site", line="dataset", x="time")
    for ax in axes:
        ax.margins(x=0)
    fig.supylabel(_axis_label(series, " "), fontsize=STYLE["axes.labelsize"])
    return fig


@plt.rc_context(STYLE)
def seasonal_cycle(cycles):
    """Mean annual cycle by region, one panel a region.

    Parameters
    ----------
    cycles : xr.DataArray
        Dimensions dataset, region, month (1 to 12). Names of datasets as in `site_series`.
    """
    _require_dims(cycles, "cycles", "dataset", "region", "month")
    fig, axes = _region_panels(cycles, 2.1, sharey=True)
    _draw_lines(fig, axes.flat, cycles.sortby("month"), panel="region", line="dataset", x="month")
    axes.flat[0].set_xticks(range(1, 13), "JFMAMJJASOND")
    for ax in axes[:, 0]:
        ax.set_ylabel(_axis_label(cycles, "\n"))
    return fig


@plt.rc_context(STYLE)
def fan(series, *, band=None):
    """Annual series of the experiments, one panel a region.

    Parameters
    ----------
    series : xr.DataArray
        Dimensions experiment_id, region, year; missing where an experiment has no such year.
    band : xr.DataArray, optional
        The same with the dimension bound (low, high), for all or some of the experiments: shaded
        behind the lines. An attribute ``long_name`` becomes a legend entry.
    """
    _require_dims(series, "series", "experiment_id", "region", "year")
    fig, axes = _region_panels(series, 2, sharex=True)
    if band is not None:
        _require_dims(band, "band", "experiment_id", "region", "year", "bound")
        for ax, region in zip(axes.flat, series.region.values):
            for experiment_id in band.experiment_id.values:
                low, high = (
                    band.sel(experiment_id=experiment_id, region=region, bound=bound)
                    for bound in ("low", "high")
                )
                style = {"color": "0.6"} | EXPERIMENTS.get(str(experiment_id), {})
                shade = {"facecolor": (style["color"], 0.2), "edgecolor": (style["color"], 0.7)}
                shade |= {"linewidth": 0.5, "linestyle": style.get("linestyle", "-"), "zorder": 0}
                if "long_name" in band.attrs:
                    shade["label"] = f"{_name(experiment_id)}, {band.attrs['long_name']}"
                ax.fill_between(band["year"].values, low.values, high.values, **shade)
    _draw_lines(fig, axes.flat, series, panel="region", line="experiment_id", x="year")
    for ax in axes[:, 0]:
        ax.set_ylabel(_axis_label(series, "\n"))
    return fig


def _region_panels(array, height, **shared):
    """A figure with one axes a region, three in a row where that fills it, else two."""
    number = array.sizes["region"]
    columns = min(number, 3 if number % 3 == 0 else 2)
    rows = -(-number // columns)
    width = ONE_COLUMN if columns == 1 else TWO_COLUMNS
    fig = _figure(width, 0.4 + height * rows, layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False, **{"sharex": True, **shared})
    for ax in axes.flat[number:]:
        ax.remove()
    return fig, axes


def _draw_lines(fig, axes, series, *, panel, line, x):
    names = [str(name) for name in series[line].values]
    styles = {name: EXPERIMENTS.get(name, {"label": name, "color": "0.6"}) for name in names}
    if line == "dataset":
        styles = _dataset_styles(names)
    for number, (ax, place) in enumerate(zip(axes, series[panel].values)):
        for name, style in styles.items():
            one = series.sel({line: name, panel: place})
            ax.plot(one[x].values, one.values, **style)
        ax.set_title(f"{_letter(number)} {place}", loc="left")
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        ax.margins(x=0.02)
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))


def _dataset_styles(names):
    """The reference is black, product and ensemble mean are coloured, the others share a grey."""
    styles, lines = {}, iter(list(zip(PRODUCT_COLOURS, PRODUCT_DASHES)) * len(names))
    others = [n for n in names if n not in REFERENCES + ENSEMBLES and not n.startswith("product")]
    for name in names:
        label = name.replace("_", " ")
        if name in others:
            if len(others) > 1:  # one legend entry for all of them
                label = f"{len(others)} others" if name == others[0] else "_"
            styles[name] = {"color": "0.72", "linewidth": 0.5, "zorder": 1, "label": label}
        elif name in ENSEMBLES:
            styles[name] = {"color": ENSEMBLE_COLOUR, "linestyle": (0, (4, 1)), "label": label}
        else:
            colour, dash = ("black", "-") if name in REFERENCES else next(lines)
            styles[name] = {"color": colour, "linestyle": dash, "label": label}
            styles[name] |= {"linewidth": 1.4, "zorder": 3}
    return styles


def _axis_label(series, separator):
    theta = QUANTITIES["theta"]
    name, units = series.attrs.get("long_name", theta.label), series.attrs.get("units", theta.units)
    return f"{name}{separator}({_written(units)})"


@plt.rc_context(STYLE)
def index_bound(slopes, *, years=86):
    """Slope of the standardised index against the trend in the noise, and its bound.

    Parameters
    ----------
    slopes : xr.DataArray
        From `smcore.ssmi.slope_of_a_noisy_line`.
    years : int, default: 86
        Length of the series, which the bound depends on.
    """
    _require_dims(slopes, "slopes", "series", "trend")
    fig = _figure(ONE_COLUMN, 2.4, layout="constrained")
    ax = fig.subplots()
    bound = 10 * np.sqrt(12 / (years**2 - 1))
    ax.axhline(bound, color="black", linewidth=0.8, linestyle=":", label=f"bound, {bound:.3f}")
    looks = [
        ("0.55", "-", "o"),
        (ENSEMBLE_COLOUR, (0, (4, 1)), "s"),
        (PRODUCT_COLOURS[0], "-", "D"),
    ]
    for name, (colour, dash, marker) in zip(slopes["series"].values, looks):
        mark = {"marker": marker, "markersize": 2.5, "linestyle": dash, "color": colour}
        ax.plot(slopes["trend"], slopes.sel(series=name), label=str(name), **mark)
    ax.set(xscale="log", ylim=(0, 1.1 * bound), ylabel=QUANTITIES["ssmi_slope"].title)
    ax.set_xlabel("trend per decade (standard deviations of a source)")
    shown = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
    ax.set_xticks(shown, _numbers(shown))
    ax.minorticks_off()
    fig.legend(loc="outside lower center", ncols=2)
    return fig


# --------------------------------------------------------------------------------------- portraits


@plt.rc_context(STYLE)
def share_matrix(product, sources, *, rows):
    """Shares of drying area as two heat maps, of the product and of its sources.

    Parameters
    ----------
    product : xr.DataArray
        In %, dimensions `rows` and experiment_id.
    sources : xr.DataArray
        As `product`, with the dimension source_id: the median is drawn, with the range beside it.
    rows : str
        The dimension that runs down.
    """
    _require_dims(product, "product", rows, "experiment_id")
    _require_dims(sources, "sources", rows, "experiment_id", "source_id")
    style, order = QUANTITIES["drying_share"], (rows, "experiment_id")
    middle, low, high = (
        getattr(sources, of)("source_id").transpose(*order) for of in ("median", "min", "max")
    )
    span = np.vectorize("{:.0f}  ({:.0f}–{:.0f})".format)(middle, low, high)
    product = product.transpose(*order)
    panels = {
        "product": (product, np.vectorize("{:.0f}".format)(product)),
        "sources: median (range)": (middle, span),
    }
    fig = _figure(TWO_COLUMNS, 0.95 + 0.28 * product.sizes[rows], layout="constrained")
    axes = fig.subplots(1, 2, sharey=True)
    for number, (ax, (title, (cells, text))) in enumerate(zip(axes, panels.items())):
        colours = {"norm": style.norm, "cmap": style.cmap, "cbar": False, "linewidths": 0.5}
        sns.heatmap(cells.values, annot=text, fmt="", annot_kws={"size": 6.5}, ax=ax, **colours)
        for written, value in zip(ax.texts, cells.values[~np.isnan(cells.values)]):
            written.set_color("white" if abs(value - 50) >= 30 else "black")
        names = [_name(e) for e in cells["experiment_id"].values]
        ax.set_xticks(np.arange(len(names)) + 0.5, names, rotation=0)
        ax.set_yticks(np.arange(cells.sizes[rows]) + 0.5, cells[rows].values, rotation=0)
        ax.tick_params(length=0)
        ax.set_facecolor(MISSING)
        ax.set_title(f"{_letter(number)} {title}", loc="left")
    colours = plt.cm.ScalarMappable(style.norm, style.cmap)
    shape = {"fraction": 0.05, "aspect": 45, "shrink": 0.6}
    bar = fig.colorbar(colours, ax=axes, location="bottom", ticks=style.levels, **shape)
    bar.set_label(style.title)
    return fig


@plt.rc_context(STYLE)
def portrait(change, *, marks=None):
    """Change rates as heat maps: one a region, parts of the year against experiments.

    Parameters
    ----------
    change : xr.DataArray
        In %, dimensions region, part, period, experiment_id. The 17 parts are the year, the four
        seasons and the twelve months, in the order given. Cells show two significant digits.
    marks : xr.DataArray of bool, optional
        Dimensions of `change`: cells that get a triangle in their corner. An attribute
        ``long_name`` becomes the legend.
    """
    _require_dims(change, "change", "region", "part", "period", "experiment_id")
    if marks is not None:
        _require_dims(marks, "marks", *change.dims)
        xr.align(change, marks, join="exact")
    style, width = QUANTITIES["change"], change.sizes["experiment_id"]
    fig, axes = _region_panels(change, 4, sharey=True)
    for number, (ax, region) in enumerate(zip(axes.flat, change.region.values)):
        cells = change.sel(region=region).transpose("part", "period", "experiment_id")
        values = cells.values.reshape(len(cells.part), -1)
        digits = np.where(abs(values) < 9.95, 1, 0)
        text = np.vectorize(lambda x, d: f"{x:z.{d}f}".replace("-", "−"))(values, digits)
        colours = {"norm": style.norm, "cmap": style.cmap, "cbar": False, "linewidths": 0.3}
        sns.heatmap(values, annot=text, fmt="", annot_kws={"size": 6.5}, ax=ax, **colours)
        for written, value in zip(ax.texts, values[~np.isnan(values)]):
            written.set_color("white" if abs(value) >= 15 else "black")
        if marks is not None:
            marked = marks.sel(region=region).transpose(*cells.dims).values.reshape(values.shape)
            for i, j in np.argwhere(marked & ~np.isnan(values)):
                corner = [(j + 1, i), (j + 1, i + 0.3), (j + 0.76, i)]
                ax.add_patch(Polygon(corner, facecolor="0.15", linewidth=0))
        for below in (1, 5):  # after the year and after the seasons
            ax.axhline(below, color="white", linewidth=3)
        for k, period in enumerate(change.period.values):
            ax.text((k + 0.5) * width, -0.15, _name(period), ha="center", va="bottom", size=7)
            if k:
                ax.axvline(k * width, color="white", linewidth=3)
        experiments = [_name(e) for e in change.experiment_id.values] * len(cells.period)
        ax.set_xticks(np.arange(len(experiments)) + 0.5, experiments, rotation=90)
        ax.set_yticks(np.arange(len(cells.part)) + 0.5, cells.part.values, rotation=0)
        ax.tick_params(length=0)
        ax.set_facecolor(MISSING)
        ax.set_title(f"{_letter(number)} {region}", loc="left", pad=13)
    shape = {"fraction": 0.03, "aspect": 45, "shrink": 0.6 if axes.shape[1] == 2 else 1}
    colours = plt.cm.ScalarMappable(style.norm, style.cmap)
    bar = fig.colorbar(colours, ax=axes, location="bottom", ticks=style.levels, pad=0.01, **shape)
    bar.ax.set_xticklabels(_numbers(style.levels))
    bar.set_label(style.title)
    if marks is not None and "long_name" in marks.attrs:
        mark = {"marker": CORNER_MARK, "markersize": 5, "color": "0.15", "linestyle": "none"}
        handle = Line2D([], [], label=marks.attrs["long_name"], **mark)
        fig.legend(handles=[handle], loc="outside lower center", handletextpad=0.3)
    return fig


@plt.rc_context(STYLE)
def change_spread(change, sources):
    """Change rates of datasets beside those of every source, one panel a region.

    Parameters
    ----------
    change : xr.DataArray
        In %, dimensions dataset, region, part. The dataset "truth" is a black star, "ensemble mean"
        a square, the others are the coloured symbols, in the order given.
    sources : xr.DataArray
        The same with source_id in place of dataset: a bar over their range, with a tick for each.
    """
    _require_dims(change, "change", "dataset", "region", "part")
    _require_dims(sources, "sources", "source_id", "region", "part")
    parts, names = change.part.values, [str(name) for name in change.dataset.values]
    fig, axes = _region_panels(change, 0.35 + 0.36 * len(parts), sharey=True)
    styles, shapes = {}, iter([*zip("DovP", [*PRODUCT_COLOURS, "0.3"])] * len(names))
    for name in names:
        marker, colour = next(shapes) if name not in ("truth", *ENSEMBLES) else ("*", "black")
        marker, colour = ("s", ENSEMBLE_COLOUR) if name in ENSEMBLES else (marker, colour)
        size = {"*": 8, "P": 5.5}.get(marker, 4.5)
        styles[name] = {"marker": marker, "color": colour, "markersize": size}
    rows = np.arange(len(parts))
    shifts = np.linspace(-0.26, 0.26, len(names)) if len(names) > 1 else [0]
    for number, (ax, region) in enumerate(zip(axes.flat, change.region.values)):
        spread = sources.sel(region=region, part=parts).transpose("part", "source_id").values
        low, high = spread.min(axis=1), spread.max(axis=1)
        ax.use_sticky_edges = False  # else the longest bar ends at the frame
        ax.barh(rows, high - low, left=low, height=0.72, color="0.9", label="range of the sources")
        row = np.repeat(rows, spread.shape[1])
        ticks = {"color": "0.45", "linewidth": 0.5, "label": "a source"}
        ax.vlines(spread.ravel(), row - 0.36, row + 0.36, **ticks)
        for name, shift in zip(names, shifts):
            edge = {"markeredgecolor": "white", "markeredgewidth": 0.4, "linestyle": "none"}
            values = change.sel(dataset=name, region=region).values
            ax.plot(values, rows + shift, label=name, zorder=3, **edge, **styles[name])
        ax.axvline(0, color="black", linewidth=0.6, zorder=1)
        ax.set_yticks(rows, parts)
        ax.set_ylim(len(parts) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.set_title(f"{_letter(number)} {region}", loc="left")
        ax.set_xlabel(QUANTITIES["change"].title)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    return fig


@plt.rc_context(STYLE)
def quality_matrix(table):
    """Verdicts on the input files as symbols on colours.

    Parameters
    ----------
    table : pd.DataFrame
        Rows are sources, columns experiments, values "ok", "warning", "accepted" or "error".
    """
    verdicts = table.to_numpy()
    unknown = sorted(set(verdicts.ravel()) - set(VERDICTS), key=str)
    if unknown:
        raise ValueError(f"`table` must hold verdicts out of {list(VERDICTS)}, got {unknown}")
    rows, columns = table.shape
    fig = _figure(ONE_COLUMN, 0.75 + 0.165 * rows, layout="constrained")
    ax = fig.subplots()
    edge = {"edgecolor": "0.6", "linewidth": 0.4, "clip_on": False}
    for (i, j), verdict in np.ndenumerate(verdicts):
        symbol, colour, ink = VERDICTS[verdict]
        ax.add_patch(plt.Rectangle((j, i), 1, 1, facecolor=colour, **edge))
        ax.text(j + 0.5, i + 0.5, symbol, color=ink, ha="center", va="center_baseline")
    ax.set(xlim=(0, columns), ylim=(rows, 0))
    ax.set_xticks(np.arange(columns) + 0.5, [_name(name) for name in table.columns])
    ax.set_yticks(np.arange(rows) + 0.5, table.index)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    handles = [
        Patch(facecolor=colour, label=f"{symbol} {verdict} ({(verdicts == verdict).sum()})", **edge)
        for verdict, (symbol, colour, _) in VERDICTS.items()
    ]
    close = {"handlelength": 1, "columnspacing": 1, "handletextpad": 0.4}
    fig.legend(handles=handles, loc="outside lower center", ncols=4, **close)
    return fig


# ---------------------------------------------------------------------------------- Taylor diagram


@plt.rc_context(STYLE)
def taylor(statistics, *, families=None):
    """Normalised Taylor diagram with a table of its numbers.

    Parameters
    ----------
    statistics : xr.Dataset
        ``std_ratio`` and ``correlation`` with the dimension dataset. The reference itself, if it
        is among them, is the star. Product and ensemble mean are named as in `site_series`.
    families : dict of str to str, optional
        Family of a dataset: datasets of one family share a colour and a marker.

    Notes
    -----
    The distance from the reference is the ratio of the ubRMSD to the standard deviation of the
    reference, sqrt(1 + s**2 - 2 s r) with s the ratio of standard deviations.

    References
    ----------
    Taylor (2001), Journal of Geophysical Research 106, doi 10.1029/2000JD900719.
    """
    table = statistics[["std_ratio", "correlation"]].to_dataframe()
    table = table.drop(index=[name for name in REFERENCES if name in table.index])
    table["ubrmsd_ratio"] = _distance(table["std_ratio"], table["correlation"])
    markers = _taylor_markers([str(name) for name in table.index], families or {})
    half_circle = bool((table["correlation"] < 0).any())
    widest = np.pi if half_circle else np.pi / 2
    outer = max(1.5, np.ceil(4 * table["std_ratio"].max() + 0.4) / 4)

    height = max(4.1, 0.5 + 0.125 * (len(table) + 1))
    kinds = {}  # a marker for each family, in the order of the datasets
    for name in [name for name in table.index if name in (families or {})]:
        kinds.setdefault(families[name], markers[name])
    below = 0.1 + 0.14 * -(-len(kinds) // 5) if kinds else 0
    fig = _figure(TWO_COLUMNS, height + below)
    if kinds:
        handles = [
            Line2D(
                [], [], linestyle="none", label=textwrap.shorten(kind, 24, placeholder=" …"), **mark
            )
            for kind, mark in kinds.items()
        ]
        fig.legend(handles=handles, loc="lower center", ncols=5, fontsize=6, borderaxespad=0.2)
    # the box of a polar axes is a square, and a half circle lies in the middle of its height
    side = 3.75 if half_circle else 3.3
    place = (0.35, below + (height - side) / 2 + (0 if half_circle else 0.1), side, side)
    ax = fig.add_axes(np.divide(place, [TWO_COLUMNS, height + below] * 2), projection="polar")
    ax.set(xlim=(0, widest), ylim=(0, outer))
    ticks = np.array([0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
    ticks = np.concatenate([-ticks[1:], ticks]) if half_circle else ticks
    ax.set_xticks(np.arccos(ticks), _numbers(ticks))
    ax.set_yticks(np.arange(0.5, outer + 0.01, 0.5))
    ax.tick_params(pad=1, labelsize=STYLE["xtick.labelsize"])
    ax.grid(color="0.85", linewidth=0.4)
    angle, radius = np.meshgrid(np.linspace(0, widest, 181), np.linspace(0, outer, 101))
    distance, levels = _distance(radius, np.cos(angle)), np.arange(0.25, outer + 1, 0.25)
    lines = {"colors": "#5b7f95", "linewidths": 0.5, "linestyles": "--"}
    circles = ax.contour(angle, radius, distance, levels, **lines)
    ax.clabel(circles, levels[1 :: 4 if half_circle else 2], fontsize=6, fmt="%g")
    ax.plot(angle[0], np.ones(181), color="0.3", linewidth=0.7)
    ax.plot(0, 1, "*", color="black", markersize=10, clip_on=False, zorder=5)
    ax.apply_aspect()  # the numbers are placed by their distance on the page

    known = table.dropna()
    points = np.column_stack([np.arccos(known["correlation"].clip(-1, 1)), known["std_ratio"]])
    for name, point in zip(known.index, points):
        ax.plot(*point, linestyle="none", clip_on=False, zorder=4, **markers[name])
    numbers = table.index.get_indexer(known.index) + 1
    _number_points(ax, points, numbers)

    centre = {"ha": "center", "va": "center", "rotation": 0 if half_circle else -45}
    ax.text(widest / 2, outer * (1.13 if half_circle else 1.11), "correlation", **centre)
    label = "standard deviation / that of the reference\n(dashed: ubRMSD / the same)"
    under = {"xytext": (0, -14), "textcoords": "offset points", "ha": "center", "va": "top"}
    ax.annotate(label, (0, 0 if half_circle else outer / 2), **under)
    _taylor_table(fig, table, markers, below / (height + below))
    return fig


def _distance(std_ratio, correlation):
    return np.sqrt(1 + std_ratio**2 - 2 * std_ratio * correlation)


def _taylor_markers(names, families):
    """One marker for each name; a family has its own pair of shape and colour."""
    edge = {"markersize": 5, "markeredgecolor": "black", "markeredgewidth": 0.4}
    kinds = list(dict.fromkeys(families[name] for name in names if name in families))
    palette, lines, markers = sns.color_palette("tab10"), _dataset_styles(names), {}
    for name in names:
        shape, colour = "o", lines[name]["color"]
        if name in ENSEMBLES or name.startswith("product"):
            shape = "s" if name in ENSEMBLES else "D"
        elif name in families:
            kind = kinds.index(families[name])
            shape, colour = "ov^P"[kind % 4], palette[kind % 10]
        markers[name] = {"marker": shape, "color": colour, **edge}
    return markers


def _number_points(ax, points, numbers):
    """Write each number close to its point where it covers no point and no other number."""
    # all lengths in typographic points, so that the choice holds for any resolution
    centres = ax.transData.transform(points) * 72 / ax.figure.dpi
    size = np.array([4.2, 3.2])  # half width and height of a number
    taken = [(centre, np.array([2.6, 2.6])) for centre in centres]
    directions = np.deg2rad(np.arange(45, 405, 22.5))
    steps = [r * np.array([np.cos(a), np.sin(a)]) for r in (8, 12, 16, 22, 29) for a in directions]
    for point, centre, number in zip(points, centres, numbers):

        def cost(step, centre=centre):
            gaps = [abs(centre + step - other) - size - half for other, half in taken]
            overlap = np.prod(np.clip(gaps, None, 0), axis=1).sum()
            return round(overlap + 0.05 * np.hypot(*step), 6)

        step = min(steps, key=cost)
        taken.append((centre + step, size))
        line = {"arrowstyle": "-", "linewidth": 0.3, "shrinkA": 0, "shrinkB": 2, "color": "0.3"}
        line = line if np.hypot(*step) > 9 else None
        middle = {"ha": "center", "va": "center_baseline", "size": 6, "zorder": 6}
        ax.annotate(str(number), point, step, "data", "offset points", arrowprops=line, **middle)


def _taylor_table(fig, table, markers, bottom):
    """Number, marker, name and values of the points, to the right of the diagram."""
    place = (0.655, bottom + 0.01, 0.34, 0.98 - bottom)
    ax = fig.add_axes(place, xlim=(0, 1), ylim=(max(len(table) + 2, 28), -1))
    ax.axis("off")
    right = {"ha": "right", "va": "center", "size": 6}
    columns = {
        "std_ratio": (0.72, "std"),
        "correlation": (0.845, "r"),
        "ubrmsd_ratio": (1, "ubRMSD"),
    }
    for x, head in columns.values():
        ax.text(x, -0.1, head, style="italic", **right)
    ax.plot(0.09, 1, "*", color="black", markersize=7)
    ax.text(0.13, 1, "reference", va="center", size=6)
    for number, (name, row) in enumerate(table.iterrows(), start=1):
        ax.text(0.05, number + 1, number, **right)
        ax.plot(0.09, number + 1, linestyle="none", **markers[name])
        ax.text(0.13, number + 1, name.replace("_", " "), va="center", size=6)
        for column, (x, _) in columns.items():
            text = "–" if np.isnan(row[column]) else f"{row[column]:.2f}".replace("-", "−")
            ax.text(x, number + 1, text, **right)
