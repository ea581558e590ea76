"""The product: fused, downscaled theta of one experiment as a CF file."""

import json

import numpy as np
import pandas as pd
import xarray as xr

import smcore
from smcore.soil import SATURATION
from smcore.store import checked, write_dataset

DEPTH_BOUNDS = {"0-7cm": (0.0, 0.07), "0-10cm": (0.0, 0.1)}  # m
ATTRIBUTES = {
    "theta": {
        "standard_name": "volume_fraction_of_condensed_water_in_soil",
        "units": "m3 m-3",
        "cell_methods": "time: mean area: mean where land",
        "grid_mapping": "crs",
    },
    "theta_std": {"units": "m3 m-3", "grid_mapping": "crs"},
    "lat": {"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "lon": {"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
    "time": {"standard_name": "time", "axis": "T"},
    "depth": {"standard_name": "depth", "units": "m", "positive": "down", "axis": "Z"},
    "crs": {  # WGS 84
        "grid_mapping_name": "latitude_longitude",
        "semi_major_axis": 6378137.0,
        "inverse_flattening": 298.257223563,
    },
}


def write(theta, path, *, study, std=None, provenance=None, recipe=None):
    """Write the product of one experiment.

    Parameters
    ----------
    theta : xr.DataArray
        theta(time, lat, lon) in m3 m-3, ``time`` the first of each month (else ValueError).
    path : str or Path
        Name of the NetCDF file; it appears when it is complete.
    study : Study
        Says depth, sources, periods and network.
    std : xr.DataArray, optional
        Standard deviation between the networks of an ensemble, as `theta`.
    provenance, recipe : dict, optional
        Further global attributes; what it was made from, see :func:`smcore.store.recipe`.

    Returns
    -------
    int
        How many values lie outside 0..0.766 m3 m-3 (`smcore.soil.SATURATION`); they are kept.
    """
    if (units := theta.attrs.get("units", "m3 m-3")) != "m3 m-3":
        raise ValueError(f"`theta` must be in 'm3 m-3', got {units!r}")
    months = pd.DatetimeIndex(theta["time"].values)
    if not (months == months.to_period("M").to_timestamp()).all():
        raise ValueError(f"`time` of `theta` must be the first of each month, got {months[0]} ...")

    outside = int(((theta < 0) | (theta > SATURATION)).sum())
    fields = {"theta": theta} if std is None else {"theta": theta, "theta_std": std}
    dataset = xr.Dataset(fields).transpose("time", "lat", "lon").astype("float32")
    bounds = {
        "time": np.stack([months, months + pd.offsets.MonthBegin(1)], axis=1),
        "depth": np.array(DEPTH_BOUNDS[study.depth]),
    }
    dataset = dataset.assign_coords(time=months, depth=bounds["depth"].mean())
    for axis in ("lat", "lon"):
        centres = dataset[axis].values.astype(float)
        half = (centres[1] - centres[0]) / 2
        dataset[axis] = axis, centres
        bounds[axis] = np.stack([centres - half, centres + half], axis=1)
    dataset["crs"] = (), np.int32(0)
    for name in ATTRIBUTES.keys() & dataset.variables.keys():
        dataset[name].attrs = ATTRIBUTES[name]
    for name, edges in bounds.items():
        dataset[f"{name}_bnds"] = (*dataset[name].dims, "bnds"), edges
        dataset[name].attrs["bounds"] = f"{name}_bnds"
    dataset["theta"].attrs["long_name"] = f"volumetric water content of the soil, {study.depth}"
    if std is not None:
        dataset["theta"].attrs["ancillary_variables"] = "theta_std"
        long_name = f"standard deviation of theta between {len(study.members)} networks"
        dataset["theta_std"].attrs["long_name"] = long_name
    summary = "Monthly volumetric water content, CMIP6 models fused and downscaled by YNet."
    if study.synthetic:
        summary = f"SYNTHETIC: made from the demo world, not from climate models. {summary}"
    dataset.attrs = {
        "Conventions": "CF-1.8",
        "title": f"Surface soil moisture, fused and downscaled: {study.title}",
        "summary": summary,
        "institution": "smcore",
        # without the date, so that the same input gives the same file
        "history": f"fused and written by smcore {smcore.__version__}",
        "source": f"smcore {smcore.__version__}, network {study.network.name}",
        "references": "https://doi.org/10.3389/fenvs.2022.847475",
        "license": "CC BY 4.0" if study.synthetic else "as the sources; see attribute inputs",
        "smcore_version": smcore.__version__,
        "profile": study.name,
        "network": study.network.name,
        "configuration": study.hash,
        "sources": json.dumps(list(study.sources)),
        "train_period": " ".join(study.periods.train),
        "seed": " ".join(str(member.network.seed) for member in study.members),
        "values_outside_physical_range": outside,
        **(provenance or {}),
    }
    for name in dataset.data_vars.keys() - fields:
        dataset[name].encoding["coordinates"] = None  # bounds and crs have none
    write_dataset(dataset, path, recipe)
    return outside


def open_product(path):
    """The product of one experiment.

    Parameters
    ----------
    path : str or Path
        As `study.product` says. FileNotFoundError without such a file, ValueError if it is damaged
        or out of date; both name the chapter to run.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3, first days of months, loaded when it is used.
    """
    dataset = xr.open_dataset(checked(path, "03_fused_product"))
    theta = dataset["theta"].drop_vars("depth")
    theta.attrs |= {"title": dataset.attrs["title"], "network": dataset.attrs["network"]}
    return theta


def fused(study, experiment_id):
    """Theta (time, lat, lon) of one experiment of a study's own product, loaded."""
    return open_product(study.product(experiment_id)).load()
