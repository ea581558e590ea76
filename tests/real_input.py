"""A run on real files: read, check, convert, regrid, overfit, fuse, score, draw.

The files have different dates each, so this is no study with periods. It proves the plumbing and
not skill: one sample is overfitted, and scored against the field it was fitted to. What is
peculiar to these files is adapted here; everything else is `smcore`.

    python tests/real_input.py FOLDER
"""

import base64
import io
import sys
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import xarray as xr

from smcore import era5land, metrics, plots
from smcore.cmip6 import MARGIN
from smcore.config import ROOT, Domain
from smcore.fusion import predict
from smcore.grids import cell_area, coarse_grid, fine_grid
from smcore.profile import NETWORKS
from smcore.regrid import fill_nearest, regrid
from smcore.soil import SATURATION, volumetric_water_content
from smcore.store import replacing, write_json
from smcore.tensors import Statistics
from smcore.training import Trained, masked_mse
from smcore.ynet import YNet, YNetConfig, count_parameters, initialise_he

DOMAIN = Domain()
PRESET = NETWORKS["sound"]
# Smaller than the book's network, and still large enough to know one sample by heart.
FEATURES, DEPTH, STEPS = 32, 5, 150
# The sample has a number and no date, because each of its parts has a date of its own.
SAMPLE = 0
CLAIM = (
    "Plumbing, not skill: one sample is fitted and scored against the very field it was fitted "
    "to. Every file has a date of its own, so no source could predict the reference."
)

# name: file, what it is and where it is public, terms
FILES = {
    "HadGEM2-ES": (
        "mrsos_day_HadGEM2-ES_rcp85_r1i1p1_20051201.nc",
        "daily mrsos, CMIP5 rcp85 (roocs/mini-esgf-data)",
        "CMIP5 terms of use",
    ),
    "GFS": (
        "gfs.t12z.pgrbf120.2p5deg.grib2",
        "forecast on 2.5 degrees, GRIB2 (jswhit/pygrib)",
        "NOAA/NCEP, public domain",
    ),
    "GLDAS Noah": (
        "gldas_noah025_20160101_3hourly_china.nc",
        "GLDAS-2.1 on 0.25 degrees, crop (TUW-GEO/rs_data_readers-test-data)",
        "NASA open data, GLDAS-2.1",
    ),
    "ERA-Interim": (
        "speedyweather_soil_moisture.nc",
        "monthly climatology on T30 (SpeedyWeather/SpeedyWeatherAssets)",
        "Contains modified Copernicus Climate Change Service information",
    ),
    "ERA5": (
        "era5_31-12-2022.nc",
        "swvl1 on 0.25 degrees (RudolfWorou/era5-swvl1-srgan)",
        "Contains modified Copernicus Climate Change Service information",
    ),
    "ERA5-Land mask": (
        "landmask_0.25_0.25.nc",
        "0/1 land mask on 0.25 degrees (TUW-GEO/ecmwf_models)",
        "Contains modified Copernicus Climate Change Service information",
    ),
    "ETOPO20": (
        "etopo20.cdf",
        "relief on 1/3 degree (NOAA-PMEL/FerretDatasets)",
        "NOAA, public domain",
    ),
}
SOURCES = ("HadGEM2-ES", "GFS", "GLDAS Noah", "ERA-Interim")

USAGE = """usage: python tests/real_input.py FOLDER        (make real REALDATA=FOLDER)

FOLDER holds these public files, under these names:

""" + "\n".join(f"  {file:48s} {origin}" for file, origin, _ in FILES.values())


@dataclass(frozen=True)
class Field:
    """One field as it was read."""

    name: str
    variable: str
    date: str  # as the file has it
    kind: str  # what stands behind the date
    raw: xr.DataArray  # (lat, lon) in the units of the file
    theta: xr.DataArray | None = None  # (lat, lon) in m3 m-3


# ------------------------------------------------------------------------------------------ reading


def read_hadgem2(path):
    """A CMIP file, daily where smcore's reader wants months: only its values are taken."""
    mrsos = xr.open_dataset(path)["mrsos"].isel(time=0)
    return Field(
        "HadGEM2-ES",
        "mrsos",
        mrsos["time"].dt.strftime("%Y-%m-%d").item(),
        f"daily mean, calendar {mrsos['time'].dt.calendar}",
        mrsos,
        _ascending(volumetric_water_content(mrsos)).reset_coords(drop=True),
    )


def read_gfs(path):
    """One GRIB field out of many: the layer that begins at the surface, 0 to 10 cm."""
    dataset = xr.open_dataset(
        path,
        engine="cfgrib",
        decode_timedelta=True,
        backend_kwargs={
            "indexpath": "",  # leaves no index file beside the data
            "filter_by_keys": {"shortName": "soilw", "typeOfLevel": "depthBelowLandLayer"},
        },
    )
    soilw = dataset["soilw"].sel(depthBelowLandLayer=0, drop=True)
    begun = dataset["time"].dt.strftime("%Y-%m-%d %H").item()
    hours = int(dataset["step"] / np.timedelta64(1, "h"))
    soilw = soilw.reset_coords(drop=True).rename(latitude="lat", longitude="lon")
    return Field(
        "GFS",
        "soilw, 0-10 cm",
        dataset["valid_time"].dt.strftime("%Y-%m-%d %H UTC").item(),
        f"forecast of {begun} UTC, +{hours} h",
        soilw,
        _fraction(soilw, "Proportion"),
    )


def read_gldas(path):
    """Three-hourly steps in kg m-2, averaged over the steps that are there."""
    soil = xr.open_dataset(path)["SoilMoi0_10cm_inst"]
    first, last = soil["time"].dt.strftime("%Y-%m-%d %H").values[[0, -1]]
    mean = soil.mean("time", keep_attrs=True)
    return Field(
        "GLDAS Noah",
        "SoilMoi0_10cm_inst",
        f"{first}-{last.removeprefix(first[:11])} UTC",
        f"mean of {soil.sizes['time']} three-hourly instants",
        mean,
        volumetric_water_content(mean),
    )


def read_era_interim(path):
    """The month of the climatology in which the reference lies; it is a fraction of the volume."""
    swl1 = xr.open_dataset(path)["swl1"].sel(time="1981-12-01")
    return Field(
        "ERA-Interim",
        "swl1",
        swl1["time"].dt.strftime("%Y-%m").item(),
        "climatology: mean of 1981-2010, stamped with its first year",
        swl1,
        _fraction(swl1, "1"),
    )


def read_mask(path):
    """1 on land, 0 elsewhere, on the nodes of the reference."""
    mask = xr.open_dataset(path)["land"].rename(latitude="lat", longitude="lon")
    land = _ascending((mask == 1).astype(float)).assign_attrs(mask.attrs)
    return Field("ERA5-Land mask", "land", "none", "static, 1 is land", land)


def read_era5(path, mask):
    """Its ocean holds a residue of packing, 1.5e-5, and not NaN: the mask says what is land."""
    stamp = xr.open_dataset(path)["time"].dt.strftime("%Y-%m-%d %H UTC").values[0]
    raw = xr.open_dataset(path)["swvl1"].isel(time=0, drop=True)
    raw = _ascending(raw.rename(latitude="lat", longitude="lon"))
    theta = era5land.open_swvl(path).isel(time=0, drop=True)
    theta, raw, mask = xr.align(theta, raw, mask, join="exact")
    return Field("ERA5", "swvl1", stamp, "instant", raw.where(mask == 1), theta.where(mask == 1))


def read_etopo(path):
    """Longitudes run from 20 to 380 and the last column repeats the first."""
    relief = xr.open_dataset(path)["ROSE"]
    relief = relief.rename(dict(zip(relief.dims, ("lat", "lon")))).astype(float)
    return Field("ETOPO20", "ROSE", "none", "static", relief)


READERS = {
    "HadGEM2-ES": read_hadgem2,
    "GFS": read_gfs,
    "GLDAS Noah": read_gldas,
    "ERA-Interim": read_era_interim,
    "ERA5-Land mask": read_mask,
    "ETOPO20": read_etopo,
}


def read(folder):
    """All fields by name.

    Raises
    ------
    FileNotFoundError
        If the folder or a file in it is not there; the message names every such file.
    ValueError
        If a field is not what it is taken for; the message says all that is wrong.
    """
    folder = Path(folder)
    paths = {name: folder / file for name, (file, *_) in FILES.items()}
    missing = [f"  - {path.name}" for path in paths.values() if not path.is_file()]
    if missing:
        lines = "\n".join(missing)
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(paths)} files are not there:\n{lines}\n"
            "fetch them, or name the folder that holds them"
        )
    fields = {name: reader(paths[name]) for name, reader in READERS.items()}
    fields["ERA5"] = read_era5(paths["ERA5"], fields["ERA5-Land mask"].raw)
    problems = [problem for field in fields.values() for problem in _problems(field)]
    if problems:
        raise ValueError("the files cannot be used:\n" + "\n".join(problems))
    return {name: fields[name] for name in FILES}


def _fraction(field, units):
    """A fraction of the soil's volume, under whatever name its file has for the unit."""
    if field.attrs.get("units") != units:
        raise ValueError(
            f"{field.name}: expected units {units!r}, got {field.attrs.get('units')!r}"
        )
    theta = field.reset_coords(drop=True).astype(float)
    return theta.assign_attrs(units="m3 m-3").rename("theta")


def _ascending(field):
    lon = (field["lon"].astype(float) + 180) % 360 - 180
    return field.assign_coords(lat=field["lat"].astype(float), lon=lon).sortby(["lat", "lon"])


def _in_domain(field, margin=0):
    field = field.sortby("lat")
    return field.sel(
        lat=slice(DOMAIN.south - margin, DOMAIN.north + margin),
        lon=slice(DOMAIN.west - margin, DOMAIN.east + margin),
    )


def _problems(field):
    if field.theta is None:
        return []
    theta = _in_domain(field.theta)
    low, high, valid = float(theta.min()), float(theta.max()), float(theta.notnull().mean())
    file = FILES[field.name][0]
    problems = []
    if theta.attrs.get("units") != "m3 m-3":
        problems.append(f"  - {file}: units {theta.attrs.get('units')!r}, expected 'm3 m-3'")
    if not 0 <= low < 0.2 < high <= 1:
        problems.append(
            f"  - {file}: {low:.3f} to {high:.3f} m3 m-3 in the domain, expected dry and wet land "
            "within 0 to 1: are the units those of the attributes?"
        )
    if valid < 0.5:
        problems.append(
            f"  - {file}: {100 * valid:.0f} % of the domain has values, expected more than half: "
            "is it another region?"
        )
    return problems


def table_of(fields):
    """What was read: dates as in the files, values as in the files, in the domain."""
    rows = []
    for field in fields.values():
        values = _in_domain(field.raw)
        rows.append(
            {
                "dataset": field.name,
                "file": FILES[field.name][0],
                "variable": field.variable,
                "date": field.date,
                "what the date means": field.kind,
                "grid": f"{field.raw.sizes['lat']} x {field.raw.sizes['lon']}",
                "in the domain": f"{values.sizes['lat']} x {values.sizes['lon']}",
                "valid (%)": 100 * float(values.notnull().mean()),
                "units": field.raw.attrs["units"],
                "minimum": float(values.min()),
                "mean": float(values.mean()),
                "maximum": float(values.max()),
                "below 0": int((values < 0).sum()) if field.theta is not None else 0,
            }
        )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------- computing


def prepare(fields):
    """Predictors on the coarse grid, reference and static fields on the fine grid.

    Returns
    -------
    coarse : xr.DataArray
        theta(source_id, time, lat, lon) of the sources, missing over the ocean.
    predictors : xr.DataArray
        The same, with the ocean filled from the nearest land.
    reference : xr.DataArray
        theta(time, lat, lon).
    static : xr.Dataset
        ``elevation``, ``land_fraction`` and ``land``.
    """
    bounds = ["lat_bnds", "lon_bnds"]
    coarse_cells = coarse_grid(DOMAIN).drop_vars(bounds)
    fine_cells = fine_grid(DOMAIN).drop_vars(bounds)

    def regridded(field, target):
        near = _in_domain(field, MARGIN).compute()
        return regrid(near, target, method=PRESET.regridding)

    def sample(theta):
        return theta.expand_dims(time=[SAMPLE]).assign_attrs(units="m3 m-3").rename("theta")

    sources = [
        sample(regridded(fields[name].theta.clip(0, 1, keep_attrs=True), coarse_cells))
        for name in SOURCES
    ]
    coarse = xr.concat(
        sources, xr.Variable("source_id", list(SOURCES)), join="exact", combine_attrs="override"
    )
    reference = sample(regridded(fields["ERA5"].theta, fine_cells))
    land_fraction = regridded(fields["ERA5-Land mask"].raw, fine_cells)
    # The relief goes on below the sea, of which the soil knows nothing.
    elevation = regridded(fields["ETOPO20"].raw, fine_cells) * (land_fraction > 0)
    land = reference.isel(time=0, drop=True).notnull()
    static = xr.Dataset({"elevation": elevation, "land_fraction": land_fraction, "land": land})
    filled = [fill_nearest(coarse.sel(source_id=name)) for name in SOURCES]
    predictors = xr.concat(filled, coarse["source_id"], join="exact", combine_attrs="override")
    return coarse, predictors, reference, static


def overfit(predictors, reference, static, *, steps=STEPS, seed=0):
    """A network fitted to the one sample until it knows it by heart."""
    statistics = Statistics.fit(
        predictors,
        reference,
        static[["elevation", "land_fraction"]],
        train_period=(SAMPLE, SAMPLE),
        standardisation=PRESET.standardisation,
    )
    x, auxiliary = statistics.predictors(predictors), statistics.auxiliary(static)
    y, valid = statistics.target(reference)

    torch.manual_seed(seed)
    config = YNetConfig(
        in_channels=len(SOURCES),
        features=FEATURES,
        depth=DEPTH,
        clip_features=PRESET.clip_features,
    )
    network = YNet(config)
    initialise_he(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=PRESET.learning_rate)
    history = []
    # Two threads gain nothing on so small a network, and lose much where they share a core.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for step in range(1, steps + 1):
        start = time.monotonic()
        loss = masked_mse(network(x, auxiliary), y, valid)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        mse = loss.item() * statistics.reference_std**2  # (m3 m-3)2
        history.append({"step": step, "train": mse, "seconds": time.monotonic() - start})
    torch.set_num_threads(threads)
    history = pd.DataFrame(history).set_index("step")
    return Trained(
        network.eval(), statistics, history, steps, precision="float32", machine="this machine"
    )


def score(predictors, fused, reference):
    """Scores of every source, of their mean and of the fused field, on the same cells."""
    # Bilinear between the centres of the coarse cells; beyond the outermost, the nearest value.
    fine = fill_nearest(regrid(predictors, reference, method="bilinear"))
    estimates = {name: fine.sel(source_id=name, drop=True) for name in SOURCES}
    mean = fine.mean("source_id").assign_attrs(units="m3 m-3")
    estimates |= {"mean of the sources": mean, "fused, fitted to the reference": fused}
    weights = cell_area(reference["lat"], reference["lon"])
    functions = (metrics.bias, metrics.mae, metrics.rmsd, metrics.ubrmsd, metrics.correlation)
    rows = {}
    for name, estimate in estimates.items():
        values = {f.__name__: f(estimate, reference, weights=weights) for f in functions}
        rows[name] = {key: float(value) for key, value in values.items()}
        rows[name]["cells"] = int(values["bias"]["pairs"])
    return pd.DataFrame(rows).T.astype({"cells": int}).rename_axis("estimate"), mean


# ------------------------------------------------------------------------------------------- output


def draw(fields, coarse, mean, fused, reference, static):
    """One picture: sources, fused and reference above, the errors below. An array of pixels."""
    # Whole coarse cells, cut along the coast
    shown = regrid(coarse, reference, method="nearest").where(static["land"])
    titles = [f"{name}, {fields[name].date}" for name in SOURCES]
    titles[SOURCES.index("ERA-Interim")] += " (climatology)"
    panels = [*(shown.sel(source_id=name, drop=True) for name in SOURCES), fused, reference]
    titles += ["fused, no date: fitted to (f)", f"reference: ERA5, {fields['ERA5'].date}"]
    errors = [mean - reference, fused - reference]
    names = ["mean of the sources minus ERA5", "fused minus ERA5, to which it was fitted"]

    def figure(panels, titles, quantity):
        panels = [panel.isel(time=0, drop=True) for panel in panels]
        field = xr.concat(panels, xr.Variable("panel", titles), join="exact", combine_attrs="drop")
        field = field.assign_coords(panel=titles).assign_attrs(units="m3 m-3")
        return plots.maps(field, quantity=quantity, col="panel")

    above, below = figure(panels, titles, "theta"), figure(errors, names, "difference")
    for letter, ax, title in zip("gh", below.axes, names):  # the letters go on
        ax.set_title(f"({letter}) {title}", loc="left", pad=3, fontsize=7.5)
    pixels = []
    for fig in (above, below):
        png = io.BytesIO()
        fig.savefig(png, format="png")
        png.seek(0)
        pixels.append(plt.imread(png))
    return np.vstack(pixels)


def write_page(path, results, picture):
    """One page of HTML with everything in it."""
    fields, scores, history = (results[key] for key in ("fields", "scores", "history"))
    table = results["table"].drop(columns="file").astype({"below 0": object})
    table.loc[[fields[name].theta is None for name in table["dataset"]], "below 0"] = ""
    files = "\n".join(
        f"<li>{escape(name)}: <code>{escape(file)}</code>, {escape(origin)}. {escape(terms)}.</li>"
        for name, (file, origin, terms) in FILES.items()
    )
    start, end = (f"{np.sqrt(history['train'].iloc[i]):.3f}" for i in (0, -1))
    sources = "; ".join(f"{name} of {fields[name].date}" for name in SOURCES)
    alt = (
        "Eight maps of 18 to 54 degrees north, 71 to 137 degrees east. Volumetric water content "
        f"in m3 m-3: the sources on 2 degrees ({sources}), the fused field and the ERA5 reference "
        f"of {fields['ERA5'].date} on 0.25 degrees. Differences in m3 m-3: the mean of the sources "
        f"minus ERA5, RMSD {scores['rmsd'].iloc[-2]:.3f}, and fused minus ERA5, RMSD "
        f"{scores['rmsd'].iloc[-1]:.3f}."
    )
    style = (
        "body{font:16px/1.5 sans-serif;margin:2em auto;max-width:68em;padding:0 1em;color:#222}"
        ".claim{border-left:4px solid #b2182b;padding:.4em 1em;background:#f7f0ee}"
        "img{width:100%;height:auto}.wide{overflow-x:auto}"
        "table{border-collapse:collapse;font-size:12px;line-height:1.35}li{font-size:13px}"
        ".read :is(td:nth-child(-n+3),td:nth-child(5),td:nth-child(6),td:nth-child(8))"
        "{white-space:nowrap}"
        "th,td{padding:.3em .5em;border-bottom:1px solid #ccc;text-align:left;vertical-align:top}"
    )
    html = f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Plumbing, not skill: a run on real files</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>
<body>
<h1>Plumbing, not skill: a run on real files</h1>
<p class="claim"><strong>{escape(CLAIM)}</strong> What the run shows: NetCDF and GRIB2 files on
six grids are read, checked, converted, regridded, fitted, fused and scored by the code of the
book. Their dates are printed as they are in the files; nothing is relabelled.</p>
<figure><img src="data:image/png;base64,{base64.b64encode(picture).decode()}" alt="{escape(alt)}">
<figcaption>Volumetric water content in m³ m⁻³. (a) to (d): the sources, regridded to 2 degrees;
grey is ocean or lake, or a coarse cell with less than half of its area on the source's land. Before
the network sees them, such cells take the value of the nearest one. (e): the network's output, (f):
what it was fitted to, both on 0.25 degrees. (g), (h): differences from (f). The reference is the
layer 0-7 cm, as is ERA-Interim; the other sources are of 0-10 cm.</figcaption></figure>
<h2>What was read</h2>
<p>Values as in the files, in the domain {DOMAIN.south:g}-{DOMAIN.north:g}° N,
{DOMAIN.west:g}-{DOMAIN.east:g}° E; those of ERA5 on the land of the ERA5-Land mask, because its
ocean holds a residue of packing. Values below 0 come from packing and are set to 0.</p>
<div class="wide read">{table.to_html(index=False, border=0, float_format="{:.4g}".format)}</div>
<ul>
{files}
</ul>
<h2>Scores against ERA5 of {fields["ERA5"].date}</h2>
<p>In m³ m⁻³, except correlation and the number of cells; weighted by area. Sources: bilinear from
2 degrees. The last line is no skill: it is how well the network knows its one sample by heart.</p>
<div class="wide">{scores.reset_index().to_html(index=False, border=0, float_format="%.3f")}</div>
<h2>The fit</h2>
<p>YNet with {len(SOURCES)} sources, made small so that this takes seconds: {FEATURES} features,
depth {DEPTH}, {results["parameters"]:,} parameters. He initialisation, standardised by source;
{len(history)} steps of Adam on the one sample, learning rate {PRESET.learning_rate:g}. Root of the
loss: {start} m³ m⁻³ at first, {end} at the end. Values of the fused field outside 0 to
{SATURATION}: {results["outside"]} of {results["cells"]}; they are kept.</p>
</body></html>
"""
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8")


def run(folder, output):
    """The whole way from a folder of files to a page.

    Parameters
    ----------
    folder : str or Path
        Holds the files of ``FILES``.
    output : str or Path
        Folder for ``table.csv``, ``scores.json``, ``maps.png`` and ``real.html``.

    Returns
    -------
    dict
        ``fields``, ``table``, ``coarse``, ``predictors``, ``reference``, ``static``, ``fused``,
        ``scores``, ``history`` and a few numbers.
    """
    output = Path(output)
    fields = read(folder)
    table = table_of(fields)
    coarse, predictors, reference, static = prepare(fields)
    trained = overfit(predictors, reference, static)
    fused = predict(trained, predictors, static, land=static["land"])
    scores, mean = score(predictors, fused, reference)
    results = {
        "fields": fields,
        "table": table,
        "coarse": coarse,
        "predictors": predictors,
        "reference": reference,
        "static": static,
        "fused": fused,
        "scores": scores,
        "history": trained.history,
        "parameters": count_parameters(trained.network),
        "cells": int(static["land"].sum()),
        "outside": int(((fused < 0) | (fused > SATURATION)).sum()),
    }

    with replacing(output / "table.csv") as part:
        table.to_csv(part, index=False)
    numbers = {
        "claim": CLAIM,
        "dates": {name: fields[name].date for name in (*SOURCES, "ERA5")},
        "units": "m3 m-3",
        "steps": len(trained.history),
        **{key: results[key] for key in ("parameters", "cells", "outside")},
        "scores": scores.to_dict("index"),
    }
    write_json(numbers, output / "scores.json")
    pixels = draw(fields, coarse, mean, fused, reference, static)
    png = io.BytesIO()
    plt.imsave(png, pixels, format="png", dpi=200)
    with replacing(output / "maps.png") as part:
        part.write_bytes(png.getvalue())
    write_page(output / "real.html", results, png.getvalue())
    return results


def main(arguments):
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stderr)
        return 2
    output, start = ROOT / "data" / "real", time.monotonic()
    try:
        results = run(arguments[0], output)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    table, history = results["table"].set_index("dataset"), results["history"]
    print(CLAIM, end="\n\n")
    print(table[["variable", "date", "what the date means"]].to_string(), end="\n\n")
    print(table.iloc[:, 4:].to_string(float_format="{:.4g}".format), end="\n\n")
    print(results["scores"].to_string(float_format="{:.4f}".format), end="\n\n")
    print(
        f"{len(history)} steps in {history['seconds'].sum():.0f} s, all of it in "
        f"{time.monotonic() - start:.0f} s. The page: {output / 'real.html'}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
