"""Readers of the prepared store."""

import xarray as xr

from smcore.store import checked


def open_predictors(study, experiment_id):
    """Fields of the sources on the coarse grid.

    Parameters
    ----------
    study : Study
        Its prepared store must exist.
    experiment_id : str
        ``historical`` or a scenario.

    Returns
    -------
    xr.DataArray
        theta(source_id, time, lat, lon) in m3 m-3, the ocean filled from the nearest land.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is not there, or is damaged or out of date; the chapter that makes it is named.
    """
    paths = [stored(study, f"theta_{name}_{experiment_id}.nc") for name in study.sources]
    fields = [xr.load_dataarray(path) for path in paths]
    index = xr.Variable("source_id", list(study.sources))
    return xr.concat(fields, index, join="exact", combine_attrs="override")


def open_reference(study):
    """theta(time, lat, lon) in m3 m-3 of the reference on the fine grid, loaded when it is used.

    Raises FileNotFoundError if it is not there, ValueError if it is damaged or out of date.
    """
    return xr.open_dataset(stored(study, "reference.nc"))["theta"]


def open_static(study):
    """Static fields (lat, lon) on the fine grid, as a Dataset.

    ``elevation`` (m), ``land_fraction`` (0..1), and the booleans ``land`` (where the reference has
    a value) and ``study_area`` (land inside the study's polygons). Raises FileNotFoundError if the
    file is not there, ValueError if it is damaged or out of date.
    """
    static = xr.load_dataset(stored(study, "static.nc"))
    return static.assign({name: static[name].astype(bool) for name in ("land", "study_area")})


def stored(study, name):
    """Path of a file of the prepared store, checked."""
    return checked(study.prepared / name, "01_data_preparation", study=study)
