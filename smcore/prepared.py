"""Readers of the prepared store."""

import xarray as xr


def _stored(study, name):
    path = study.prepared / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: not prepared yet; run chapter 01_data_preparation")
    return path


def open_predictors(study, experiment_id):
    """theta(source_id, time, lat, lon) in m3 m-3 on the coarse grid, ocean filled."""
    fields = [
        xr.load_dataarray(_stored(study, f"theta_{source_id}_{experiment_id}.nc"))
        for source_id in study.sources
    ]
    index = xr.Variable("source_id", list(study.sources))
    return xr.concat(fields, index, join="exact", combine_attrs="override").assign_coords(
        source_id=list(study.sources)
    )


def open_reference(study):
    """theta(time, lat, lon) in m3 m-3 of the reference on the fine grid."""
    return xr.open_dataset(_stored(study, "reference.nc"))["theta"]


def open_static(study):
    """Static fields on the fine grid.

    Returns
    -------
    xr.Dataset
        ``elevation`` (m), ``land_fraction`` (0..1), and the booleans ``land`` (where the
        reference has a value) and ``study_area`` (land inside the study's polygons).
    """
    static = xr.load_dataset(_stored(study, "static.nc"))
    return static.assign({name: static[name].astype(bool) for name in ("land", "study_area")})
