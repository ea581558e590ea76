#!/usr/bin/env python3
"""Run one chapter of the book, with its own values or with yours.

    notebooks/run.py 07_period_change --profile demo
    notebooks/run.py 07_period_change -p baseline_period '["1985", "2014"]' -o my.ipynb

Without -o the chapter becomes a page of the study's book. With -o it is yours: what it leaves goes
to a folder beside it, and the book's own files stay as they are. A chapter that fails, or that
writes to stderr, never gets its final name.
"""

import argparse
import ast
import contextlib
import difflib
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

try:
    import jupytext
    import nbformat
    import papermill
    import yaml
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.translators import PythonTranslator

    sys.path.insert(0, str(ROOT))  # the smcore beside this file, as in the chapter's kernel
    from smcore.config import Study
    from smcore.progress import duration
    from smcore.store import replacing
except ModuleNotFoundError as missing:
    venv = ROOT / ".venv"
    if __name__ != "__main__":
        raise
    if Path(sys.prefix) == venv or not (venv / "bin/python").exists():
        sys.exit(f"{missing}: run `make setup` first, or activate the environment of the book")
    os.execv(venv / "bin/python", [str(venv / "bin/python"), *sys.argv])

# glibc would give the large tensors of each training step back to the system, and fetch them again:
# a quarter of the time. The kernels inherit this.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))

CELL_TIMEOUT = 24 * 3600  # seconds; training at full size on a processor takes hours
KERNEL_TIMEOUT = 300  # seconds; a busy machine is slow to start a kernel

# Ids that xarray, matplotlib's animations and pandas' styles draw anew each time.
RANDOM_ID = re.compile(
    r"\b((?:attrs|data|index|section)-)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|(?<![a-zA-Z])(_?anim[a-z0-9_]*?)[0-9a-f]{32}(?![0-9a-f])"
    r"|\b(T_)[0-9a-f]{5}(?![0-9a-f])"
)
MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-f]{6,}")


class ChapterFailed(Exception):
    """The chapter ran, and its result must not be published."""


# What is asked for


def chapters(root=ROOT):
    """The chapters by name, in the order of the book."""
    return {path.stem: path for path in sorted((root / "notebooks").glob("[0-9][0-9]_*.md"))}


def find_chapter(name, root=ROOT):
    """Path of the chapter `name`, or an error that lists the chapters."""
    known = chapters(root)
    if name not in known:
        raise ValueError(f"no chapter {name!r}; the chapters are:\n  " + "\n  ".join(known))
    return known[name]


def parse_value(name, text):
    """Value of a parameter, as JSON or YAML: ``3``, ``demo``, ``["1985", "2014"]``, ``null``."""
    if not text.strip():
        raise ValueError(f"parameter `{name}` has no value; write null for Python's None")
    try:
        try:
            value = json.loads(text)
        except json.JSONDecodeError:  # YAML second, because it takes 1e-4 for a text
            value = yaml.safe_load(text)
        json.dumps(value, allow_nan=False)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(
            f"parameter `{name}`: {text!r} is not a number, a text or a list "
            f'({str(error).splitlines()[0]}); write a list as \'["1985", "2014"]\' and a text '
            "that looks like something else in two pairs of quotes: '\"1985-01-01\"'"
        ) from None
    if value == "None":
        raise ValueError(f"parameter `{name}`: write null for Python's None")
    return value


def check_names(given, known, chapter):
    """Raise unless the chapter has a parameter for each name that is given.

    papermill would only warn, and the chapter would run with its defaults.
    """
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    lines = []
    for name in unknown:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        lines.append(f"{chapter} has no parameter `{name}`{hint}")
    lines.append("its parameters and their defaults:")
    for name, about in known.items():
        note = f"  # {about['help']}" if about["help"] else ""
        lines.append(f"  {name} = {about['default']}{note}")
    raise ValueError("\n".join(lines))


# The notebook before it runs, and after


def write_values(notebook, values):
    """Write the values into the parameters cell itself, in place of its defaults.

    papermill would put a second cell below it. So the page shows one cell, with its comments, and
    the values that the chapter ran with.
    """
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    source = cell.source.encode()  # ast counts columns in bytes
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for statement in reversed(ast.parse(source).body):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name, old = statement.targets[0].id, statement.value
            if name in values:
                begin = starts[old.lineno - 1] + old.col_offset
                end = starts[old.end_lineno - 1] + old.end_col_offset
                new = PythonTranslator.translate(values[name]).encode()
                source = source[:begin] + new + source[end:]
    cell.source = source.decode()


def clean(notebook):
    """Take out what differs between two runs of the same chapter: timings, paths, random ids."""
    kept = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
    }
    notebook.metadata = nbformat.from_dict(kept)
    numbers = {}

    def renumber(match):
        number = numbers.setdefault(match[0].removeprefix(match[match.lastindex]), len(numbers))
        return f"{match[match.lastindex]}{number:05d}"

    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)  # papermill adds an empty list
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = RANDOM_ID.sub(renumber, data["text/html"])
            if "text/plain" in data:
                data["text/plain"] = MEMORY_ADDRESS.sub("", data["text/plain"])


def faults(notebook, root=ROOT):
    """What must not be on a page: stderr, paths of this machine, addresses in its memory."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts = [output.get("text", ""), *data.values()]
            text = "\n".join(part if isinstance(part, str) else json.dumps(part) for part in texts)
            what = []
            if output.get("name") == "stderr":
                what.append("writes to stderr:\n" + _indent(output.text.rstrip(), last=20))
            else:
                for path in (str(root), sys.prefix, str(Path.home()).rstrip("/") + "/"):
                    if len(path) > 1 and path in text:
                        what.append(f"shows a path of this machine: {path}")
                        break
                if MEMORY_ADDRESS.search(text) and len(data) < 2:  # the page shows text last
                    what.append(f"shows an object by its address: {text.strip()[:100]}")
            found += [f"cell [{cell.execution_count}] {fault}" for fault in what]
            if what:
                found.append("the cell:\n" + _indent(cell.source, last=20))
    return found


def _indent(text, last):
    return "\n".join(f"    {line}" for line in text.splitlines()[-last:])


# The run


@contextlib.contextmanager
def kernel_environment(show, folder):
    """Environment of the kernel, in which `smcore.progress` finds the file that is shown here."""
    path = Path(folder, "progress")
    path.touch()
    done = threading.Event()

    def relay():
        with path.open(encoding="utf-8") as file:
            last = False
            while not last:
                last = done.wait(0.3)
                for line in file.readlines():
                    show(line.rstrip("\n"))

    added = {
        "SMCORE_PROGRESS": str(path),
        "PYTHONHASHSEED": "0",  # the same order of sets in each run
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the debugger's remark on frozen modules
    }
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    thread = threading.Thread(target=relay, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def publish(notebook, path):
    """Write the notebook under its final name in one step."""
    with replacing(path) as part:
        part.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def prepare(chapter, values, *, root=ROOT):
    """The chapter as a notebook that is ready to run with these values.

    Parameters
    ----------
    chapter : str
        Name of the chapter, such as ``05_future_trends``.
    values : dict
        Values of parameters by name; the others keep their defaults.
    root : pathlib.Path
        The project: its folder ``notebooks`` holds the chapters.
    """
    notebook = jupytext.read(find_chapter(chapter, root), fmt="md:myst")
    with tempfile.TemporaryDirectory(prefix="chapter-") as folder:
        source = Path(folder, f"{chapter}.ipynb")  # papermill does not read MyST-Markdown
        nbformat.write(notebook, source)
        check_names(values, papermill.inspect_notebook(source), chapter)
    write_values(notebook, values)
    return notebook


def run(notebook, destination, *, root=ROOT, show=print):
    """Run a notebook in the folder `root` and put the cleaned result at `destination`.

    Where it fails, what it got to is beside `destination`, as ``<name>.failed.ipynb``, and
    ChapterFailed says why. `show` takes the lines that it reports while it runs.
    """
    failed = destination.with_name(f"{destination.stem}.failed.ipynb")
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="chapter-") as folder:
        source, executed = Path(folder, "source.ipynb"), Path(folder, "executed.ipynb")
        nbformat.write(notebook, source)
        try:
            with kernel_environment(show, folder):
                notebook = papermill.execute_notebook(
                    source,
                    executed,
                    kernel_name="python3",
                    cwd=root,
                    progress_bar=False,
                    extra_arguments=["--log-level=ERROR"],  # no remarks on its connection
                    start_timeout=KERNEL_TIMEOUT,
                    execution_timeout=CELL_TIMEOUT,
                    coalesce_streams=True,  # else two runs may cut their text differently
                )
            found = faults(notebook, root)
        except papermill.PapermillExecutionError as error:
            notebook = nbformat.read(executed, as_version=4)
            trace = papermill.exceptions.strip_color("\n".join(error.traceback))
            found = [
                f"cell [{error.exec_count}] raises {error.ename}:",
                _indent(error.source, last=20),
                "the error:",
                _indent(trace, last=15),
            ]
        except (CellTimeoutError, DeadKernelError) as error:
            notebook = nbformat.read(executed, as_version=4)
            found = [f"{error} (a kernel that dies has often run out of memory)"]
    if found:
        publish(notebook, failed)
        raise ChapterFailed("\n".join([*found, f"what it got to: {os.path.relpath(failed)}"]))
    clean(notebook)
    publish(notebook, destination)


def main(arguments=None, *, root=ROOT):
    """Run the chapter that the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(
        prog="notebooks/run.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("chapter", help="name of the chapter, such as 05_future_trends")
    parser.add_argument("--profile", default="demo", help="the study (default: demo)")
    parser.add_argument(
        "-p",
        dest="values",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help='value of a parameter, as YAML: 3, demo, \'["1985", "2014"]\', null',
    )
    parser.add_argument("-o", dest="output", type=Path, help="a notebook of your own: my.ipynb")
    asked = parser.parse_args(arguments)

    def show(line):
        print(f"[{asked.chapter}] {line}", file=sys.stderr, flush=True)

    try:
        find_chapter(asked.chapter, root)
        profile = asked.profile
        if profile.endswith((".yml", ".yaml")):
            profile = os.path.relpath(profile, root)  # the chapter runs in the project's folder
        values = {"profile": profile}
        for name, text in asked.values:
            if name in values:
                raise ValueError(f"`{name}` is given twice, or as -p instead of --profile")
            values[name] = parse_value(name, text)
        destination = asked.output
        if destination is None:
            study = Study.load(asked.profile)
            destination = study.directory / "chapters" / f"{asked.chapter}.ipynb"
            results = study.results
        elif destination.suffix != ".ipynb":
            raise ValueError(
                f"-o takes the name of a notebook, such as my.ipynb, not {destination}"
            )
        else:
            results = destination.with_name(f"{destination.stem}_results")
            values.setdefault("results", os.path.relpath(results, root))
        notebook = prepare(asked.chapter, values, root=root)
    except (ValueError, OSError) as error:
        print(f"notebooks/run.py: {error}", file=sys.stderr)
        return 2

    start = time.monotonic()
    results.mkdir(parents=True, exist_ok=True)
    show("started")
    try:
        run(notebook, destination, root=root, show=show)
    except ChapterFailed as error:
        show(f"failed after {duration(time.monotonic() - start)}")
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        show("interrupted")
        return 130
    show(f"finished in {duration(time.monotonic() - start)}: {os.path.relpath(destination)}")
    return 0


def die_on_sigterm():
    """Let SIGTERM end the kernel, too, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


if __name__ == "__main__":
    die_on_sigterm()
    sys.exit(main())
