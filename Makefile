# The book and what it needs. `make book PROFILE=tiny` makes another study's book.

PROFILE ?= demo
CORES ?= all
PYTHON3 ?= python3
PYTHON ?= .venv/bin/python
PORT ?= 8000
PIP_ARGS ?=
SNAKEMAKE_ARGS ?=
REALDATA ?=
ARGS ?=
BENCH ?= data/bench

SNAKEMAKE = $(PYTHON) -m snakemake --cores $(CORES) --config profile=$(PROFILE) \
    --quiet rules progress host reason \
    --nolock --rerun-incomplete --max-checksum-file-size 200MB
STUDY = $(PYTHON) -c "import sys; from smcore.config import Study; study = Study.load(sys.argv[1]);

.PHONY: book test setup data real bench serve clean
.DEFAULT_GOAL := book

# Runs the chapters that are out of date, then binds the book.
book: setup
	@$(SNAKEMAKE) $(SNAKEMAKE_ARGS)
	@$(STUDY) print('The book:', study.directory / '_build/html/index.html')" $(PROFILE)

test: setup
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The environment, once; again when requirements.txt has changed or the last attempt was cut short.
# PIP_ARGS goes to pip: an index with the CPU build of torch, for example.
setup:
ifeq ($(PYTHON),.venv/bin/python)
	@cmp -s requirements.txt .venv/requirements.txt || $(MAKE) --no-print-directory .venv
endif

.PHONY: .venv
.venv:
	@$(PYTHON3) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))" || \
	    { echo "The book needs Python 3.11, 3.12 or 3.13. Name one: make setup PYTHON3=python3.12"; exit 1; }
	@$(PYTHON3) -c "import ensurepip, venv" || \
	    { echo "Python's venv is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON3) -m venv --clear .venv
	.venv/bin/python -m pip install --no-compile $(PIP_ARGS) -r requirements.txt
	.venv/bin/python -m pip install $(PIP_ARGS) --no-deps -e .
	cp requirements.txt .venv/requirements.txt

# Fetches the native files of a study and prepares them; ARGS=--dry-run shows what it would fetch.
data: setup
	$(PYTHON) -m smcore.acquire --profile $(PROFILE) $(ARGS)

# Runs the library on a folder of real files: the plumbing, not the skill.
real: setup
	$(PYTHON) tests/real_input.py $(REALDATA)

# Measures against peers and prints tables in the form of benchmarks/RESULTS.md. The archive for the
# second one takes 2 GB, in BENCH.
bench: setup
	$(PYTHON) -m pip install $(PIP_ARGS) -r benchmarks/requirements.txt
	$(PYTHON) benchmarks/regridding.py
	$(PYTHON) benchmarks/preparation.py $(BENCH)
	$(PYTHON) benchmarks/training.py
	$(PYTHON) benchmarks/baselines.py
	$(PYTHON) benchmarks/trends.py
	$(PYTHON) benchmarks/futures.py
	$(PYTHON) benchmarks/chapters.py $(BENCH)-chapters

serve: setup
	$(STUDY) print(study.directory / '_build/html')" $(PROFILE) | \
	    xargs -I{} $(PYTHON) -m http.server --bind 127.0.0.1 --directory {} $(PORT)

# Removes what the chapters made of a study; the archive of native files stays.
clean:
	$(STUDY) import shutil; [shutil.rmtree(study.directory / name, ignore_errors=True) for name in \
	    ('prepared', 'model', 'products', 'results', 'chapters', '_build')]" $(PROFILE)
	rm -rf book/results
