"""Defects of real files, planted in the polite files of the demo world.

Each function named in `smcore.config.DEFECTS` takes the files of one source, two of the historical
run and then one for each scenario, and spoils some of them as its docstring tells.
"""

import re

import cftime
import numpy as np
import xarray as xr

FILL = np.float32(1e20)  # over the ocean, in the files of the demo world


def plant(defect, paths):
    """Plant one of `smcore.config.DEFECTS` in the files of a source (list of Path)."""
    globals()[defect](paths)


def _read(path):
    """The dataset in a file, with the values as they are stored."""
    return xr.load_dataset(path, engine="netcdf4", decode_times=False, mask_and_scale=False)


def _write(dataset, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = {}
    for name, variable in dataset.variables.items():
        variable.encoding = {}
        encoding[name] = {} if "_FillValue" in variable.attrs else {"_FillValue": None}
        if variable.ndim == 3:
            encoding[name] |= {"zlib": True, "complevel": 1}
    dataset.to_netcdf(path, engine="netcdf4", encoding=encoding)


def _change(path, change):
    _write(change(_read(path)), path)


def _values(path, change):
    """Change the array of mrsos in place; `change` takes it and the mask of the land."""

    def apply(dataset):
        values = dataset["mrsos"].values
        change(values, values[0] < FILL / 2)
        return dataset

    _change(path, apply)


def _inland(dataset):
    """Position of a cell that is land in every source."""
    lat, lon = abs(dataset["lat"].values - 35), abs(dataset["lon"].values % 360 - 105)
    return lat.argmin(), lon.argmin()


def _period(path, first, last):
    """The same name with other months."""
    return path.with_name(re.sub(r"\d{6}-\d{6}", f"{first}-{last}", path.name))


def _months(path):
    return re.search(r"(\d{6})-(\d{6})", path.name).groups()


def late_start(paths):
    """The scenarios lack January of their first year, as those of NorESM2 and TaiESM1."""
    for path in paths[2:]:
        first, last = _months(path)
        _write(_read(path).isel(time=slice(1, None)), _period(path, f"{first[:4]}02", last))
        path.unlink()


def end_in_2300(paths):
    """A second file continues the last scenario to the year 2300, as of MRI-ESM2-0."""
    path = paths[-1]
    last = int(_months(path)[1][:4])
    year, parts = _read(path).isel(time=slice(-12, None)), []
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
    _write(joined, _period(path, f"{last + 1}01", "230012"))


def above_saturation(paths):
    """A soil that holds more water than it has volume, and a slightly negative value."""

    def change(dataset):
        y, x = _inland(dataset)
        dataset["mrsos"][:5, y, x], dataset["mrsos"][6, y, x] = 196.0, -0.002
        return dataset

    _change(paths[-1], change)


def undeclared_fill(paths):
    """9.97e36 over the ocean and -9999 on one land cell, and no attribute that says so."""

    def change(dataset):
        values = dataset["mrsos"].values
        y, x = _inland(dataset)
        values[values > FILL / 2] = 9.969209968386869e36
        values[:, y, x] = -9999
        for attribute in ("_FillValue", "missing_value"):
            dataset["mrsos"].attrs.pop(attribute, None)
        return dataset

    _change(paths[-1], change)


def ocean_zero(paths):
    """A residue of packing over the ocean where nothing should be."""

    def change(values, land):
        values[:, ~land] = 0.0015

    _values(paths[-1], change)


def wrong_depth(paths):
    """Depth bounds of another layer, as in the ACCESS models."""

    def change(dataset):
        dataset["depth_bnds"][:] = [0.0, 0.022]
        return dataset

    for path in paths:
        _change(path, change)


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


def other_institution(paths):
    """Another institution ran the scenarios, as for MPI-ESM1-2-HR."""
    for path in paths[2:]:
        to = path.parents[8] / "OTHER" / path.relative_to(path.parents[7])
        to.parent.mkdir(parents=True)
        path.rename(to)


def _drier_copy(path, to, **attributes):
    dataset = _read(path)
    values = dataset["mrsos"].values
    values[values < FILL / 2] *= 0.5
    _write(dataset.assign_attrs(attributes), to)


def second_member(paths):
    """Another member of the same run, with other values."""
    for path in paths:
        member = path.parents[4].name
        to = str(path).replace(member, "r9i1p1f1")
        _drier_copy(path, type(path)(to), variant_label="r9i1p1f1")


def second_grid(paths):
    """The same run on another grid of the centre's, with other values."""
    for path in paths:
        label = path.parents[1].name
        to = type(path)(str(path).replace(f"/{label}/", "/gr9/").replace(f"_{label}_", "_gr9_"))
        _drier_copy(path, to, grid_label="gr9")


def older_version(paths):
    """A version that the centre has replaced, with other values."""
    for path in paths:
        _drier_copy(path, path.parents[1] / "v20190101" / path.name)


def _prepend(paths, change):
    first, second = (_read(path) for path in paths[:2])
    tail = change(first.isel(time=slice(-12, None)))
    same = {"compat": "override", "coords": "minimal", "join": "override"}
    joined = xr.concat(
        [tail, second], "time", data_vars="minimal", combine_attrs="override", **same
    )
    year = int(_months(paths[1])[0][:4]) - 1
    _write(joined, _period(paths[1], f"{year}01", _months(paths[1])[1]))
    paths[1].unlink()


def overlap(paths):
    """The second historical file repeats the last year of the first."""
    _prepend(paths, lambda tail: tail)


def conflict(paths):
    """The second historical file has other values for the last year of the first."""

    def wetter(tail):
        values = tail["mrsos"].values
        values[values < FILL / 2] += 5
        return tail

    _prepend(paths, wetter)


def gap(paths):
    """The first historical file lacks its last year."""
    first, last = _months(paths[0])
    shorter = _read(paths[0]).isel(time=slice(None, -12))
    _write(shorter, _period(paths[0], first, f"{int(last[:4]) - 1}12"))
    paths[0].unlink()


def repeated_month(paths):
    """A month stands twice in a file."""
    steps = [0, 1, 2, 3, 3]
    _change(paths[-1], lambda d: d.isel(time=[*steps, *range(4, d.sizes["time"])]))


def misnamed(paths):
    """The months in a name are not those of the time axis."""
    paths[-1].rename(_period(paths[-1], "185001", "185012"))


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
