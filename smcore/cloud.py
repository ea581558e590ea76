"""The public cloud store of CMIP6: its catalogue and its Zarr groups, over HTTPS, for everyone."""

import asyncio
import io

import aiohttp
import pandas as pd
import xarray as xr
from fsspec.implementations.http import HTTPFileSystem
from zarr.storage import FsspecStore

SERVICE = "https://storage.googleapis.com/"  # where gs:// is served without an account
CATALOGUE = "cmip6/cmip6-zarr-consolidated-stores.csv"
TIMEOUT = {"sock_connect": 30, "sock_read": 60}  # seconds; the second between two pieces
PAUSES = (2, 4, 8, 16)  # seconds before each further attempt
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another attempt
# What the libraries raise when a server does not answer, or answers with something else.
BROKEN = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
BROKEN += (AssertionError, aiohttp.ClientError)


class _Patient(HTTPFileSystem):
    """Files over HTTP; a busy or broken server is asked again, which fsspec does not."""

    async def _cat_file(self, url, start=None, end=None, **options):
        for pause in PAUSES:
            try:
                return await super()._cat_file(url, start, end, **options)
            except (aiohttp.ClientError, TimeoutError) as error:
                if getattr(error, "status", 503) not in BUSY:
                    raise
            await asyncio.sleep(pause)
        return await super()._cat_file(url, start, end, **options)


def _http(**options):
    timeout = aiohttp.ClientTimeout(total=None, **TIMEOUT)
    return _Patient(client_kwargs={"timeout": timeout, "trust_env": True}, **options)


def catalogue(sources):
    """What the store has of some sources.

    Parameters
    ----------
    sources : iterable of str
        Their ``source_id``.

    Returns
    -------
    pd.DataFrame
        One row per group, by version: the facets, and its address as ``zstore``.

    Raises
    ------
    ConnectionError
        If it cannot be read.
    """
    address = SERVICE + CATALOGUE
    try:
        table = pd.read_csv(io.BytesIO(_http().cat_file(address)), dtype=str)
        table = table[table["source_id"].isin(sources)].sort_values("version").fillna("")
        table["version"] = "v" + table["version"]
    except BROKEN as error:
        text = f"the catalogue {address} cannot be read ({type(error).__name__}: {error}); try "
        raise ConnectionError(f"{text}again later, or use `--from esgf`") from None
    return table.rename(columns={"member_id": "variant_label"})


def open_group(zstore):
    """The dataset of a group, such as ``gs://cmip6/CMIP6/.../v20190429/``; unread, times as stored.

    A block that the server lacks reads as one without values: that is how Zarr understands it.
    """
    url = SERVICE + zstore.removeprefix("gs://").rstrip("/")
    group = FsspecStore(_http(asynchronous=True), read_only=True, path=url)
    options = {"consolidated": True, "zarr_format": 2, "decode_times": False}
    return xr.open_zarr(group, chunks=None, **options)
