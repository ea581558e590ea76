"""The order of the chapters: what each reads, what it leaves, and the book in the end.

    snakemake --cores 2 --config profile=demo
    snakemake --cores 2 --config 'parameters={"05_future_trends": {"experiments": ["ssp126"]}}'

What has not changed does not run again. Stores that resume (prepared fields, checkpoints, products)
are not declared, because Snakemake deletes declared files before it runs a rule; a small manifest
with their checksums stands for them, written last.
"""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext

from smcore import store
from smcore.config import Study
from snakemake.logging import logger
from snakemake.settings.enums import Quietness


workdir: workflow.basedir


if Quietness.RULES in (workflow.output_settings.quiet or []):
    logger.setLevel("WARNING")  # the chapters tell how far they are, Snakemake what went wrong


ROOT = Path(workflow.basedir)
PROFILE = str(config.get("profile", "demo"))
study = Study.load(PROFILE)


def local(path):
    """The path as seen from the project, so that a moved project knows its files again."""
    return Path(os.path.relpath(ROOT / path, ROOT))


PREPARED, MODEL = local(study.prepared), local(study.model)
PRODUCTS = local(study.product("historical").parent)
RESULTS, CHAPTERS = local(study.results), local(study.directory / "chapters")
HTML = local(study.directory / "_build" / "html")

# What a chapter leaves for others, in the order of reading, and the chapters whose files it reads.
LEAVES = {
    "01_data_preparation": PREPARED / "manifest.json",
    "02_ynet_training": MODEL / "model.json",
    "03_fused_product": PRODUCTS / "manifest.json",
}
LEAVES |= {
    chapter: RESULTS / f"{chapter}.json"
    for chapter in (
        "04_validation",
        "05_future_trends",
        "06_seasonal_trends",
        "07_period_change",
        "08_ledger",
        "09_compared_with_what",
        "10_is_the_trend_real",
        "11_trend_preservation",
        "12_where_ranking_turns",
    )
}
LEAVES["08_ledger"] = RESULTS / "08_ledger.csv"
READS = dict.fromkeys(LEAVES, ("01_data_preparation", "03_fused_product"))
READS["01_data_preparation"] = ()
READS["02_ynet_training"] = ("01_data_preparation",)
READS["03_fused_product"] = ("01_data_preparation", "02_ynet_training")
READS["08_ledger"] = [chapter for chapter in LEAVES if "04" <= chapter and chapter != "08_ledger"]
READS["12_where_ranking_turns"] = ()
USES_ALL_CORES = {"01_data_preparation", "02_ynet_training", "03_fused_product"}
ALSO = {
    "02_ynet_training": RESULTS / "02_ynet_training.json",
    "03_fused_product": RESULTS / "key_figure.png",
}

parameters = config.get("parameters", {})
for key in [*config.keys() - {"profile", "parameters"}, *parameters.keys() - LEAVES.keys()]:
    raise ValueError(f"config: {key!r} is neither `profile`, `parameters` nor a chapter")


def lock(path, wait):
    """Hold `path` while this process lives; unlike Snakemake's own lock, no longer than that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise RuntimeError(f"another run is at work on the study {study.name!r}: wait for it")
    return file


if workflow.is_main_process and not workflow.dryrun:
    held = lock(local(study.directory / ".lock"), wait=False)


def sources(chapter):
    """The chapter, modules it imports, directly or not, the data files they name, the models."""
    page = Path("notebooks", f"{chapter}.md")
    cells = jupytext.read(ROOT / page, fmt="md:myst").cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    names = store.imported_with(*store.imports(code)) | store.WITHOUT_EFFECT & store.SOURCES.keys()
    text = "\n".join([code, *(store.SOURCES[name] for name in names - {"config"})])
    data = filter(Path.is_file, (ROOT / "data").iterdir())
    shipped = [path for path in data if path.name in text or f"{path.stem}()" in text]
    modules = [Path("smcore", f"{name}.py") for name in names]
    return sorted({str(local(path)) for path in [page, *modules, *shipped, study.model_table]})


def command(chapter):
    """Arguments of notebooks/run.py."""
    values = parameters.get(chapter, {})
    given = [part for name in sorted(values) for part in ("-p", name, json.dumps(values[name]))]
    return shlex.join([chapter, "--profile", PROFILE, *given])


def copy_results():
    """Replace book/results by this study's pages, figures and sample file."""
    folder = Path("book", "results")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pages = [CHAPTERS / f"{chapter}.ipynb" for chapter in LEAVES]
    for path in [*pages, *RESULTS.glob("*.png"), RESULTS / "sample.nc"]:
        shutil.copy2(path, folder)


def quietly(*arguments):
    """Run a command; show what it says only if it fails."""
    done = subprocess.run(
        list(map(str, arguments)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise RuntimeError(f"{shlex.join(map(str, arguments))} failed: see above")


rule book:
    input:
        [CHAPTERS / f"{chapter}.ipynb" for chapter in LEAVES],
        ALSO["03_fused_product"],
        ["_config.yml", "_toc.yml"],
        [
            str(path.relative_to(ROOT))
            for path in sorted(Path(ROOT, "book").rglob("*"))
            if path.is_file() and not {"results", "__pycache__"} & set(path.parts)
        ],
    output:
        HTML / "index.html",
    run:
        binding = lock(Path(".snakemake/book.lock"), wait=True)  # all studies share book/results
        copy_results()
        # From nothing: Sphinx repeats no warning of a page that it has read before.
        shutil.rmtree(HTML.parent, ignore_errors=True)
        build = ["build", ".", "-W", "-n", "--keep-going", "--path-output", study.directory]
        quietly(Path(sys.executable).with_name("jupyter-book"), *build)
        quietly(sys.executable, "book/check.py", HTML)


for chapter in LEAVES:

    rule:
        name:
            chapter
        input:
            sources(chapter),
            [LEAVES[other] for other in READS[chapter]],
            ALSO["02_ynet_training"] if chapter == "08_ledger" else [],
        output:
            CHAPTERS / f"{chapter}.ipynb",
            LEAVES[chapter],
            [ALSO[chapter]] if chapter in ALSO else [],
        params:
            study=study.hash,
            command=command(chapter),
        threads: (workflow.cores or 2) if chapter in USES_ALL_CORES else 1
        shell:
            "DASK_NUM_WORKERS={threads} {sys.executable:q} notebooks/run.py {params.command}"
