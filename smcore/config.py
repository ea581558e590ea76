"""The study: what a profile says, checked before anything runs."""

import difflib
import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Literal, get_args

import pandas as pd
import shapely
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "notebooks" / "profiles"
# Kinds of error in an archive that a profile may accept, with what then counts.
ACCEPTABLE = {
    "file_name": "the months that the file holds, not those of its name",
    "conflicting_months": "the file that begins first",
    "partial_months": "the neighbours, in all months, for cells that lack a month",
    "magnitude": "the values as they are",
}
# Defects of real files that a profile may plant in the demo world (`smcore.demo.DEFECTS`).
PLANTED = ("late_start", "overlap", "other_institution", "above_saturation", "wrong_depth")
PLANTED += ("older_version", "undeclared_fill")
SCENARIOS = ("ssp126", "ssp245", "ssp370", "ssp585")
LABELS = {  # ids as a page shows them
    "ssp126": "SSP1-2.6",
    "ssp245": "SSP2-4.5",
    "ssp370": "SSP3-7.0",
    "ssp585": "SSP5-8.5",
    "ensemble_mean": "ensemble mean",
    "bias_removed": "bias removed",
    "delta_change": "delta change",
    "delta_change_31": "delta change, 31 years",
    "mean_variance_scaling": "mean and variance scaling",
    "quantile_delta_mapping": "quantile delta mapping",
}


def label(name):
    """The name by which a page shows an experiment, a dataset (``ynet_sound``) or a source."""
    name = str(name)
    network = name.removeprefix("ynet_")
    return LABELS.get(name, name if network == name else f"YNet ({network})")


def paper_claims():
    """The paper's statements by id, as in ``data/paper_claims.yml``."""
    listed = yaml.safe_load((ROOT / "data" / "paper_claims.yml").read_text(encoding="utf-8"))
    return {claim["id"]: claim for claim in listed["claims"]}


def _period(value):
    first, last = value
    if not all(len(year) == 4 and year.isdigit() for year in value):
        raise ValueError('expected two years such as ["1981", "2010"], both included')
    if first > last:
        raise ValueError("the period is empty: write the earlier year first")
    return value


def _once(values):
    if len(set(values)) < len(values):
        raise ValueError("each may be named only once")
    return values


def _odd(value):
    if value % 2 == 0:
        raise ValueError("must be odd, so that the mean has a middle year")
    return value


def _from_weak_to_strong(experiments):
    return tuple(sorted(_once(experiments), key=SCENARIOS.index))


Version = Annotated[str, Field(pattern=r"^v\d+$")]  # of a data set, such as v20190815
Period = Annotated[tuple[str, str], AfterValidator(_period)]


def _refused(value, problems):
    """A value, unless there are lines, with their own keys, on what is wrong with it."""
    if problems:
        raise PydanticCustomError("conflict", "{lines}", {"lines": "\n".join(problems)})
    return value


def _near(name, known, otherwise):
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Region(_Strict):
    """A box in degrees; a cell belongs to it when its centre does."""

    south: float
    north: float
    west: float
    east: float

    def __str__(self):
        return f"{self.south:g}–{self.north:g} N, {self.west:g}–{self.east:g} E"


class Domain(Region):
    """A box in degrees (north, east), tiled by coarse cells of `resolution` degrees."""

    south: float = 18.0
    north: float = 54.0
    west: float = 71.0
    east: float = 137.0
    resolution: float = Field(default=2.0, gt=0)


class Periods(_Strict):
    """Periods as pairs of years, both included."""

    historical: Period
    future: Period
    train: Period
    validation: Period
    test: Period
    baseline: Period
    change: tuple[Period, ...]

    @field_validator("future", "train", "validation", "test", "baseline")
    @classmethod
    def _beside_the_others(cls, period, info):
        key, years = info.field_name, [*map(int, period)]
        before = {name: [*map(int, pair)] for name, pair in info.data.items()}
        past, problems = before.get("historical", [years[0], years[-1]]), []
        if key != "future" and not past[0] <= years[0] <= years[1] <= past[1]:
            expected = f"expected years within periods.historical {past}"
            problems.append(
                f"periods.{key}: {years}: {expected}; widen that period or move this one"
            )
        elif key == "future" and "historical" in before and years[0] != past[1] + 1:
            expected = f"expected to begin in {past[1] + 1}, the year after periods.historical"
            problems.append(f"periods.future: {years}: {expected}: scenarios continue that run")
        for other in ("train", "validation") if key in ("validation", "test") else ():
            if other in before and years[0] <= before[other][1] and before[other][0] <= years[1]:
                problems.append(
                    f"periods.{other}, periods.{key}: {before[other]}, {years}: they overlap, so "
                    "the network would be judged on months it has seen; move one of them"
                )
        return _refused(period, problems)

    @field_validator("change")
    @classmethod
    def _within_the_future(cls, change, info):
        first, last = info.data.get("future", ("0000", "9999"))
        outside = [list(pair) for pair in change if not first <= pair[0] <= pair[1] <= last]
        expected = f"expected years within periods.future {[first, last]}"
        return _refused(change, [f"periods.change: {pair}: {expected}" for pair in outside])


class StudyArea(_Strict):
    """The polygons to which shares of area refer, beside all land in the box."""

    name: str
    countries: tuple[str, ...]  # ISO 3166-1 numeric codes in data/countries.geojson


class Network(_Strict):
    """A network preset: the network, what it sees, and how it is trained."""

    name: str
    features: int = Field(default=64, gt=0)
    depth: int = Field(default=15, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    regridding: Literal["bilinear", "conservative"]
    standardisation: Literal["none", "source"]
    initialisation: Literal["default", "he"]
    clip_features: bool  # the ReLU after the trunk's last addition, as published
    skips: bool = True  # connections from the encoder to the decoder
    auxiliary: Literal["static", "climatology", "none"] = "static"  # fields on the fine grid
    # the network corrects the reference's climatology plus the mean anomaly of the sources
    anchored: bool = False
    # years of the running mean of anchored inputs
    smoothing: Annotated[int, AfterValidator(_odd)] = Field(default=1, gt=0)
    # years by which a month of the reference may be another one than that of the predictors
    pairing: int = Field(default=0, ge=0)
    optimiser: Literal["adam", "adamw"]
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "cosine"]
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(gt=0)
    epochs: int = Field(gt=0)
    patience: int | None = Field(default=None, gt=0)  # epochs without a better validation loss
    precision: Literal["float32", "auto"] = "float32"  # auto: bfloat16 where there are units for it
    seed: int = 0


NETWORKS = {
    name: Network(name=name, **keys)
    for name, keys in yaml.safe_load((ROOT / "notebooks" / "networks.yml").read_text()).items()
}


class DemoWorld(_Strict):
    """Switches of the synthetic archive."""

    reference_resolution: float = Field(default=0.1, gt=0)  # degrees
    # 0: every source has its own weather; 1: all share the weather of the reference
    shared_weather: float = Field(default=0.0, ge=0, le=1)
    # growth of each source's bias, in units of that bias per century
    bias_drift: float = 0.0
    # defects of real files, planted in the files of a source
    defects: dict[str, tuple[Literal[PLANTED], ...]] = {}


class Study(_Strict):
    """One study: sources, experiments, periods, domain, grids, directories, network.

    Load it with `Study.load`; its fields are the keys of ``notebooks/profiles/<name>.yml``.
    """

    name: str
    title: str
    network: Network
    # presets that are trained and scored beside it, with their changes
    compared: dict[str, Network] = {}
    # an ensemble of networks, one for each; by default one network with the seed of the preset
    seeds: Annotated[tuple[int, ...], AfterValidator(_once)] = ()
    model_table: Path
    sources: Annotated[tuple[str, ...], AfterValidator(_once)] = Field(min_length=1)
    experiments: Annotated[tuple[Literal[SCENARIOS], ...], AfterValidator(_from_weak_to_strong)] = (
        Field(default=SCENARIOS, min_length=1)
    )
    periods: Periods
    domain: Domain = Domain()
    scale_factor: int = Field(default=8, gt=1)  # fine cells per coarse cell, along each axis
    registration: Literal["nested", "paper"] = "nested"
    depth: Literal["0-7cm", "0-10cm"] = "0-7cm"
    # a first month that is missing: refused, or the mean of that month in the next ten years
    missing_first_month: Literal["refuse", "climatology"] = "refuse"
    versions: dict[str, dict[Literal["historical", *SCENARIOS], Version]] = {}  # by source
    accepted: dict[str, tuple[Literal[tuple(ACCEPTABLE)], ...]] = {}  # by source
    study_area: StudyArea
    regions: dict[str, Region]
    sites: dict[str, tuple[float, float]]  # longitude, latitude
    directory: Path
    cmip6_directory: Path
    era5land_directory: Path
    results: Path  # tables and numbers that the chapters leave
    demo: DemoWorld | None = None

    @field_validator("model_table")
    @classmethod
    def _is_there(cls, path):
        text = f"model_table: {str(path)!r}: there is no such file; name a CSV table"
        return _refused(path, [] if path.is_file() else [text])

    @field_validator("sources")
    @classmethod
    def _in_the_model_table(cls, sources, info):
        table = info.data.get("model_table")
        models = [] if table is None else list(_model_table(table).index)
        unknown = [name for name in sources if table and name not in models]
        hints = [_near(name, models, f"add it to {table.name}") for name in unknown]
        text = "sources: {!r}: not in the model table; {}"
        return _refused(sources, [text.format(*pair) for pair in zip(unknown, hints, strict=True)])

    @field_validator("versions", "accepted", "demo")
    @classmethod
    def _of_the_sources(cls, value, info):
        key = "demo.defects" if info.field_name == "demo" else info.field_name
        keyed = getattr(value, "defects", value) or {}
        others = sorted(set(keyed) - set(info.data.get("sources", keyed)))
        text = "not one of the study's sources; name one of them"
        return _refused(value, [f"{key}: {source_id!r}: {text}" for source_id in others])

    @field_validator("domain")
    @classmethod
    def _in_whole_cells(cls, domain):
        problems, step = [], domain.resolution
        sides = ("latitude", domain.south, domain.north), ("longitude", domain.west, domain.east)
        for axis, low, high in sides:
            cells = (high - low) / step
            if cells < 2 or abs(cells - round(cells)) > 1e-6:
                problems.append(
                    f"domain: {axis} {low} to {high}: {high - low} degrees are not two or more "
                    f"whole coarse cells of {step} degrees; move an edge"
                )
        return _refused(domain, problems)

    @field_validator("regions")
    @classmethod
    def _of_the_chapters(cls, regions):
        missing = ", ".join(sorted({"north", "south", "west"} - set(regions)))
        text = f"regions: {missing}: missing; the chapters compare these three"
        return _refused(regions, [text] if missing else [])

    @field_validator("sites")
    @classmethod
    def _in_the_domain(cls, sites, info):
        box, text = info.data.get("domain"), "expected longitude and latitude in the domain"
        outside = [
            f"sites.{name}: {[lon, lat]}: {text}, {box}"
            for name, (lon, lat) in sites.items()
            if box and not (box.west <= lon <= box.east and box.south <= lat <= box.north)
        ]
        return _refused(sites, outside)

    @classmethod
    def load(cls, profile, **overrides):
        """The study that a profile describes.

        Parameters
        ----------
        profile : str or Path
            Name of a profile in ``notebooks/profiles``, or the path of a YAML file.
        **overrides
            Keys of the profile with other values. Mappings are merged into the profile's;
            ``None``, also inside a mapping, means "as the profile says".

        Raises
        ------
        FileNotFoundError
            If there is no such profile; the message lists those that exist.
        ValueError
            If anything in it is wrong. The message lists every problem with its key, its
            value, what was expected and the remedy.
        """
        path = Path(profile)
        if path.suffix not in (".yml", ".yaml"):
            path = PROFILES / f"{profile}.yml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yml")))
            raise FileNotFoundError(
                f"there is no profile {str(profile)!r}: name one of {known}, or a .yml file"
            )
        try:
            raw = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"profile {path} cannot be read as YAML: {error}") from error
        if not isinstance(raw, dict):
            raise ValueError(f"profile {path}: expected `key: value` lines, got {raw!r}")
        raw = _merge(raw, overrides) | {"name": path.stem}
        problems = _resolve(raw)
        try:
            study = cls(**raw)
        except ValidationError as error:
            problems += [_describe(cls, problem) for problem in error.errors()]
        if problems:
            problems = "\n".join(problems).splitlines()
            lines = "\n".join(f"  - {problem}" for problem in problems)
            raise ValueError(f"profile {path} has {len(lines.splitlines())} problem(s):\n{lines}")
        return study

    @property
    def synthetic(self):
        """Whether the archive is the demo world."""
        return self.demo is not None

    @property
    def models(self):
        """The study's rows of the model table, a DataFrame indexed by ``source_id``."""
        return _model_table(self.model_table).loc[list(self.sources)]

    def variant_label(self, source_id, experiment_id):
        """The member of a source that the model table names for an experiment."""
        column = "member_hist" if experiment_id == "historical" else "member_ssp"
        return self.models.loc[source_id, column]

    def period(self, experiment_id):
        """First and last year of an experiment in this study."""
        return self.periods.historical if experiment_id == "historical" else self.periods.future

    @property
    def presets(self):
        """This study by the name of its network, and one like it for each compared preset."""
        networks = {self.network.name: self.network} | self.compared
        return {
            name: self.model_copy(update={"network": network, "compared": {}})
            for name, network in networks.items()
        }

    @property
    def members(self):
        """Studies with one network each: the members of the ensemble, or the study itself."""
        if not self.seeds:
            return (self,)
        networks = [self.network.model_copy(update={"seed": seed}) for seed in self.seeds]
        return tuple(self.model_copy(update={"seeds": (), "network": one}) for one in networks)

    @property
    def prepared(self):
        """Directory of the prepared store: one for each way of regridding."""
        return self.directory / "prepared" / f"{self.network.regridding}-{self.registration}"

    @property
    def model(self):
        """Directory of the trained network and its checkpoints: one for each configuration."""
        data = ("sources", "domain", "scale_factor", "registration", "depth", "demo", "network")
        periods = {key: getattr(self.periods, key) for key in ("train", "validation")}
        key = _digest([self.model_dump(mode="json", include=set(data)), periods])
        return self.directory / "model" / f"{self.network.name}-{key}"

    def product(self, experiment_id):
        """Path of the product of one experiment."""
        first, last = self.period(experiment_id)
        name = f"smcore_theta_{self.name}_{self.network.name}_{experiment_id}_{first}01-{last}12.nc"
        return self.directory / "products" / name

    @property
    def outline(self):
        """The polygons of the study area as one shapely geometry, in degrees."""
        collection = json.loads((ROOT / "data" / "countries.geojson").read_text())
        shapes = {
            str(feature["properties"]["id"]): shapely.geometry.shape(feature["geometry"])
            for feature in collection["features"]
        }
        unknown = sorted(set(self.study_area.countries) - set(shapes))
        if unknown:
            raise ValueError(
                f"study_area.countries: {unknown}: no such codes in data/countries.geojson; "
                "ISO 3166-1 numeric codes such as '156' are expected"
            )
        return shapely.union_all([shapes[code] for code in self.study_area.countries])

    @property
    def chapters(self):
        """Directory of the executed chapters."""
        return self.directory / "chapters"

    @property
    def edition(self):
        """One sentence on what the numbers of this study are made of."""
        origin = (
            "Synthetic data: a demo world with invented sources, reference and truth; nothing "
            "here describes a real climate."
            if self.synthetic
            else "Made from the CMIP6 and ERA5-Land archives."
        )
        return (
            f"{origin} Profile {self.name}, network {self.network.name}, {len(self.sources)} "
            f"sources; trained on {'-'.join(self.periods.train)}, tested on "
            f"{'-'.join(self.periods.test)}."
        )

    def __repr__(self):
        return f"<Study {self.name}, network {self.network.name}>"

    def _repr_markdown_(self):
        return f"**{self.edition}**"

    def fingerprint(self, *keys):
        """Twelve hexadecimal digits that change when one of the named keys changes."""
        return _digest(self.model_dump(mode="json", include=set(keys)))

    @property
    def hash(self):
        """Fingerprint of everything except titles and places."""
        places = {"title", "directory", "cmip6_directory", "era5land_directory", "results"}
        places |= {"model_table"}
        return self.fingerprint(*(set(type(self).model_fields) - places))


def _digest(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _merge(mapping, overrides):
    merged = dict(mapping)
    for key, value in overrides.items():
        if isinstance(value, dict):
            inner = mapping.get(key)
            merged[key] = _merge(inner if isinstance(inner, dict) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _model_table(path):
    return pd.read_csv(path, keep_default_na=False).set_index("source_id")


def _resolve(raw):
    """Fill in presets, paths and sources; return what is wrong with the presets."""
    problems, presets = [], f"expected one of {', '.join(NETWORKS)}"
    preset, changes = raw.get("network"), raw.pop("training", None) or {}
    if not isinstance(changes, dict):
        problems.append(f"training: {changes!r}: expected `key: value` lines such as epochs: 3")
        changes = {}
    if str(preset) in NETWORKS:
        raw["network"] = NETWORKS[preset].model_dump() | changes
        if isinstance(raw.get("seeds"), list | tuple) and raw["seeds"]:
            raw["network"]["seed"] = raw["seeds"][0]
    else:
        problems.append(f"network: {preset!r}: {presets}")
        raw["network"] = NETWORKS["paper"]

    compared, raw["compared"] = raw.get("compared") or {}, {}
    if not isinstance(compared, dict):
        text = "expected presets with their changes, such as anchored: {}"
        problems.append(f"compared: {compared!r}: {text}")
        compared = {}
    for name, changes in compared.items():
        if name not in NETWORKS:
            problems.append(f"compared: {name!r}: {presets}")
        elif not isinstance(changes or {}, dict):
            problems.append(f"compared.{name}: {changes!r}: expected `key: value` lines or {{}}")
        elif name != preset:
            raw["compared"][name] = NETWORKS[name].model_dump() | (changes or {})

    raw.setdefault("directory", f"data/{raw['name']}")
    paths = {"results": "results", "cmip6_directory": "archive/CMIP6"}
    paths |= {"era5land_directory": "archive/ERA5-Land"}
    for key, below in paths.items():
        raw.setdefault(key, f"{raw['directory']}/{below}")
    for key in ("directory", "model_table", *paths):
        raw[key] = ROOT / Path(os.path.expandvars(str(raw.get(key)))).expanduser()
    if raw.get("sources") is None:
        raw["sources"] = ("unknown",)  # with a table that is not there
        if raw["model_table"].is_file():
            models = _model_table(raw["model_table"])
            raw["sources"] = tuple(models.index[models["default25"] == "yes"])
    return problems


def _describe(model, problem):
    """One line for a pydantic problem: key, value, expectation, remedy."""
    if problem["type"] == "conflict":
        return problem["msg"]
    where = ".".join(str(part) for part in problem["loc"])
    if where.startswith("network."):  # the profile's `training` changes the preset
        where = where.replace("network", "training", 1)
    if problem["type"] == "extra_forbidden":
        for part in problem["loc"][:-1]:
            if part in model.model_fields:
                kind = model.model_fields[part].annotation
                inner = [m for m in (kind, *get_args(kind)) if hasattr(m, "model_fields")]
                model = inner[0] if inner else model  # a region may be named as one of its keys
        known = list(model.model_fields)
        hint = _near(problem["loc"][-1], known, f"the keys are {', '.join(known)}")
        return f"{where}: {problem['input']!r}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{where}: this key is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {problem['input']!r}: {message[0].lower() + message[1:]}"
