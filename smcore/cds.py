"""The Climate Data Store: requests for ERA5-Land, made with `cdsapi`; its key is in no message."""

import hashlib
import re
import shutil
from contextlib import contextmanager
from functools import partial

import cdsapi
import requests
from cdsapi.api import get_url_key_verify
from ecmwf.datastores.processing import DownloadError, LinkError, ProcessingFailedError

from smcore import native, store
from smcore.era5land import LAYERS, open_invariant
from smcore.grids import uncovered

SERVICE = "https://cds.climate.copernicus.eu"
DATASET = "reanalysis-era5-land-monthly-means"
VARIABLES = {"swvl1": "volumetric_soil_water_layer_1", "swvl2": "volumetric_soil_water_layer_2"}
YEARS = 10  # in a request: 120 fields, where the CDS has allowed 1000
MARGIN = 1.0  # degrees around the domain
INVARIANT = "era5land_invariant"  # land mask and geopotential: how their file's name begins
PATIENCE = {"timeout": 60, "retry_max": 5, "sleep_max": 60}  # of cdsapi: seconds, and attempts
REMEDIES = {  # by what an error says
    "licence": f"Accept it, once, at {SERVICE}/datasets/{DATASET}?tab=download#manage-licences",
    "401 Client": f"Copy the key again from {SERVICE}/how-to-api",
    "404 Client": f"Is the `url` in ~/.cdsapirc that of {SERVICE}/how-to-api?",
    "cost limits": f"Make YEARS in smcore/cds.py smaller than {YEARS}",
    "too large": f"Make YEARS in smcore/cds.py smaller than {YEARS}",
}
BY_HAND = (  # where the CDS does not offer the invariant fields
    "Take the land mask (lsm_1279l4_0.1x0.1.grb_v4_unpack.nc) and the geopotential "
    "(geo_1279l4_0.1x0.1.grib2_v4_unpack.nc) from https://confluence.ecmwf.int/display/CKB/"
    "ERA5-Land%3A+data+documentation and put them beside the other files of ERA5-Land"
)
# What cdsapi raises when the store does not answer, refuses, or answers with something else.
BROKEN = (requests.RequestException, DownloadError, LinkError, ProcessingFailedError, ValueError)
BROKEN += (AssertionError, AttributeError, LookupError, TypeError)


def pieces(study):
    """The files of ERA5-Land that a study lacks: one for a variable and `YEARS` years.

    Parameters
    ----------
    study : Study
        A study on the real archives.

    Returns
    -------
    list of (str, int, callable)
        The name without its ending, the bytes that it takes at most, and a function that asks for
        it. That gives another one, which waits until the file is made and fetches it: so all can
        wait in the queue of the store at once. Both raise a ValueError with the remedy.
    """
    folder, domain = study.era5land_directory, study.domain
    north, south = min(domain.north + MARGIN, 90.0), max(domain.south - MARGIN, -90.0)
    west, east = domain.west - MARGIN, domain.east + MARGIN
    area = f"lat{south:g}to{north:g}_lon{west:g}to{east:g}"  # another domain is another file
    first, last = (int(year) for year in study.periods.historical)
    wanted = {}  # by the beginning of the file's name: variables, years and months
    for layer in LAYERS[study.depth]:
        for year in range(first, last + 1, YEARS):
            years = range(year, min(year + YEARS, last + 1))
            name = f"era5land_{layer}_{years[0]}-{years[-1]}"
            wanted[name] = [VARIABLES[layer]], years, range(1, 13)
    try:  # land mask and geopotential, whatever their files are called
        lacking = uncovered(open_invariant(folder), domain)
    except (OSError, ValueError):
        lacking = True
    if lacking:
        wanted[INVARIANT] = ["land_sea_mask", "geopotential"], [last], [1]
    found = []
    for name, (variables, years, months) in wanted.items():
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
        path = folder / f"{name}_{area}.nc"
        paths = path, path.with_suffix(".zip")  # what has no record is the user's own
        if not any(store.whole(one) if store.recorded(one) else one.exists() for one in paths):
            fields = len(variables) * len(years) * len(months)
            size = int(4 * fields * (north - south) * (east - west) / 0.1**2)
            found.append((f"{name}_{area}", size, partial(_ask, inputs, path)))
    return found


def _credentials():
    """What `cdsapi` finds, where a request can be made with it."""
    remedy = f"copy the two lines `url` and `key` from {SERVICE}/how-to-api to ~/.cdsapirc"
    try:
        url, key, verify = get_url_key_verify(None, None, None)
    except Exception as error:  # what cdsapi raises has no narrower class
        text = f"there are no credentials for the Climate Data Store ({error}): make an account at"
        raise ValueError(f"{text} {SERVICE}, and {remedy}") from None
    url, key = url.strip(), key.strip()  # a line end of Windows is no part of them
    # With another key a request fails, and shows it. The old form, UID:KEY, has a colon.
    if not re.fullmatch(r"[\w.~+/=-]+", key, re.ASCII):
        text = "the key for the Climate Data Store is empty, of the old form UID:KEY, or has other "
        raise ValueError(f"{text}characters than letters, digits and -._~+/=: {remedy}")
    return {"url": url, "key": key, "verify": verify}


def _ask(inputs, path):
    """Ask for a file; the function that waits until it is made, and fetches it."""
    credentials = _credentials()
    options = {"quiet": True, "progress": False, "wait_until_complete": False} | PATIENCE
    with _telling(path, credentials["key"]):
        job = cdsapi.Client(**credentials, **options).retrieve(DATASET, inputs)
    return partial(_receive, job, inputs, path, credentials["key"])


def _receive(job, inputs, path, key):
    arriving = path.with_name(f".{path.name}.part")
    with _telling(path, key):
        result = job.get_results()
        checksum = str(result.asset.get("file:checksum"))
        result.download(str(arriving))
    with open(arriving, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if re.fullmatch("[0-9a-f]{32}", checksum) and checksum != found:
        arriving.unlink()
        raise ValueError(f"{result.location}: its md5 is not that of the store")
    ending = ".zip" if native.kind_of(arriving) == "zip" else ".nc"
    made = store.recipe(settings={"origin": DATASET, "request": inputs})
    with store.keeping(path.with_suffix(ending), made) as part:
        shutil.move(arriving, part)


@contextmanager
def _telling(path, key):
    """Turn the errors of cdsapi into ours: what the store says, without the key, and a remedy."""
    try:
        yield
    except BROKEN as error:
        said = f"{type(error).__name__}: {error}".replace(key, "[key]")
        said = "; ".join(line.strip() for line in said.splitlines() if line.strip())
        remedy = next((REMEDIES[words] for words in REMEDIES if words in said), "")
        if not remedy and path.name.startswith(INVARIANT) and "400 Client" in said:
            remedy = BY_HAND
        raise ValueError(f"{said}. {remedy}".removesuffix(". ")) from None
