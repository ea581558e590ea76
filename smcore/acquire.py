"""Getting the archives: CMIP6 from ESGF, ERA5-Land from the Climate Data Store (CDS).

ESGF is asked over its plain search API with requests. The index of the United States answers
at a bridge in the form of the older Solr index, which the European nodes still have: one
request serves both, and it keeps retries, replicas and the choice of a node in our hands. Each
facet gets one value, and neither ``fields`` nor ``distrib`` is sent, because the bridge knows
none of that. CMIP6 data need no account. The CDS needs one: its key is where `cdsapi` looks for
it, and appears in no message.

    python -m smcore.acquire --profile paper --dry-run
"""

import argparse
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import cdsapi
import pandas as pd
import requests
from cdsapi.api import get_url_key_verify
from ecmwf.datastores.processing import LinkError, ProcessingFailedError

from smcore.cmip6 import FILE_NAME
from smcore.config import Study
from smcore.era5land import LAYERS, open_invariant
from smcore.grids import uncovered
from smcore.prepare import prepare
from smcore.progress import duration, report, track
from smcore.store import write_json

INDEX_NODES = (  # asked in this order, until a series is complete
    "https://esgf-node.ornl.gov/esgf-1-5-bridge",
    "https://esgf-data.dkrz.de/esg-search/search",
    "https://esgf.ceda.ac.uk/esg-search/search",
    "https://esgf-node.ipsl.upmc.fr/esg-search/search",
)
PAGE = 500  # records per answer; the bridge answers no further than record 10,000

TIMEOUT = (10, 30)  # seconds to connect, and between two pieces of an answer
ATTEMPTS = 4  # per address
BACKOFF = 2.0  # seconds before the second attempt; doubles with each one
LONGEST_WAIT = 300.0  # seconds; a server that asks for more counts as out of order
FILES = 4  # transfers at once
FILES_PER_NODE = 2
CHUNK = 2**16  # bytes; what a broken connection can lose
INTERVAL = 5.0  # seconds between two lines on the progress

DATASET = "reanalysis-era5-land-monthly-means"
DATASET_PAGE = f"https://cds.climate.copernicus.eu/datasets/{DATASET}?tab=download"
DOCUMENTATION = "https://confluence.ecmwf.int/display/CKB/ERA5-Land%3A+data+documentation"
VARIABLES = {"swvl1": "volumetric_soil_water_layer_1", "swvl2": "volumetric_soil_water_layer_2"}
YEARS = 10  # in a request: 120 fields, where the CDS has allowed 1000
MARGIN = 1.0  # degrees around the domain
INVARIANT = "era5land_invariant"  # land mask and geopotential: how their file's name begins
REQUESTS = 2  # at the CDS at once
POLL = (2.0, 60.0)  # seconds between two looks at a request in the queue: at first, and at most

MANIFEST = "acquired.json"  # size, time and checksum of the files that were verified
ALGORITHMS = ("sha256", "md5")
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another attempt
BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
# What cdsapi raises when an answer is no JSON, or not with the fields that it takes for granted.
ODD = (requests.JSONDecodeError, LinkError, AssertionError, AttributeError, KeyError, TypeError)
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class File:
    """A file of an archive and where its copies lie."""

    path: str  # below the archive's directory
    size: int  # bytes
    algorithm: str  # md5 or sha256
    checksum: str  # hexadecimal digits; empty where the archive gives none
    urls: tuple


@dataclass(frozen=True)
class Request:
    """A request to the Climate Data Store."""

    stem: str  # of the file's name; its ending follows from what comes
    inputs: dict
    size: int  # bytes, an estimate: single precision, not compressed


@dataclass
class Plan:
    """What a study needs and where it is."""

    study: Study
    series: dict = field(default_factory=dict)  # (source_id, experiment_id): list of File
    missing: dict = field(default_factory=dict)  # (source_id, experiment_id): reason
    notes: list = field(default_factory=list)
    requests: list = field(default_factory=list)  # those whose file is not there yet

    @property
    def files(self):
        """All CMIP6 files."""
        return [file for files in self.series.values() for file in files]

    def describe(self):
        """What is needed, in lines for a terminal: a table, the total, and what to know."""
        rows = [
            (
                *key,
                len(files),
                _bytes(sum(file.size for file in files)),
                self.study.models.loc[key[0], "licence"],
                ", ".join(sorted({_node(url) for file in files for url in file.urls})),
            )
            for key, files in self.series.items()
        ]
        rows += [
            (
                "ERA5-Land",
                request.stem,
                1,
                f"< {_bytes(request.size)}",
                "CC BY",
                _node(DATASET_PAGE),
            )
            for request in self.requests
        ]
        columns = ["source", "experiment", "files", "size", "licence", "nodes"]
        size = sum(file.size for file in self.files)
        return "\n".join(
            [
                pd.DataFrame(rows, columns=columns).to_string(index=False),
                f"CMIP6: {len(self.files)} files, {_bytes(size)}. ERA5-Land: {len(self.requests)} "
                f"files still to come, at most {_bytes(sum(r.size for r in self.requests))}.",
                *self.notes,
            ]
        )

    def describe_missing(self):
        """Lines that name the series which ESGF lacks, and the models that could stand in."""
        lines = [
            f"{source_id} {experiment_id}: {reason}"
            for (source_id, experiment_id), reason in self.missing.items()
        ]
        for source_id in dict.fromkeys(source_id for source_id, _ in self.missing):
            names = ", ".join(_reserves(self.study, source_id)) or "none is left"
            lines.append(f"in reserve for {source_id}, to be named in `sources`: {names}")
        return lines


class Unfinished(RuntimeError):
    """Something could not be fetched; the message says what, why and what to do."""


class _Trouble(Exception):
    """A failure that another attempt may mend."""

    def __init__(self, reason, after=None):
        super().__init__(reason)
        self.after = after  # seconds that the server asks to wait


class _Refused(Exception):
    """A failure that another attempt will not mend."""


class _Stopped(Exception):
    """The run is to end."""


def plan(study):
    """Find out which files a study needs, where they are and how large.

    Parameters
    ----------
    study : Study
        A study on the real archives.

    Returns
    -------
    Plan
        For each source and experiment the member and grid that the model table names, in the
        newest version or the one that the profile names, limited to files that overlap the
        study's period; and the requests for ERA5-Land whose file is not there yet.

    Raises
    ------
    ConnectionError
        If no index node of ESGF answers.
    ValueError
        If the study's archive is a demo world.
    """
    if study.synthetic:
        raise ValueError(f"profile {study.name} is a demo world: there is nothing to fetch")
    found = Plan(study, requests=_requests(study))
    silent = {}  # index nodes that do not answer, and why
    keys = [
        (source, name) for source in study.sources for name in ("historical", *study.experiments)
    ]
    stop = threading.Event()
    with ThreadPoolExecutor(FILES) as pool:
        try:
            answers = pool.map(lambda key: _find(study, *key, silent, stop), keys)
            for key, files in zip(keys, track(answers, "asking ESGF", len(keys))):
                _add_series(found, *key, files)
        finally:  # after Ctrl-C, for one, the searches that are still to come are not made
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    found.notes += [f"{node} could not be asked: {reason}" for node, reason in silent.items()]
    return found


def _add_series(found, source_id, experiment_id, files):
    """Put the files of a series into a plan, and what is missing or worth a note."""
    study, key = found.study, (source_id, experiment_id)
    if not files:
        grid = study.models.loc[source_id, "grid_label"]
        version = study.versions.get(source_id, {}).get(experiment_id)
        found.missing[key] = f"not at ESGF as member {study.variant_label(*key)} on grid {grid}"
        found.missing[key] += f", version {version}" if version else ""
        return
    found.series[key] = files
    period = study.period(experiment_id)
    lacking = _months_lacking(files, period)
    if not lacking:
        return
    # Each run of months by its first and, if there is another, its last one.
    starts = [month for month in lacking if month - 1 not in lacking]
    ends = [month for month in lacking if month + 1 not in lacking]
    runs = [f"{a}" if a == b else f"{a} to {b}" for a, b in zip(starts, ends)]
    reason = f"ESGF lacks {', '.join(runs)}"
    if runs != [f"{period[0]}-01"]:
        found.missing[key] = reason
    elif study.missing_first_month == "climatology":
        found.notes.append(f"{source_id} {experiment_id}: {reason}")
    else:
        found.missing[key] = f"{reason}; `missing_first_month` in the profile can fill it"


def _find(study, source_id, experiment_id, silent, stop):
    """The files of one series within the study's period, of one version."""
    facets = {
        "source_id": source_id,
        "experiment_id": experiment_id,
        "variant_label": study.variant_label(source_id, experiment_id),
        "table_id": "Lmon",
        "variable_id": "mrsos",
        "grid_label": study.models.loc[source_id, "grid_label"],
    }
    period = study.period(experiment_id)
    version = study.versions.get(source_id, {}).get(experiment_id)
    if version is None:
        facets["latest"] = "true"
    records, files = [], []
    for node in INDEX_NODES:
        if node in silent:
            continue
        try:
            records += _search(node, facets, stop)
        except (_Trouble, _Refused) as error:
            silent[node] = str(error)
            continue
        files = _one_version(records, facets, period, version)
        if files and not _months_lacking(files, period):
            break
    if len(silent) == len(INDEX_NODES):
        lines = "\n".join(f"  - {node}: {reason}" for node, reason in silent.items())
        raise ConnectionError(
            f"no search node of ESGF answers; try again later, nothing is lost:\n{lines}"
        )
    return files


def _search(node, facets, stop):
    """All file records that match, page by page."""
    parameters = {"project": "CMIP6", "type": "File", "limit": PAGE} | facets
    parameters["format"] = "application/solr+json"
    records, total = [], None
    while total is None or len(records) < total:
        parameters["offset"] = len(records)
        answer = _persist(lambda: _get(node, params=parameters), stop)
        try:
            page = answer.json()["response"]
            total, documents = int(page["numFound"]), list(page["docs"])
        except (KeyError, TypeError, ValueError):
            kind = answer.headers.get("Content-Type", "unknown type")
            raise _Refused(f"its answer ({kind}) is not that of an ESGF search") from None
        if not documents:
            break
        records += documents
    return records


def _one_version(records, facets, period, version):
    """Files that overlap the period, of a version or else the newest, with all their copies."""
    # The record's own `version` counts issues of the file; the data set's is in its name.
    order = ("source_id", "experiment_id", "variant_label", "table_id", "variable_id", "grid_label")
    parts = ["CMIP6", r"[\w-]+", r"[\w-]+", *(re.escape(facets[key]) for key in order)]
    dataset_id = re.compile(r"\.".join([*parts, r"(?P<version>v\d+)"]))
    copies = defaultdict(list)
    for record in records:
        record = record if isinstance(record, dict) else {}
        dataset = dataset_id.fullmatch(_text(record.get("dataset_id")).partition("|")[0])
        title = FILE_NAME.fullmatch(_text(record.get("title")))
        url = _http_url(record)
        size, checksum = _text(record.get("size")), _text(record.get("checksum")).lower()
        algorithm = _text(record.get("checksum_type")).lower()
        described = re.fullmatch("[1-9][0-9]*", size) and re.fullmatch("[0-9a-f]+", checksum)
        if not (dataset and title and url and described and algorithm in ALGORITHMS):
            continue  # malformed, or of another kind
        retracted = _text(record.get("retracted")) == "True"
        if retracted or any(title[key] != facets[key] for key in order):
            continue
        if title["last"] < f"{period[0]}01" or title["first"] > f"{period[1]}12":
            continue
        path = "/".join([*dataset.group().split(".")[1:], title.group()])
        identity = (int(size), algorithm, checksum)
        replica = _text(record.get("replica")) != "False"
        copies[dataset["version"], path].append((replica, url, identity))
    version = version or max((version for version, _ in copies), default=None)
    files = []
    for (found_version, path), found in sorted(copies.items()):
        if found_version == version:
            # The original says what the file is; a replica that differs from it is left out.
            found.sort()
            identity = found[0][2]
            urls = [url for _, url, other in found if other == identity]
            files.append(File(path, *identity, tuple(dict.fromkeys(urls))))
    return files


def _text(value):
    """A field of a record, which an index may give in a list, as text."""
    return str((value[0] if value else None) if isinstance(value, list) else value)


def _http_url(record):
    for entry in record.get("url") or []:
        url, _, service = str(entry).partition("|")
        if service.endswith("|HTTPServer") and re.match(r"https?://[\w.:-]+/", url):
            return url
    return None


def _months_lacking(files, period):
    """Months of the period that no file's name covers."""
    spans = [FILE_NAME.fullmatch(Path(file.path).name).group("first", "last") for file in files]
    return [
        month
        for month in pd.period_range(f"{period[0]}-01", f"{period[1]}-12", freq="M")
        if not any(first <= f"{month:%Y%m}" <= last for first, last in spans)
    ]


def _reserves(study, source_id):
    """Models in reserve, those of the same family first."""
    table = pd.read_csv(study.model_table, keep_default_na=False).set_index("source_id")
    spare = table[(table["default25"] == "reserve") & ~table.index.isin(study.sources)]
    kin = spare["family"] == table.loc[source_id, "family"]
    return [f"{name} (same family)" for name in spare.index[kin]] + list(spare.index[~kin])


def _requests(study):
    """Requests for ERA5-Land, one per variable and `YEARS` years, but for what is there."""
    folder, domain = study.era5land_directory, study.domain
    north, south = min(domain.north + MARGIN, 90.0), max(domain.south - MARGIN, -90.0)
    west, east = domain.west - MARGIN, domain.east + MARGIN
    cells = (north - south) * (east - west) / 0.1**2
    area = f"lat{south:g}to{north:g}_lon{west:g}to{east:g}"  # another domain is another file

    def request(name, variables, years, months):
        inputs = {
            "product_type": ["monthly_averaged_reanalysis"],
            "variable": variables,
            "year": [str(year) for year in years],
            "month": [f"{month:02d}" for month in months],
            "time": ["00:00"],
            "data_format": "netcdf",
            "download_format": "unarchived",
            "area": [north, west, south, east],
        }
        size = int(4 * cells * len(variables) * len(years) * len(months))
        return Request(f"{name}_{area}", inputs, size)

    first, last = (int(year) for year in study.periods.historical)
    decades = [range(year, min(year + YEARS, last + 1)) for year in range(first, last + 1, YEARS)]
    requests = [
        request(f"era5land_{layer}_{years[0]}-{years[-1]}", [VARIABLES[layer]], years, range(1, 13))
        for layer in LAYERS[study.depth]
        for years in decades
    ]
    if not _has_invariant(study):
        requests.append(request(INVARIANT, ["land_sea_mask", "geopotential"], [last], [1]))
    return [
        request
        for request in requests
        if not any((folder / f"{request.stem}{ending}").exists() for ending in (".nc", ".zip"))
    ]


def _has_invariant(study):
    """Whether land mask and geopotential are there, whatever their files are called."""
    try:
        return not uncovered(open_invariant(study.era5land_directory), study.domain)
    except (OSError, ValueError):
        return False


class _Run:
    """What the transfers of one run share."""

    def __init__(self, expected):
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.expected = expected  # bytes
        self.received = 0
        self.start = time.monotonic()
        self.slots = defaultdict(lambda: threading.BoundedSemaphore(FILES_PER_NODE))
        self.active, self.failures = Counter(), Counter()  # by node

    @contextmanager
    def best(self, urls):
        """The address whose node has failed least and is least busy; it counts as busy."""
        with self.lock:
            url = min(urls, key=lambda url: (self.failures[_node(url)], self.active[_node(url)]))
            self.active[_node(url)] += 1
        try:
            yield url
        finally:
            with self.lock:
                self.active[_node(url)] -= 1

    @contextmanager
    def slot(self, url):
        """A place in the queue of a node, held during a transfer."""
        with self.lock:
            place = self.slots[_node(url)]
        with place:
            if self.stop.is_set():
                raise _Stopped
            yield

    def line(self, done, total):
        """How far the run has come."""
        rate = self.received / max(time.monotonic() - self.start, 1e-3)
        left = f", {duration((self.expected - self.received) / rate)} left" if rate else ""
        return (
            f"{done} of {total} files, {_bytes(self.received)} of {_bytes(self.expected)}, "
            f"{_bytes(rate)}/s{left}"
        )


def download(plan):
    """Fetch what a plan names and what is not there yet.

    Files arrive under a temporary name and take their own once size and checksum are right.
    An interrupted call goes on with the next one, from the byte where it stopped.

    Parameters
    ----------
    plan : Plan
        From `plan`.

    Raises
    ------
    Unfinished
        If the disk is or would get full: at once. If files could not be fetched: after all
        others, with each file, the addresses tried and the reasons.
    """
    top, land = plan.study.cmip6_directory, plan.study.era5land_directory
    for folder in (top, land):
        folder.mkdir(parents=True, exist_ok=True)
    verified = _Verified(top)
    files = [file for file in track(plan.files, "checking files") if not verified.has(file)]
    to_come = sum(file.size - _size(_part(top / file.path)) for file in files)
    _check_space({top: to_come, land: sum(request.size for request in plan.requests)})

    run = _Run(to_come)
    failures, credentials = [], None
    if plan.requests:
        try:
            credentials = _cds_credentials()
        except _Refused as error:
            failures.append(f"ERA5-Land: {error}")
    with (
        # ecmwf.datastores warns of what it then goes on without, in words that may hold the key.
        warnings.catch_warnings(action="ignore", category=UserWarning),
        ThreadPoolExecutor(FILES) as pool,
        ThreadPoolExecutor(REQUESTS) as queue,
    ):
        try:
            tasks = {pool.submit(_fetch, file, verified, run): file.path for file in files}
            for request in plan.requests if credentials else ():
                tasks[queue.submit(_retrieve, request, land, credentials, run)] = request.stem
            _follow(tasks, run, failures)
        except KeyboardInterrupt:
            report(f"stopping; a server that does not answer holds this up for {sum(TIMEOUT)} s")
            raise
        finally:
            run.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            queue.shutdown(wait=False, cancel_futures=True)
    if failures:
        lines = "\n".join(f"  - {failure}" for failure in failures)
        raise Unfinished(f"{len(failures)} could not be fetched; run again to retry:\n{lines}")


def _follow(tasks, run, failures):
    """Wait for all tasks; a refused file lets the others go on, any other error ends the run."""
    pending, shown = set(tasks), time.monotonic()
    while pending:
        finished, pending = wait(pending, timeout=INTERVAL, return_when=FIRST_COMPLETED)
        for task in finished:
            try:
                task.result()
            except (_Refused, _Trouble) as error:
                failures.append(f"{tasks[task]}: {error}")
            except _Stopped:
                pass  # another task says why
        if time.monotonic() - shown >= INTERVAL or not pending:
            shown = time.monotonic()
            report(run.line(len(tasks) - len(pending), len(tasks)))


class _Verified:
    """The files that were found right, so that not all are read again on every call."""

    def __init__(self, top):
        self.top, self.lock = top, threading.Lock()
        self.path = top / MANIFEST
        try:
            self.entries = dict(json.loads(self.path.read_text()))
        except (FileNotFoundError, TypeError, ValueError):  # without a list all is read again
            self.entries = {}

    def has(self, file):
        target = self.top / file.path
        if _size(target) != file.size:
            return False
        if self.entries.get(file.path) == self._entry(file):
            return True
        if _digest(target, file.algorithm) != file.checksum:
            return False
        self.add(file)
        return True

    def add(self, file):
        with self.lock:
            self.entries[file.path] = self._entry(file)
            write_json(self.entries, self.path)

    def _entry(self, file):
        status = (self.top / file.path).stat()
        return {"size": status.st_size, "modified": status.st_mtime_ns, "checksum": file.checksum}


def _check_space(to_come):
    """Refuse to start what cannot end; folders on one disk count together."""
    needed = Counter()
    for folder, size in to_come.items():
        device = os.stat(folder).st_dev
        needed[device] += size
        free = shutil.disk_usage(folder).free
        if needed[device] > free:
            raise Unfinished(_no_room(folder, needed[device], free))


def _no_room(folder, needed, free):
    return (
        f"the disk of {folder} is too small: {_bytes(needed)} ({needed} bytes) are still to come, "
        f"{_bytes(free)} ({free} bytes) are free. Make room, or name another folder in the "
        "profile (`cmip6_directory`, `era5land_directory`), and run again: it goes on from here"
    )


@contextmanager
def _disk(folder, run):
    """Turn a full disk into the end of the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        run.stop.set()
        free = shutil.disk_usage(folder).free
        raise Unfinished(_no_room(folder, run.expected - run.received, free)) from None


def _fetch(file, verified, run):
    """One CMIP6 file, from the first of its addresses that has it right."""
    target = verified.top / file.path
    with _disk(verified.top, run):
        target.parent.mkdir(parents=True, exist_ok=True)
        urls, reasons = list(file.urls), []
        while urls:
            with run.best(urls) as url:
                urls.remove(url)
                try:
                    _copy(url, file, _part(target), run)
                except (_Trouble, _Refused) as error:
                    run.failures[_node(url)] += 1
                    reasons.append(f"\n      {url}: {error}")
                    continue
            _finish(_part(target), target)
            verified.add(file)
            return
    raise _Refused("".join(reasons))


def _copy(url, file, part, run):
    """A complete copy under its temporary name, with the checksum that it should have."""
    for resumed in [True, False] if part.exists() else [False]:
        _persist(lambda: _transfer(url, file, part, run), run.stop)
        if not file.checksum or _digest(part, file.algorithm) == file.checksum:
            return
        _discard(part, run)
        if not resumed:
            raise _Refused(f"its {file.algorithm} is not that of the archive")
        # The bytes of an earlier attempt may be to blame: once more, from the first one.


def _transfer(url, file, part, run):
    """Append to the temporary file what it lacks."""
    if _size(part) > file.size:
        _discard(part, run)
    have = _size(part)
    if have == file.size:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        stamp = _stamp(part)
        origin, _, validator = (stamp.read_text() if stamp.exists() else "").partition("\n")
        if origin == url and validator:  # the same server must still have the same file
            headers["If-Range"] = validator
    with run.slot(url), _get(url, headers=headers, stream=True) as response:
        if response.status_code == 206:
            answer = re.match(
                r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")
            )
            if not answer or int(answer[1]) != have or answer[2] not in ("*", str(file.size)):
                raise _Refused("it answers with other bytes than those asked for")
        else:
            # Before what is there is given up: is this the file, or a page that says sorry?
            length = response.headers.get("Content-Length")  # none, if it comes in pieces
            kind = response.headers.get("Content-Type", "unknown type")
            if length not in (None, str(file.size)) or kind.startswith("text/html"):
                length = length or "some"
                raise _Refused(f"it offers {length} bytes ({kind}) instead of {file.size}")
            _discard(part, run)
            have = 0
        tag = response.headers.get("ETag", "")
        if not tag or tag.startswith("W/"):
            tag = response.headers.get("Last-Modified", "")
        _stamp(part).write_text(f"{url}\n{tag}")
        with open(part, "ab") as out:
            for chunk in _chunks(response):
                if run.stop.is_set():
                    raise _Stopped
                have += len(chunk)
                if have > file.size:
                    break
                out.write(chunk)
                with run.lock:
                    run.received += len(chunk)
    if have > file.size:
        _discard(part, run)
        raise _Refused(f"it sends more than the {file.size} bytes that the file has")
    if have < file.size:
        raise _Trouble(f"it ended after {have} of {file.size} bytes")


def _chunks(response):
    try:
        yield from response.iter_content(CHUNK)
    except requests.RequestException as error:
        raise _Trouble(_reason(error)) from None


def _finish(part, target):
    os.replace(part, target)
    _stamp(part).unlink(missing_ok=True)


def _discard(part, run):
    run.expected += _size(part)
    part.unlink(missing_ok=True)
    _stamp(part).unlink(missing_ok=True)


def _part(target):
    return target.with_name(f".{target.name}.part")


def _stamp(part):
    """Where the address and the validator of a temporary file are kept."""
    return part.with_name(f"{part.name}.from")


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _digest(path, algorithm):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _get(url, **options):
    """An answer of a server, whose refusals are errors."""
    try:
        response = requests.get(url, timeout=TIMEOUT, **options)
    except requests.RequestException as error:
        raise _Trouble(_reason(error)) from None
    if response.ok:
        return response
    reason = f"HTTP {response.status_code} {response.reason}"
    response.close()
    if response.status_code in BUSY:
        raise _Trouble(reason, _retry_after(response))
    raise _Refused(reason)


def _reason(error):
    """The innermost cause of an error of requests, which wraps those of urllib3."""
    while True:
        inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
        if not isinstance(inner, Exception):
            return f"{type(error).__name__}: {error}"
        error = inner


def _retry_after(response):
    """Seconds that the server asks to wait, which it gives as such or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max((parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def _persist(attempt, stop):
    """The result of `attempt`, which is repeated while that may help."""
    for pause in (*(BACKOFF * 2**n for n in range(ATTEMPTS - 1)), None):
        if stop.is_set():
            raise _Stopped
        try:
            return attempt()
        except _Trouble as trouble:
            pause = pause if trouble.after is None or pause is None else trouble.after
            if pause is None or pause > LONGEST_WAIT:
                raise
        if stop.wait(pause):
            raise _Stopped


def _cds_credentials():
    """What `cdsapi.Client` needs: url, key and verify."""
    remedy = (
        "copy the two lines `url` and `key` from https://cds.climate.copernicus.eu/how-to-api to "
        "~/.cdsapirc, and run again"
    )
    reason = ""
    try:
        url, key, verify = get_url_key_verify(None, None, None)
    except Exception as error:  # what cdsapi raises has no narrower class
        url, key, verify, reason = "", "", None, f" ({error})"
    url, key = url.strip(), key.strip()  # a line end of Windows is no part of them
    if not (url and key):
        raise _Refused(
            f"there are no credentials for the Climate Data Store{reason}: make an account at "
            f"https://cds.climate.copernicus.eu, {remedy}"
        )
    if ":" in key:
        raise _Refused(f"the key for the Climate Data Store has its old form, UID:KEY: {remedy}")
    # Others would be refused by requests, with the key in the message.
    if not re.fullmatch(r"[\w.~+/=-]+", key, re.ASCII):
        raise _Refused(
            "the key for the Climate Data Store has other characters than letters, digits and "
            f"-._~+/=: {remedy}"
        )
    return {"url": url, "key": key, "verify": verify}


def _retrieve(request, folder, credentials, run):
    """One file of ERA5-Land: ask, wait until it is made, fetch it."""

    def ask(call):
        return _persist(lambda: _without_key(call, request, credentials["key"]), run.stop)

    # One attempt for each call, because the pauses between those of cdsapi cannot be ended.
    options = {"quiet": True, "progress": False, "timeout": TIMEOUT, "retry_max": 1}
    client = ask(lambda: cdsapi.Client(**credentials, **options, wait_until_complete=False))
    job = ask(lambda: client.retrieve(DATASET, request.inputs))
    pause, longest = POLL
    while not ask(lambda: job.results_ready):
        if run.stop.wait(pause):
            raise _Stopped
        pause = min(1.5 * pause, longest)
    result = ask(job.get_results)
    url, size, asset = ask(lambda: (result.location, result.content_length, result.asset))

    checksum = str(asset.get("file:checksum", ""))
    checksum = checksum if re.fullmatch("[0-9a-f]{32}", checksum) else ""
    part = folder / f".{request.stem}.part"
    with _disk(folder, run):
        part.unlink(missing_ok=True)  # of another job, perhaps with other bytes
        run.expected += size
        try:
            _copy(url, File(request.stem, size, "md5", checksum, (url,)), part, run)
        except (_Trouble, _Refused) as error:
            raise _Refused(f"{url}: {error}") from None
        with open(part, "rb") as file:
            ending = ".zip" if file.read(2) == b"PK" else ".nc"
        _finish(part, folder / f"{request.stem}{ending}")


def _without_key(call, request, key):
    """The result of a call of cdsapi, whose errors become ours, without the key."""
    try:
        return call()
    except ODD as error:
        text, again = f"its answer is not that of the Climate Data Store ({error!r})", False
    except (requests.RequestException, ProcessingFailedError, ValueError) as error:
        text, answer = str(error), getattr(error, "response", None)
        again = isinstance(error, BROKEN) if answer is None else answer.status_code in BUSY
        after = None if answer is None else _retry_after(answer)
    reason = _cds_reason(request, text.replace(key, "[key]"))
    raise _Trouble(reason, after) if again else _Refused(reason)


def _cds_reason(request, text):
    """What the Climate Data Store says, and what to do about it."""
    reason = "; ".join(line.strip() for line in text.splitlines() if line.strip())
    if "licence" in text:
        return f"{reason}. Accept the licence, once, at {DATASET_PAGE}#manage-licences"
    if text.startswith("401"):
        return f"{reason}. Copy the key again from https://cds.climate.copernicus.eu/how-to-api"
    if "cost limits" in text or "too large" in text:
        return f"{reason}. Make YEARS in smcore/acquire.py smaller than {YEARS}"
    if request.stem.startswith(INVARIANT):
        return (
            f"{reason}. Take the land mask (lsm_1279l4_0.1x0.1.grb_v4_unpack.nc) and the "
            f"geopotential (geo_1279l4_0.1x0.1.grib2_v4_unpack.nc) from {DOCUMENTATION} and "
            "put them beside the other files of ERA5-Land"
        )
    return reason


def _node(url):
    return urlsplit(url).netloc


def _bytes(count):
    """A number of bytes in words, such as ``1.2 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def main(argv=None):
    """Show what a profile needs, fetch it, and prepare it."""
    parser = argparse.ArgumentParser(prog="python -m smcore.acquire", description=main.__doc__)
    parser.add_argument("--profile", default="paper", help="name, or path of a .yml file")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be fetched")
    parser.add_argument("--no-prepare", action="store_true", help="fetch only")
    options = parser.parse_args(argv)
    try:
        study = Study.load(options.profile)
        if study.synthetic:
            print(f"Profile {study.name} is a demo world, which chapter 1 makes: nothing to fetch.")
            return 2
        needed = plan(study)
        print(needed.describe())
        problems = []
        if not options.dry_run:
            try:
                download(needed)
            except Unfinished as error:
                problems.append(str(error))
        if needed.missing:
            problems.append("\n  - ".join(["ESGF lacks:", *needed.describe_missing()]))
        if problems:
            raise Unfinished("\n".join(problems))
        if not (options.dry_run or options.no_prepare):
            prepare(study)
    except KeyboardInterrupt:
        print(
            "\nStopped. Run the same command again: it goes on where it stopped.", file=sys.stderr
        )
        return 1
    except (Unfinished, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
