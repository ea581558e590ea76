"""The product: fused, downscaled theta of one experiment as a CF file."""

import json

import numpy as np
import pandas as pd
import xarray as xr

import smcore
from smcore.soil import SATURATION
from smcore.store import checked, write_dataset

DEPTH_BOUNDS = {"0-7cm": (0.0, 0.07), "0-10cm": (0.0, 0.1)}  # m


def write(theta, path, *, study, std=None, provenance=None, recipe=None):
    """Write the product of one experiment.

    Parameters
    ----------
    theta : xr.DataArray
        theta(time, lat, lon) in m3 m-3, ``time`` the first of each month.
    path : str or Path
        Name of the NetCDF file; it appears when it is complete.
    study : Study
        Says domain, depth, sources, periods and network.
    std : xr.DataArray, optional
        Standard deviation between the networks of an ensemble, as `theta`.
    provenance : dict, optional
        Further global attributes.
    recipe : dict, optional
        What it was made from, see :func:`smcore.store.recipe`.

    Returns
    -------
    int
        How many values lie outside 0..0.766 m3 m-3, the largest saturation of the land
        scheme of ERA5-Land; they are kept and counted in the file.

    Raises
    ------
    ValueError
        If `theta` is in other units, or its months do not begin on their first day.
    """
    units = theta.attrs.get("units", "m3 m-3")
    if units != "m3 m-3":
        raise ValueError(f"`theta` must be in 'm3 m-3', got {units!r}")
    months = pd.DatetimeIndex(theta["time"].values)
    if not (months == months.to_period("M").to_timestamp()).all():
        raise ValueError(f"`time` of `theta` must be the first of each month, got {months[0]} ...")

    outside = int(((theta < 0) | (theta > SATURATION)).sum())
    bounds = np.stack([months, months + pd.offsets.MonthBegin(1)], axis=1)
    first, last = DEPTH_BOUNDS[study.depth]

    theta = theta.transpose("time", "lat", "lon").astype("float32").rename("theta")
    theta.attrs = {
        "standard_name": "volume_fraction_of_condensed_water_in_soil",
        "long_name": f"volumetric water content of the soil, {study.depth}",
        "units": "m3 m-3",
        "cell_methods": "time: mean area: mean where land",
        "grid_mapping": "crs",
    }
    dataset = theta.to_dataset()
    if std is not None:
        dataset["theta_std"] = std.transpose("time", "lat", "lon").astype("float32")
        dataset["theta_std"].attrs = {
            "long_name": f"standard deviation of theta between {len(study.members)} networks",
            "units": "m3 m-3",
            "grid_mapping": "crs",
        }
        dataset["theta"].attrs["ancillary_variables"] = "theta_std"
    dataset = dataset.drop_vars(["lat_bnds", "lon_bnds"], errors="ignore")
    for axis, standard_name, units, letter in [
        ("lat", "latitude", "degrees_north", "Y"),
        ("lon", "longitude", "degrees_east", "X"),
    ]:
        centres = dataset[axis].values.astype(float)
        half = (centres[1] - centres[0]) / 2
        dataset[axis] = (
            axis,
            centres,
            {
                "standard_name": standard_name,
                "units": units,
                "axis": letter,
                "bounds": f"{axis}_bnds",
            },
        )
        dataset[f"{axis}_bnds"] = ((axis, "bnds"), np.stack([centres - half, centres + half], 1))
    dataset["time"] = (
        "time",
        months,
        {"standard_name": "time", "axis": "T", "bounds": "time_bnds"},
    )
    dataset["time_bnds"] = (("time", "bnds"), bounds)
    dataset["depth"] = (
        (),
        (first + last) / 2,
        {
            "standard_name": "depth",
            "units": "m",
            "positive": "down",
            "axis": "Z",
            "bounds": "depth_bnds",
        },
    )
    dataset["depth_bnds"] = (("bnds",), [first, last])
    dataset = dataset.set_coords("depth")
    dataset["crs"] = (
        (),
        np.int32(0),
        {
            "grid_mapping_name": "latitude_longitude",
            "semi_major_axis": 6378137.0,
            "inverse_flattening": 298.257223563,
        },
    )
    notice = "SYNTHETIC: made from the demo world, not from climate models. "
    dataset.attrs = {
        "Conventions": "CF-1.8",
        "title": f"Surface soil moisture, fused and downscaled: {study.title}",
        "summary": (notice if study.synthetic else "")
        + "Monthly volumetric water content, CMIP6 models fused and downscaled by YNet.",
        "institution": "smcore",
        # Without the date, so that the same input gives the same file.
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
    for name in dataset.data_vars.keys() - {"theta", "theta_std"}:
        dataset[name].encoding["coordinates"] = None  # bounds and crs have none
    write_dataset(
        dataset,
        path,
        recipe,
        time_bnds={"units": "days since 1850-01-01", "dtype": "float64"},
    )
    return outside


def open_product(path):
    """The product of one experiment.

    Parameters
    ----------
    path : str or Path
        As `study.product` says.

    Returns
    -------
    xr.DataArray
        theta(time, lat, lon) in m3 m-3, loaded when it is used; ``time`` is the first of
        each month.

    Raises
    ------
    FileNotFoundError
        If the file is not there yet; chapter 3 makes it.
    ValueError
        If it is damaged, or its network, its inputs or the code have changed since.
    """
    dataset = xr.open_dataset(checked(path, "03_fused_product"))
    theta = dataset["theta"].drop_vars("depth")
    theta.attrs |= {"title": dataset.attrs["title"], "network": dataset.attrs["network"]}
    return theta
