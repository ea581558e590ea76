"""Getting the archives: CMIP6 from the public cloud store or ESGF, and ERA5-Land.

Of the cloud store (`cloud`) the months and the box of a study are kept, in files as ESGF serves
them. What it lacks, `intake-esgf` may find. ERA5-Land is requested by `cds`.

    python -m smcore.acquire --profile paper --dry-run
"""

import argparse
import errno
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

import pandas as pd
from dask.utils import format_bytes

from smcore import cds, cloud, cmip6, native, store
from smcore.config import Study
from smcore.prepare import prepare
from smcore.progress import track

NAME = ["variable_id", "table_id", "source_id", "experiment_id", "variant_label", "grid_label"]
FOLDERS = ["activity_id", "institution_id", *NAME[2:5], "table_id", "variable_id", "grid_label"]
FIXED = ("orog", "sftlf")  # altitude of the surface and land fraction, of table fx
WORLD = [-90, 90, -180, 180]  # south, north, west, east
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Series:
    """What is whole or absent: a series or a fixed field of CMIP6, some years of ERA5-Land."""

    source: str
    part: str
    where: str
    size: int  # bytes that are kept at most, not compressed
    fetch: Callable  # leaves files, or gives a function that does once the server has made them


@dataclass
class Plan:
    """What a study needs, as far as it is not there yet, and where it is."""

    study: Study
    series: list = field(default_factory=list)
    missing: dict = field(default_factory=dict)  # (source_id, experiment_id): reason
    notes: list = field(default_factory=list)

    def describe(self):
        """What is to come, in lines for a terminal: a table, the total, and what to know."""
        licence, lines = self.study.models["licence"], []
        if self.series:
            table = pd.DataFrame(self.series).drop(columns="fetch")
            table["size"] = ["< " + format_bytes(size) for size in table["size"]]
            table["licence"] = [licence.get(source, "CC BY 4.0") for source in table["source"]]
            lines = [table.to_string(index=False)]
        total = format_bytes(sum(series.size for series in self.series))
        return "\n".join([*lines, f"{len(self.series)} to come, less than {total}", *self.notes])

    def describe_missing(self):
        """Lines that name the series which the archive lacks, and models that could stand in."""
        lines = [f"{' '.join(key)}: {reason}" for key, reason in self.missing.items()]
        table = pd.read_csv(self.study.model_table, keep_default_na=False).set_index("source_id")
        spare = table[(table["default25"] == "reserve") & ~table.index.isin(self.study.sources)]
        for source_id in dict(self.missing.keys()):
            kin = spare["family"] == table.loc[source_id, "family"]
            names = [f"{name} (same family)" for name in spare.index[kin]] + [*spare.index[~kin]]
            names = ", ".join(names) or "none is left"
            lines.append(f"in reserve for {source_id}, to be named in `sources`: {names}")
        return lines


class Unfinished(RuntimeError):
    """Something could not be fetched; the message says what, why and what to do."""


def plan(study, *, archive="cloud"):
    """Find out what a study still needs, where it is and how large.

    Parameters
    ----------
    study : Study
        A study on the real archives.
    archive : {"cloud", "esgf"}
        Where CMIP6 comes from: the public cloud store, or the Earth System Grid Federation.

    Returns
    -------
    Plan
        The series, of the member and grid that the model table names, whose months are not there
        yet, in the newest version or the one that the profile names; and what the archive lacks.

    Raises
    ------
    ConnectionError
        If the catalogue does not answer.
    ValueError
        If the study's archive is a demo world.
    """
    if study.synthetic:
        raise ValueError(f"profile {study.name} is a demo world: there is nothing to fetch")
    found, experiments = Plan(study), ("historical", *study.experiments)
    host = urlsplit(cds.SERVICE).netloc
    found.series += [Series("ERA5-Land", name, host, *rest) for name, *rest in cds.pieces(study)]
    keys = [(source_id, name) for source_id in study.sources for name in experiments]
    try:
        files = cmip6.find_sources(study.cmip6_directory)
        wanted = [key for key in keys if _gap(study, key, _months(study, key, files))]
    except FileNotFoundError:
        wanted = keys
    if len(wanted) < len(keys):
        found.notes.append(f"{len(keys) - len(wanted)} of {len(keys)} series are there already")
    if wanted:
        {"cloud": _plan_cloud, "esgf": _plan_esgf}[archive](found, wanted)
    return found


def _facets(study, source_id, experiment_id):
    """The member, the grid and, where the profile names one, the version of a series."""
    return {
        "variant_label": study.variant_label(source_id, experiment_id),
        "grid_label": study.models.loc[source_id, "grid_label"],
        "version": study.versions.get(source_id, {}).get(experiment_id),
    }


def _months(study, key, files):
    """Months of a series by the names of those of its files that are whole and large enough."""
    months = pd.DatetimeIndex([])
    try:
        rows = cmip6.select_files(files, *key, **_facets(study, *key))
    except native.Problem:
        return months
    for row in rows[rows["first"] != ""].itertuples():
        if store.recorded(row.path) is None or _serves(row.path, study):  # else the user's own
            first, last = (f"{month[:4]}-{month[4:]}" for month in (row.first, row.last))
            months = months.union(pd.date_range(first, last, freq="MS"))
    return months


def _gap(study, key, months):
    """Which months of the study a series lacks, in words; empty where the study can do without."""
    wanted = native.month_range(study.period(key[1]))
    lacking = wanted.difference(months)
    fillable = cmip6.fillable(lacking, wanted)
    if lacking.empty or (fillable and study.missing_first_month == "climatology"):
        return ""
    hint = "; `missing_first_month` in the profile can fill it" if fillable else ""
    return f"lacks {native.shown(lacking)}{hint}"


def _box(study):
    """What of the world is kept: the domain and what its regridding may need around it."""
    domain, margin = study.domain, cmip6.MARGIN
    west, east = domain.west - margin, domain.east + margin
    # Beyond the date line all longitudes are kept, as the reader does.
    around = WORLD[2:] if west < -180 or east > 180 else [west, east]
    return [max(domain.south - margin, -90), min(domain.north + margin, 90), *around]


def _serves(path, study):
    """Whether a file that was fetched is whole, and cut to the box of the study or not at all."""
    boxes = (_box(study), WORLD)
    return store.whole(path) and store.recorded(path)["recipe"]["settings"]["box"] in boxes


def _forget_others(paths):
    """Remove what was fetched beside these files for another box or period."""
    for other in set(paths[0].parent.glob("*.nc")).difference(paths):
        if store.recorded(other):  # else it is the user's own
            other.unlink()
            other.with_name(f".{other.name}.made").unlink()


def _plan_cloud(found, wanted):
    """Add the series of the cloud store to a plan, and the fixed fields of their sources."""
    study, table = found.study, cloud.catalogue(found.study.sources)
    series = table[(table["table_id"] == "Lmon") & (table["variable_id"] == "mrsos")]
    for key in track(wanted, "asking the cloud store"):
        facets = _facets(study, *key)
        try:
            _add_store(found, key, cmip6.select_files(series, *key, **facets).iloc[-1])
        except native.Problem:
            what = ", ".join(filter(None, facets.values()))
            found.missing[key] = f"not in the cloud store as {what}; `--from esgf` may have it"
        except cloud.BROKEN as error:
            found.missing[key] = f"the cloud store: {_reason(error)}; `--from esgf` may have more"
    # Any run has the fixed fields: rather that of the past, where there is one.
    table = table.sort_values("experiment_id", key=lambda one: one == "historical", kind="stable")
    for source_id, name in ((source_id, name) for source_id in dict(wanted) for name in FIXED):
        grid_label = study.models.loc[source_id, "grid_label"]
        here = table[(table["source_id"] == source_id) & (table["grid_label"] == grid_label)]
        for _, row in here[here["variable_id"] == name][-1:].iterrows():
            try:
                _add_store(found, (source_id, name), row)
            except cloud.BROKEN as error:
                found.notes.append(f"{source_id} {name} is left out: {_reason(error)}")
    # The slow queue first; fixed fields before the series, which leave no reason to ask for them.
    found.series.sort(key=lambda one: (one.source != "ERA5-Land", one.part not in FIXED))


def _add_store(found, key, row):
    """Add a series of the cloud store, or a fixed field, to a plan."""
    study, name = found.study, row["variable_id"]
    dataset, stem = cloud.open_group(row["zstore"]), "_".join(row[NAME])
    if name not in FIXED:
        months = cmip6.months_held(dataset)
        inside = months.isin(native.month_range(study.period(key[1])))
        if gap := _gap(study, key, months[inside]):
            raise ValueError(gap)
        dataset, months = dataset.isel(time=inside), months[inside]
        stem += f"_{months.min():%Y%m}-{months.max():%Y%m}"
    south, north, west, east = _box(study)
    for axis, low, high in (("lat", south, north), ("lon", west, east)):
        if axis in dataset.indexes:  # other grids stay whole
            degrees = (dataset[axis].values + 180) % 360 - 180 if axis == "lon" else dataset[axis]
            dataset = dataset.isel({axis: (degrees >= low) & (degrees <= high)})
    path = study.cmip6_directory.joinpath(*row[FOLDERS], row["version"], f"{stem}.nc")
    if name in FIXED and _serves(path, study):
        return
    made = store.recipe(settings={"origin": row["zstore"], "box": _box(study)})
    fetch = partial(_fetch_store, dataset, name, path, made)
    found.series.append(Series(*key, urlsplit(cloud.SERVICE).netloc, 4 * dataset[name].size, fetch))


def _fetch_store(dataset, name, path, made):
    """Read what is kept of a store, and write it as ESGF would serve it."""
    dataset = dataset.load()
    if name not in FIXED:  # a block that the server lacks reads as one without values
        empty = ~(dataset[name] > 0).any([dim for dim in dataset[name].dims if dim != "time"])
        if empty.any():
            months = native.shown(cmip6.months_held(dataset)[empty.values])
            raise ValueError(f"the store has no value in {months}; `--from esgf` may have them")
    words = [one for one, values in dataset.variables.items() if values.dtype.kind in "OSUT"]
    origin = f"months and box of a study, cut by smcore from {made['settings']['origin']}"
    dataset.attrs["history"] = f"{dataset.attrs.get('history', '')}\n{origin}".strip()
    store.write_dataset(dataset.drop_vars(words).drop_encoding(), path, made)
    _forget_others([path])


def _plan_esgf(found, wanted):
    """Add the series of ESGF to a plan; index, replicas and checksums are those of intake-esgf."""
    import intake_esgf  # here, because it makes folders in the home of a user
    from globus_sdk import GlobusError
    from intake_esgf.exceptions import NoSearchResults

    study = found.study
    beside = study.cmip6_directory.with_name(f".{study.cmip6_directory.name}.esgf")
    options = {"local_cache": [str(beside)], "esg_dataroot": [], "break_on_error": False}
    intake_esgf.conf.set(**options, additional_df_cols=["size"])
    for key in track(wanted, "asking ESGF"):
        facets, catalog = _facets(study, *key), intake_esgf.ESGFCatalog()
        first, last = study.period(key[1])
        search = {"table_id": "Lmon", "variable_id": "mrsos", "file_start": first}
        search |= {"source_id": key[0], "experiment_id": key[1], "file_end": f"{last}-12"}
        search |= {"member_id": facets["variant_label"], "grid_label": facets["grid_label"]}
        if facets["version"]:
            search |= {"version": facets["version"][1:], "latest": [True, False]}
        try:
            # It puts lists into columns of words, which those of pandas 3 do not take.
            with warnings.catch_warnings(action="ignore"):
                warnings.filterwarnings("error", message=".*failed to return a response")
                with pd.option_context("future.infer_string", False):
                    catalog.search(quiet=True, **search)
        except NoSearchResults:
            found.missing[key] = f"not at ESGF as {', '.join(filter(None, facets.values()))}"
            continue
        except (GlobusError, UserWarning) as error:
            text = f"ESGF cannot be searched: {_reason(error)}; try again later, nothing is lost"
            raise ConnectionError(text) from None
        (row,) = catalog.df.to_dict("records")
        hosts = ", ".join(sorted({one.rpartition("|")[2] for one in row["id"]}))
        fetch = partial(_fetch_dataset, study, key, catalog, hosts)
        found.series.append(Series(*key, hosts, int(row.get("size", 0)), fetch))


def _fetch_dataset(study, key, catalog, hosts):
    """Fetch the files of a series beside the archive, and move them there once all are right."""
    (beside,) = catalog.local_cache
    catalog.to_path_dict(quiet=True)
    for part in beside.glob("**/*.nc?*"):  # what failed, or was stopped before
        part.unlink()
    files = cmip6.find_sources(beside)
    if gap := _gap(study, key, _months(study, key, files)):
        raise ValueError(f"what could be fetched from {hosts} {gap}")
    made, moved = store.recipe(settings={"origin": hosts, "box": WORLD}), []
    for path in cmip6.select_files(files, *key, **_facets(study, *key))["path"]:
        # There it lies below CMIP6, in the folders of the archive.
        moved.append(study.cmip6_directory.joinpath(*path.relative_to(beside).parts[1:]))
        with store.keeping(moved[-1], made) as part:
            shutil.move(path, part)
    _forget_others(moved)


def download(plan):
    """Fetch what a plan names.

    A call that was stopped goes on with the next plan: a series is whole or absent.

    Parameters
    ----------
    plan : Plan
        From `plan`.

    Raises
    ------
    Unfinished
        If the disk is or would get full: at once. If something could not be fetched: after all
        the rest, with the reasons.
    """
    top, land = plan.study.cmip6_directory, plan.study.era5land_directory
    needed, failures, later = Counter(), [], []
    for folder in (top, land):
        folder.mkdir(parents=True, exist_ok=True)
    for one in plan.series:  # folders on one disk count together
        needed[(land if one.source == "ERA5-Land" else top).stat().st_dev] += one.size
    for folder in (top, land):
        if (coming := needed[folder.stat().st_dev]) > shutil.disk_usage(folder).free:
            raise Unfinished(_no_room(folder, coming))
    # ecmwf.datastores warns of what it then goes on without, in words that may hold the key.
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        for one in track(plan.series, "series"):
            with _noting(failures, f"{one.source} {one.part}", top):
                later.append((one, one.fetch()))
        for one, receive in track([pair for pair in later if pair[1]], "files of ERA5-Land"):
            with _noting(failures, f"{one.source} {one.part}", land):
                receive()
    if failures:
        lines = "".join(f"\n  - {failure}" for failure in failures)
        raise Unfinished(f"{len(failures)} could not be fetched; run again to retry:{lines}")


@contextmanager
def _noting(failures, name, folder):
    """Go on behind what fails, and note the reason; a full disk ends the run."""
    try:
        yield
    except cloud.BROKEN as error:
        if getattr(error, "errno", None) in FULL or shutil.disk_usage(folder).free < 1e6:
            raise Unfinished(_no_room(folder, 0)) from None
        failures.append(f"{name}: {_reason(error)}")


def _reason(error):
    """An error in words, with its kind where these alone say little."""
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"


def _no_room(folder, needed):
    free = shutil.disk_usage(folder).free
    coming = f"{format_bytes(needed)} ({needed} bytes) are still to come, " if needed else ""
    text = f"the disk of {folder} is too small: {coming}{format_bytes(free)} ({free} bytes) are "
    text += "free. Make room, or name another folder in the profile (`cmip6_directory`, "
    return text + "`era5land_directory`), and run again: it goes on from here"


def main(argv=None):
    """Show what a profile needs, fetch it, and prepare it."""
    parser = argparse.ArgumentParser(prog="python -m smcore.acquire", description=main.__doc__)
    parser.add_argument("--profile", default="paper", help="name, or path of a .yml file")
    parser.add_argument("--from", dest="archive", default="cloud", choices=["cloud", "esgf"])
    parser.add_argument("--dry-run", action="store_true", help="only show what would be fetched")
    parser.add_argument("--no-prepare", action="store_true", help="fetch only")
    options, problems = parser.parse_args(argv), []
    try:
        study = Study.load(options.profile)
        if study.synthetic:
            print(f"Profile {study.name} is a demo world, which chapter 1 makes: nothing to fetch.")
            return 2
        needed = plan(study, archive=options.archive)
        print(needed.describe())
        if not options.dry_run:
            try:
                download(needed)
            except Unfinished as error:
                problems.append(str(error))
        if needed.missing:
            problems.append("\n  - ".join(["missing:", *needed.describe_missing()]))
        if not (problems or options.dry_run or options.no_prepare):
            prepare(study)
    except KeyboardInterrupt:
        problems = ["stopped. Run the same command again: it goes on with what is missing"]
    except (OSError, ValueError) as error:
        problems = [str(error)]
    if problems:
        print("error:", "\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
