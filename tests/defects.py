"""Defects of real files, to be planted in the polite files of the demo world.

Each function in `DEFECTS` takes the files of one source, two of the historical run and then one for
each scenario, and spoils some of them as its docstring tells. Seven of them a profile may plant.
"""

import cftime
import numpy as np
import xarray as xr

from smcore import defects
from smcore.defects import FILL, overlap, store, stored, with_parts, with_span


def _span(path):
    """First and last month in the name of a file."""
    return path.stem.split("_")[-1].split("-")


def _change(path, change):
    store(change(stored(path)), path)


def _values(path, change):
    """Change the array of mrsos in place; `change` takes it and the mask of the land."""

    def apply(dataset):
        values = dataset["mrsos"].values
        change(values, values[0] < FILL / 2)
        return dataset

    _change(path, apply)


def end_in_2300(paths):
    """A second file continues the last scenario to the year 2300, as of MRI-ESM2-0."""
    path = paths[-1]
    last = int(_span(path)[1][:4])
    year, parts = stored(path).isel(time=slice(-12, None)), []
    starts = [cftime.datetime(last, month, 1) for month in range(1, 13)]
    for later in range(last + 1, 2301):
        days = cftime.date2num(
            [start.replace(year=later) for start in starts],
            year["time"].attrs["units"],
            year["time"].attrs["calendar"],
        )
        copy = year.drop_vars(["time_bnds"]).assign_coords(
            time=year["time"].copy(data=days.astype(float))
        )
        del copy["time"].attrs["bounds"]
        parts.append(copy)
    same = {"compat": "override", "coords": "minimal", "join": "override"}
    joined = xr.concat(parts, "time", data_vars="minimal", combine_attrs="override", **same)
    store(joined, with_span(path, f"{last + 1}01", "230012"))


def ocean_zero(paths):
    """A residue of packing over the ocean where nothing should be."""

    def change(values, land):
        values[:, ~land] = 0.0015

    _values(paths[-1], change)


def julian_calendar(paths):
    """The calendar that the Romans used."""

    def change(dataset):
        units, calendar = (dataset["time"].attrs[key] for key in ("units", "calendar"))
        for name in ("time_bnds", "time"):
            stamps = cftime.num2date(dataset[name].values, units, calendar)
            roman = [
                cftime.datetime(d.year, d.month, min(d.day, 28), calendar="julian")
                for d in np.ravel(stamps)
            ]
            days = cftime.date2num(roman, units, "julian").reshape(dataset[name].shape)
            dataset[name] = dataset[name].copy(data=days.astype(float))
        dataset["time"].attrs["calendar"] = "julian"
        return dataset

    for path in paths:
        _change(path, change)


def _drier_copies(paths, facet, value):
    """Half the water under another facet: in the attribute, the folder and the name."""
    for path in paths:
        dataset = stored(path)
        name = path.name.replace(f"_{dataset.attrs[facet]}_", f"_{value}_")
        half = dataset["mrsos"].where(dataset["mrsos"] == FILL, dataset["mrsos"] / 2)
        dataset = dataset.assign(mrsos=half).assign_attrs({facet: value})
        store(dataset, with_parts(path, file=name, **{facet: value}))


def second_member(paths):
    """Another member of the same run, with other values."""
    _drier_copies(paths, "variant_label", "r9i1p1f1")


def second_grid(paths):
    """The same run on another grid of the centre's, with other values."""
    _drier_copies(paths, "grid_label", "gr9")


def conflict(paths):
    """The second historical file has other values for the last year of the first."""

    def wetter(tail):
        values = tail["mrsos"].values
        values[values < FILL / 2] += 5
        return tail

    overlap(paths, wetter)


def gap(paths):
    """The first historical file lacks its last year."""
    first, last = _span(paths[0])
    shorter = stored(paths[0]).isel(time=slice(None, -12))
    store(shorter, with_span(paths[0], first, f"{int(last[:4]) - 1}12"))
    paths[0].unlink()


def repeated_month(paths):
    """A month stands twice in a file."""
    steps = [0, 1, 2, 3, 3]
    _change(paths[-1], lambda d: d.isel(time=[*steps, *range(4, d.sizes["time"])]))


def misnamed(paths):
    """The months in a name are not those of the time axis."""
    paths[-1].rename(with_span(paths[-1], "185001", "185012"))


def odd_name(paths):
    """A browser fetched it twice."""
    paths[-1].rename(paths[-1].with_name(f"{paths[-1].stem} (1).nc"))


def wrong_facets(paths):
    """The name of one experiment on the file of another."""
    _change(paths[-1], lambda dataset: dataset.assign_attrs(experiment_id="piControl"))


def curvilinear(paths):
    """Latitudes and longitudes with two dimensions, as on a rotated grid."""

    def change(dataset):
        dataset = dataset.drop_vars(["lat_bnds", "lon_bnds"]).rename(lat="j", lon="i")
        lat, lon = np.meshgrid(dataset["j"], dataset["i"], indexing="ij")
        return dataset.drop_vars(["j", "i"]).assign_coords(
            lat=(("j", "i"), lat), lon=(("j", "i"), lon)
        )

    _change(paths[-1], change)


def unstructured(paths):
    """Cells in a row, each with a latitude and a longitude, as in ICON."""

    def change(dataset):
        dataset = dataset.drop_vars(["lat_bnds", "lon_bnds"]).stack(i=("lat", "lon"))
        return dataset.reset_index("i").transpose("time", "i", ...)

    _change(paths[-1], change)


def truncated(paths):
    """A transfer that broke off."""
    paths[-1].write_bytes(paths[-1].read_bytes()[: paths[-1].stat().st_size // 2])


def damaged_chunk(paths):
    """A disk that lost some blocks: the file opens, and a month cannot be read."""
    import h5py  # here, because it loads a second copy of HDF5

    with h5py.File(paths[-1]) as file:
        chunk = file["mrsos"].id.get_chunk_info(0)
    with paths[-1].open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)


def empty_file(paths):
    """Nothing arrived."""
    paths[-1].write_bytes(b"")


def web_page(paths):
    """A server's error page under the name of a file."""
    paths[-1].write_text("<!DOCTYPE html>\n<html><title>503 Service Unavailable</title></html>\n")


def wrong_variable(paths):
    """The water of the whole column."""
    _change(paths[-1], lambda dataset: dataset.rename(mrsos="mrso"))


def wrong_units(paths):
    """Units that a step before has changed."""

    def change(dataset):
        dataset["mrsos"].attrs["units"] = "m3 m-3"
        return dataset

    _change(paths[-1], change)


def wrong_magnitude(paths):
    """Fractions that are called kg m-2."""

    def change(values, land):
        values[:, land] /= 100

    for path in paths:
        _values(path, change)


def all_missing(paths):
    """Not one value."""

    def change(values, land):
        values[:] = FILL

    _values(paths[-1], change)


def missing_month(paths):
    """A month without values."""

    def change(values, land):
        values[5] = FILL

    _values(paths[-1], change)


def partial_month(paths):
    """A month of which the greater part was lost."""

    def change(values, land):
        values[5, 10:] = FILL

    _values(paths[-1], change)


def nan_time(paths):
    """A time stamp that is not a number."""

    def change(dataset):
        stamps = dataset["time"].values.copy()
        stamps[3] = dataset["time_bnds"][3] = np.nan
        return dataset.assign_coords(time=dataset["time"].copy(data=stamps))

    _change(paths[-1], change)


def daily(paths):
    """Daily values, as of the table Eday."""

    def change(dataset):
        start = dataset["time_bnds"].values[0, 0]
        days = start + np.arange(dataset.sizes["time"], dtype=float)
        dataset["time_bnds"][:] = np.stack([days, days + 1], axis=1)
        return dataset.assign_coords(time=dataset["time"].copy(data=days + 0.5))

    _change(paths[-1], change)


def small_region(paths):
    """A crop that leaves out the north of the domain."""
    _change(paths[-1], lambda dataset: dataset.isel(lat=dataset["lat"].values < 40))


OTHERS = (
    end_in_2300,
    ocean_zero,
    julian_calendar,
    second_member,
    second_grid,
    conflict,
    gap,
    repeated_month,
    misnamed,
    odd_name,
    wrong_facets,
    curvilinear,
    unstructured,
    truncated,
    damaged_chunk,
    empty_file,
    web_page,
    wrong_variable,
    wrong_units,
    wrong_magnitude,
    all_missing,
    missing_month,
    partial_month,
    nan_time,
    daily,
    small_region,
)
DEFECTS = defects.DEFECTS | {defect.__name__: defect for defect in OTHERS}
