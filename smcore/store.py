"""Finished files, and one rule for what may be used again.

What stands under a final name is complete: it is written under another name and renamed. Beside
each kept file lies its record, ``.<name>.made``: the checksum of its content, and its recipe, that
is what it was made from. A file is *whole* if its content has that checksum, and *fresh* if its
recipe is the present one too. What makes a file asks :func:`fresh`, what reads one :func:`checked`.
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
FIELD = {"dtype": "float32", "_FillValue": np.float32(9.96921e36)}
FIELD |= {"zlib": True, "complevel": 1, "shuffle": True}
_read = {}  # checksums of the files that this process has checked, by path
_asked = {}  # settings of the study that it has checked them for
# What the results of a chapter follow from, beside the files that it reads.
RESULTS = ("domain", "sources", "experiments", "periods", "regions", "sites", "study_area")


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
        try:
            os.kill(int(part.stem.rpartition("-")[2]), 0)
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
    path = Path(path).absolute()
    with replacing(path) as part:
        yield part
        _read.pop(str(path), None)  # no file is made from itself
        # The record first: whichever file a killed process leaves, its checksum is in there.
        entry = {"sha256": sha256(part), "recipe": beside(made or _session(), path)}
        entries = [entry, *([recorded(path)] if whole(path) else [])]
        with replacing(path.with_name(f".{path.name}.made")) as text:
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


def write_dataset(dataset, path, recipe=None):
    """Write a dataset as compressed NetCDF-4 in the way of CF, and its record.

    Fields become float32 with a fill value; coordinates and bounds have none; times are float64.
    """
    settings = {name: {"_FillValue": None} for name in dataset.variables}
    for name, variable in dataset.variables.items():
        field = name in dataset.data_vars and not name.endswith("_bnds")
        if field and variable.ndim > 1 and variable.dtype.kind == "f":
            sizes = variable.sizes.items()
            chunks = [min(size, 12) if dim == "time" else size for dim, size in sizes]  # years
            settings[name] = FIELD | {"chunksizes": chunks}
        if variable.dtype.kind == "M":
            settings[name]["dtype"] = "float64"
            if name == "time":  # its bounds take the same units
                settings[name]["units"] = "days since 1850-01-01"
    with keeping(path, recipe) as part:
        dataset.to_netcdf(part, engine="netcdf4", encoding=settings)


def _plain(value):
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def recipe(*modules, settings=None, inputs=()):
    """What a file is made from: code of modules and of what they import, settings, input files.

    Checksums stand for code and inputs, and no time stamps, so that two machines agree.
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
    made = recipe(*(loaded & SOURCES.keys() - WITHOUT_EFFECT), settings=_asked)
    return made | {"inputs": dict(_read)}


def beside(made, path):
    """A recipe whose inputs are named from the folder of a file, so that a study may be moved.

    Those that come with the project are ``shipped:``, those without a record ``native:``.
    """
    folder, inputs = Path(path).absolute().parent, {}
    for name, checksum in made["inputs"].items():
        shipped, place = Path(name).parent == SHIPPED, os.path.relpath(name, folder)
        kind = "" if recorded(name) else "native:"
        inputs[f"shipped:{Path(name).name}" if shipped else kind + place] = checksum
    return made | {"inputs": inputs}


def recorded(path):
    """The checksum and the recipe of a file as recorded, or None without a file or a record."""
    path = Path(path)
    try:
        entries = json.loads(path.with_name(f".{path.name}.made").read_text(encoding="utf-8"))
        content = sha256(path)
        found = next((one for one in entries if one["sha256"] == content), entries[0])
        return found if "recipe" in found else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def whole(path):
    """Whether the content of a file is what was recorded when it was written."""
    found = recorded(path)
    return found is not None and sha256(path) == found["sha256"]


def fresh(path, made):
    """Whether a file is whole and was made by this recipe."""
    return whole(path) and recorded(path)["recipe"] == beside(made, path)


def differences(found, made):
    """In words, in what two recipes differ, paths by their names."""
    words = ["the code"] if found["code"] != made["code"] else []
    for was, now in ((found[key], made[key]) for key in ("settings", "inputs")):
        differ = [name for name in sorted(was | now) if was.get(name) != now.get(name)]
        words += map(os.path.basename, differ)
    return ", ".join(words)


def checked(path, chapter, *, study=None):
    """The path of a file that may be used: whole, and made by the code and inputs of now.

    With a `study`, also by its settings. Else FileNotFoundError or ValueError, which names the
    `chapter` that makes it.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file yet; run chapter {chapter}")
    if not whole(path):
        raise ValueError(f"{path} is damaged, not what was written: run chapter {chapter} again")
    why = _stale(path)
    if study is not None:
        was = recorded(path)["recipe"]["settings"]
        now = study.settings(*was)
        why += [f"{key} was {was[key]!r}" for key in was if was[key] != now[key]]
        _asked.update(study.settings(*RESULTS))
    if why:
        raise ValueError(f"{path} is out of date ({'; '.join(why)}): run chapter {chapter} again")
    _read[str(path)] = recorded(path)["sha256"]
    return path


def _stale(path):
    """Why a file is not what would be made now: its code and inputs, and what these are made of."""
    made = recorded(path)["recipe"]
    known = SOURCES.keys() >= set(made["modules"])
    if not known or code_digest(*made["modules"]) != made["code"]:
        return [f"the code that made {path.name} has changed"]
    why = []
    for name, checksum in made["inputs"].items():
        shipped = name.startswith("shipped:")
        place = SHIPPED / name.removeprefix("shipped:") if shipped else path.parent / name
        source = Path(os.path.normpath(place))
        if name.startswith("native:") or not source.exists():
            continue  # the first chapter checks it; a product may be read far from its inputs
        if sha256(source) != checksum:
            why.append(f"{source.name} has changed")
        elif not shipped:
            why += _stale(source) if recorded(source) else [f"{source.name} has lost its record"]
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
    """Checksum of the code, without words, of modules of smcore and of what they import."""
    names = sorted(imported_with(*modules))
    text = "\0".join(f"{name}\0{_bare(SOURCES[name])}" for name in names)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def imported_with(*modules):
    """Names of these modules of smcore and of those that they import, directly or not."""
    found, waiting = set(), set(modules)
    while waiting := waiting - found - WITHOUT_EFFECT:
        found |= waiting
        waiting = set().union(*(imports(SOURCES[name]) for name in waiting))
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
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=last):
                lines[first - 1 : last] = [""] * (last - first + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())
