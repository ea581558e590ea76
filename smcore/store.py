"""Finished files, and one rule for what may be used again.

What stands under a final name is complete: it is written under another name and renamed. Beside
each kept file lies its record, ``.<name>.made``: the checksum of its content, and its recipe, that
is what it was made from. A file is *fresh* if its recipe is the present one, and *whole* if its
content has the checksum that was recorded. What makes a file asks :func:`fresh` and makes it anew
where it is not; what reads one asks :func:`checked`, which refuses a file that is damaged or stale.
"""

import ast
import hashlib
import io
import json
import os
import socket
import sys
import tokenize
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

# As they were when this process began: what runs is what is recorded.
SOURCES = {path.stem: path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py")}
WITHOUT_EFFECT = {"__init__", "config", "profile", "progress", "store"}  # on what a step computes
SHIPPED = Path(__file__).resolve().parents[1] / "data"  # files that come with the project
CHUNK_MONTHS = 12  # along time, in NetCDF files
FIELD = {"dtype": "float32", "_FillValue": np.float32(9.96921e36)}
FIELD |= {"zlib": True, "complevel": 1, "shuffle": True}
_read = {}  # checksums of the files that this process has checked, by path


@contextmanager
def replacing(path):
    """A temporary path that takes the name `path` when the block ends without an error.

    What killed processes of this machine have left in the same folder is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    part = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    try:
        yield part
        _to_disk(part)
        os.replace(part, path)
        _to_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sweep(folder):
    for part in folder.glob(f".*.{socket.gethostname()}-*.part"):
        process = part.name.removesuffix(".part").rpartition("-")[2]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            part.unlink(missing_ok=True)
        except (PermissionError, ValueError):
            continue  # another user's, or none of ours


def _to_disk(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def keeping(path, made=None):
    """A temporary path that takes the name `path` when the block ends, with a record beside it.

    Recorded is the recipe `made`, by default the loaded code and what this process has checked.
    """
    with replacing(path) as part:
        yield part
        _read.pop(str(Path(path).absolute()), None)  # no file is made from itself
        # The record first: whichever file a killed process leaves, its checksum is in there.
        entry = {"sha256": sha256(part), "recipe": beside(made or _session(), path)}
        entries = [entry, *([recorded(path)] if whole(path) else [])]
        with replacing(_record_path(path)) as text:
            text.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def write_text(text, path, recipe=None):
    """Write a text file and its record."""
    with keeping(path, recipe) as part:
        part.write_text(text, encoding="utf-8")


def write_json(values, path, recipe=None):
    """Write `values` as JSON, and its record."""
    write_text(json.dumps(values, indent=1, default=_plain) + "\n", path, recipe)


def write_table(table, path, recipe=None, **options):
    """Write a DataFrame as CSV, with `options` of ``DataFrame.to_csv``, and its record."""
    write_text(table.to_csv(**options), path, recipe)


def write_figure(figure, path, recipe=None):
    """Write a matplotlib figure as PNG with 200 dots an inch, and its record."""
    with keeping(path, recipe) as part:
        figure.savefig(part, dpi=200, format="png")


def write_dataset(dataset, path, recipe=None, **encoding):
    """Write a dataset as compressed NetCDF-4 in the way of CF, and its record.

    Floating point fields become float32 with a fill value; coordinates and bounds have none;
    times are days in float64. `encoding` adds to this by the name of a variable.
    """
    settings = {name: {"_FillValue": None} for name in dataset.variables}
    for name, variable in dataset.variables.items():
        field = name in dataset.data_vars and not name.endswith("_bnds")
        if field and variable.ndim > 1 and variable.dtype.kind == "f":
            sizes = variable.sizes.items()
            chunks = [min(size, CHUNK_MONTHS) if dim == "time" else size for dim, size in sizes]
            settings[name] = FIELD | {"chunksizes": chunks}
        if variable.dtype.kind == "M":
            settings[name]["dtype"] = "float64"
            if name == "time":  # its bounds take the same units
                settings[name]["units"] = "days since 1850-01-01"
    for name, extra in encoding.items():
        settings[name] |= extra
    with keeping(path, recipe) as part:
        dataset.to_netcdf(part, engine="netcdf4", encoding=settings)


def _plain(value):
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def recipe(*modules, settings=None, inputs=()):
    """What a file is made from: code of modules of smcore, settings that matter, input files.

    What the modules import from smcore counts as well; `settings` are as `Study.settings` gives
    them. Checksums stand for code and inputs, and no time stamps, so that two machines agree.
    """
    return {
        "modules": sorted(modules),
        "code": code_digest(*modules),
        "settings": json.loads(json.dumps(settings or {}, default=_plain)),
        "inputs": {str(Path(path).absolute()): sha256(path) for path in inputs},
    }


def _session():
    """The recipe of a result: the code that is loaded, and the files that were checked."""
    loaded = {name.partition(".")[2] for name in sys.modules if name.startswith("smcore.")}
    return recipe(*(loaded & SOURCES.keys() - WITHOUT_EFFECT)) | {"inputs": dict(_read)}


def beside(made, path):
    """A recipe whose inputs are named from the folder of a file, so that a study may be moved."""
    inputs = {}
    for name, checksum in made["inputs"].items():
        place = os.path.relpath(name, Path(path).absolute().parent)
        shipped = Path(name).parent == SHIPPED
        inputs[f"shipped:{Path(name).name}" if shipped else place] = checksum
    return made | {"inputs": inputs}


def _record_path(path):
    return Path(path).with_name(f".{Path(path).name}.made")


@cache
def _parsed(text):
    return json.loads(text)


def recorded(path):
    """The checksum and the recipe of a file as recorded, or None without a file or a record."""
    try:
        entries = _parsed(_record_path(path).read_text(encoding="utf-8"))
        content = sha256(path)
        return next((one for one in entries if one["sha256"] == content), entries[0])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def whole(path):
    """Whether the content of a file is what was recorded when it was written."""
    found = recorded(path)
    return found is not None and sha256(path) == found["sha256"]


def fresh(path, made):
    """Whether a file is whole and was made by this recipe: then it need not be made again."""
    return whole(path) and recorded(path)["recipe"] == beside(made, path)


def differences(found, made):
    """In words, in what two recipes differ, paths by their names."""
    words = ["the code"] if found["code"] != made["code"] else []
    for key in ("settings", "inputs"):
        names = found[key].keys() | made[key].keys()
        differ = [name for name in sorted(names) if found[key].get(name) != made[key].get(name)]
        words += [os.path.basename(name) if key == "inputs" else name for name in differ]
    return ", ".join(words)


def checked(path, chapter, *, study=None):
    """The path of a file that may be used: finished, whole, and made by what is there now.

    FileNotFoundError without the file; ValueError if it is damaged, without a record, or stale:
    made by other code, inputs or, with a `study`, settings than the present ones. The errors name
    the `chapter` that makes it.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file yet; run chapter {chapter}")
    if not whole(path):
        raise ValueError(
            f"{path} is damaged: its content is not what was written; run chapter {chapter}, which "
            "makes it anew"
        )
    why = _stale(path)
    if study is not None:
        was = recorded(path)["recipe"]["settings"]
        now = study.settings(*was)
        why += [f"{key} was {was[key]!r}" for key in was if was[key] != now[key]]
    if why:
        raise ValueError(f"{path} is out of date ({'; '.join(why)}): run chapter {chapter} again")
    _read[str(path)] = recorded(path)["sha256"]
    return path


def _stale(path):
    """Why a file is not what would be made now: its code and inputs, and what these are made of."""
    made = recorded(path)["recipe"]
    unknown = set(made["modules"]) - SOURCES.keys()
    if unknown or code_digest(*made["modules"]) != made["code"]:
        return [f"the code that made {path.name} has changed"]
    why = []
    for name, checksum in made["inputs"].items():
        source = Path(os.path.normpath(path.parent / name))
        found = recorded(source)
        if found is None:
            continue  # a native file, which the first chapter checks
        if found["sha256"] != checksum:
            why.append(f"{source.name} has changed")
        else:
            why += _stale(source)
    return list(dict.fromkeys(why))


def sha256(path):
    """Checksum of a file, in hexadecimal digits; read once, as long as it does not change."""
    stat = os.stat(path)
    return _checksum(os.path.abspath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@cache
def _checksum(path, *_):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(*modules):
    """Checksum of the code of modules of smcore and of what they import, directly or not.

    Docstrings, comments and blank lines do not count, nor do the modules in `WITHOUT_EFFECT`.
    """
    names = sorted(imported_with(*modules))
    text = "\0".join(f"{name}\0{_bare(SOURCES[name])}" for name in names)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def imported_with(*modules):
    """Names of these modules of smcore and of those that they import, directly or not."""
    found, waiting = set(), set(modules) - WITHOUT_EFFECT
    while waiting:
        found |= waiting
        needed = set().union(*(imports(SOURCES[name]) for name in waiting))
        waiting = needed - found - WITHOUT_EFFECT
    return found


@cache
def imports(code):
    """Names of the modules of smcore that a piece of code imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("smcore.")} & SOURCES.keys()


@cache
def _bare(code):
    """Code without comments, docstrings, blank lines and trailing space, for any Python."""
    lines = code.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                for row in range(node.lineno - 1, node.end_lineno):
                    lines[row] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
