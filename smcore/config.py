"""The study: what a profile says, checked before anything runs."""

import difflib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Literal, get_args

import pandas as pd
import shapely
import yaml
from pydantic import AfterValidator, Field, ValidationError, field_validator

from smcore.profile import ROOT, DemoWorld, Domain, Network, Periods, Region, Strict, StudyArea

PROFILES = ROOT / "notebooks" / "profiles"
# Kinds of error in an archive that a profile may accept, with what then counts.
ACCEPTABLE = {
    "file_name": "the months that the file holds, not those of its name",
    "conflicting_months": "the file that begins first",
    "partial_months": "the neighbours, in all months, for cells that lack a month",
    "magnitude": "the values as they are",
}
FOLDERS = {  # by default, below the study's directory
    "cmip6_directory": "archive/CMIP6",
    "era5land_directory": "archive/ERA5-Land",
    "results": "results",
}
SCENARIOS = ("ssp126", "ssp245", "ssp370", "ssp585")
LABELS = yaml.safe_load((ROOT / "data" / "labels.yml").read_text(encoding="utf-8"))


def label(name):
    """The name by which a page shows an experiment, a dataset (``ynet_sound``) or a source."""
    name = str(name)
    network = name.removeprefix("ynet_")
    return LABELS.get(name, name if network == name else f"YNet ({network})")


def paper_claims():
    """The paper's statements by id, as in ``data/paper_claims.yml``."""
    text = (ROOT / "data" / "paper_claims.yml").read_text(encoding="utf-8")
    return {claim["id"]: claim for claim in yaml.safe_load(text)["claims"]}


def _once(values):
    if len(set(values)) < len(values):
        raise ValueError("each may be named only once")
    return values


def _near(name, known, otherwise):
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def _from_root(path):
    found = os.path.expandvars(str(path))
    if unset := re.search(r"\$(\w+|{\w+})", found):
        raise ValueError(f"the variable {unset[0]} is not set; set it, or write the path in full")
    return ROOT / Path(found).expanduser()


def _existing(path):
    if not path.is_file():
        raise ValueError("there is no such file; name a CSV table")
    return path


def _model_table(path):
    return pd.read_csv(path, keep_default_na=False).set_index("source_id")


def _in_the_table(source_id, info):
    if table := info.data.get("model_table"):
        known = list(_model_table(table).index)
        if source_id not in known:
            hint = _near(source_id, known, f"add it to {table.name}")
            raise ValueError(f"not in the model table; {hint}")
    return source_id


def _of_the_sources(value, info):
    keyed = getattr(value, "defects", value) or {}  # those of the demo world
    if others := set(keyed) - set(info.data.get("sources", keyed)):
        raise ValueError(f"{sorted(others)}: not one of the study's sources; name one of them")
    return value


def _of_the_chapters(regions):
    if missing := ", ".join(sorted({"north", "south", "west"} - set(regions))):
        raise ValueError(f"{missing}: missing; the chapters compare north, south and west")
    return regions


def _in_the_domain(site, info):
    box, (lon, lat) = info.data.get("domain"), site
    if box and not (box.west <= lon <= box.east and box.south <= lat <= box.north):
        raise ValueError(f"expected longitude and latitude in the domain, {box}")
    return site


Version = Annotated[str, Field(pattern=r"^v\d+$")]  # of a data set, such as v20190815
Place = Annotated[Path, AfterValidator(_from_root)]
Experiments = Annotated[
    tuple[Literal[SCENARIOS], ...],
    AfterValidator(lambda names: tuple(sorted(_once(names), key=SCENARIOS.index))),
]
Source = Annotated[str, AfterValidator(_in_the_table)]
Site = Annotated[tuple[float, float], AfterValidator(_in_the_domain)]  # longitude, latitude


class Study(Strict):
    """One study; its fields are the keys of ``notebooks/profiles/<name>.yml``: see `load`."""

    name: str
    title: str
    network: Network
    compared: dict[str, Network] = {}  # presets to train and score beside it, with changes
    # an ensemble of networks, one for each; by default one network with the seed of the preset
    seeds: Annotated[tuple[int, ...], AfterValidator(_once)] = ()
    model_table: Annotated[Place, AfterValidator(_existing)]
    # by default those that the table marks
    sources: Annotated[tuple[Source, ...], AfterValidator(_once), Field(min_length=1)] = None
    experiments: Experiments = Field(default=SCENARIOS, min_length=1)
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
    regions: Annotated[dict[str, Region], AfterValidator(_of_the_chapters)]
    sites: dict[str, Site]
    directory: Place
    cmip6_directory: Place = None
    era5land_directory: Place = None
    results: Place = None  # tables and numbers that the chapters leave
    demo: DemoWorld | None = None
    _named = field_validator("versions", "accepted", "demo")(_of_the_sources)

    @field_validator("sources", mode="before")
    @classmethod
    def _of_the_table(cls, sources, info):
        if sources is not None:
            return sources
        if "model_table" not in info.data:
            raise ValueError("name the sources, or mend model_table, which marks them")
        return list(_model_table(info.data["model_table"]).query("default25 == 'yes'").index)

    @field_validator(*FOLDERS, mode="before")
    @classmethod
    def _below_the_directory(cls, place, info):
        return place or info.data.get("directory", ROOT) / FOLDERS[info.field_name]

    @field_validator("compared", mode="before")
    @classmethod
    def _changes_of_presets(cls, compared, info):
        if not isinstance(compared := compared or {}, dict):
            raise ValueError("expected presets with their changes, such as anchored: {}")
        own = getattr(info.data.get("network"), "name", None)
        named = {name: keys or {} for name, keys in compared.items() if name != own}
        for name, keys in named.items():
            named[name] = {"name": name} | keys if isinstance(keys, dict) else keys
        return named

    @classmethod
    def load(cls, profile, **overrides):
        """The study that a profile describes.

        Parameters
        ----------
        profile : str or Path
            Name of a profile in ``notebooks/profiles``, or the path of a YAML file.
        **overrides
            Keys with other values, mappings merged into the profile's; ``None``, also inside a
            mapping, means "as the profile says".

        Raises
        ------
        FileNotFoundError
            If there is no such profile, with those that exist.
        ValueError
            If anything in it is wrong, with every problem and its remedy.
        """
        path = Path(profile)
        if path.suffix not in (".yml", ".yaml"):
            path = PROFILES / f"{profile}.yml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yml")))
            text = f"there is no profile {str(profile)!r}"
            raise FileNotFoundError(f"{text}: name one of {known}, or a .yml file")
        try:
            raw = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"profile {path} cannot be read as YAML: {error}") from error
        if not isinstance(raw, dict):
            raise ValueError(f"profile {path}: expected `key: value` lines, got {raw!r}")
        raw = _merge(raw, overrides) | {"name": path.stem}
        raw["directory"] = raw.get("directory") or f"data/{path.stem}"
        network = raw.pop("training", None) or {}
        if isinstance(network, dict):
            network = {"name": raw.get("network")} | network
            if isinstance(raw.get("seeds"), list | tuple) and raw["seeds"]:
                network["seed"] = raw["seeds"][0]
        try:
            return cls.model_validate(raw | {"network": network})
        except ValidationError as error:
            lines = "\n".join(_describe(cls, one) for one in error.errors()).splitlines()
            problems = "".join(f"\n  - {line}" for line in lines)
            raise ValueError(f"profile {path} has {len(lines)} problem(s):{problems}") from None

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
        alone = self.model_copy(update={"compared": {}})
        networks = {self.network.name: self.network} | self.compared
        return {name: alone.model_copy(update={"network": one}) for name, one in networks.items()}

    @property
    def members(self):
        """Studies with one network each: the members of the ensemble, or the study itself."""
        networks = [self.network.model_copy(update={"seed": seed}) for seed in self.seeds]
        studies = [self.model_copy(update={"seeds": (), "network": one}) for one in networks]
        return tuple(studies) or (self,)

    @property
    def prepared(self):
        """Directory of the prepared store: one for each way of regridding."""
        return self.directory / "prepared" / f"{self.network.regridding}-{self.registration}"

    @property
    def model(self):
        """Directory of the trained network and its checkpoints: one for each configuration."""
        data = {"sources", "domain", "scale_factor", "registration", "depth", "demo", "network"}
        periods = self.periods.model_dump(include={"train", "validation"})
        key = _digest([self.model_dump(mode="json", include=data), periods])
        return self.directory / "model" / f"{self.network.name}-{key}"

    def product(self, experiment_id):
        """Path of the product of one experiment, in a folder for each configuration."""
        first, last = self.period(experiment_id)
        name = f"smcore_theta_{self.name}_{self.network.name}_{experiment_id}_{first}01-{last}12.nc"
        key = _digest([member.model.name for member in self.members])
        return self.directory / "products" / f"{self.network.name}-{key}" / name

    def settings(self, *keys):
        """Plain values by key, such as ``periods.train``, or None, for the records of what is kept.

        ``models.NorESM2-LM.grid_label`` is of the model table.
        """
        values = self.model_dump(mode="json")
        found = dict.fromkeys(keys, values | {"models": self.models.astype(str).to_dict("index")})
        for key in keys:
            for part in key.split("."):
                found[key] = found[key].get(part) if isinstance(found[key], dict) else None
        return found

    @property
    def outline(self):
        """The polygons of the study area as one shapely geometry, in degrees."""
        countries = self.study_area.countries
        features = json.loads((ROOT / "data" / "countries.geojson").read_text())["features"]
        shapes = {str(one["properties"]["id"]): one["geometry"] for one in features}
        if unknown := sorted(set(countries) - set(shapes)):
            text = f"study_area.countries: {unknown}: no such codes in data/countries.geojson"
            raise ValueError(f"{text}; expected ISO 3166-1 numeric codes such as '156'")
        return shapely.union_all([shapely.geometry.shape(shapes[code]) for code in countries])

    @property
    def edition(self):
        """One sentence on what the numbers of this study are made of."""
        made = "Made from the CMIP6 and ERA5-Land archives."
        if self.synthetic:
            made = "Synthetic data: a demo world with invented sources, reference and truth; "
            made += "nothing here describes a real climate."
        made += f" Profile {self.name}, network {self.network.name}, {len(self.sources)} sources"
        train, test = ("-".join(years) for years in (self.periods.train, self.periods.test))
        return f"{made}; trained on {train}, tested on {test}."

    def __repr__(self):
        return f"<Study {self.name}, network {self.network.name}>"

    def _repr_markdown_(self):
        return f"**{self.edition}**"

    @property
    def hash(self):
        """Twelve hexadecimal digits that change with anything except titles and places."""
        places = {"title", "directory", "model_table", *FOLDERS}
        return _digest(self.model_dump(mode="json", exclude=places))


def _digest(values):
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def _merge(below, above):
    if not isinstance(above, dict):
        return above
    below = below if isinstance(below, dict) else {}
    given = {key: value for key, value in above.items() if value is not None}
    return below | {key: _merge(below.get(key), value) for key, value in given.items()}


def _describe(model, problem):
    """One line for a pydantic problem: key, value, expectation, remedy."""
    if problem["type"] == "conflict":
        return problem["msg"]
    where, value = ".".join(map(str, problem["loc"])), problem["input"]
    if isinstance(value, dict) and "name" in value:  # a network
        value = value["name"]
    else:  # the profile's `training` changes the preset
        where = re.sub(r"^network\b", "training", where)
    if problem["type"] == "missing":
        return f"{where}: this key is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        if parents:  # the key of one model, or of a dict of models
            kind = model.model_fields[parents[0]].annotation
            model = next(one for one in (kind, *get_args(kind)) if hasattr(one, "model_fields"))
        known = ", ".join(model.model_fields)
        message = f"unknown key; {_near(key, known.split(', '), f'the keys are {known}')}"
    return f"{where}: {value!r}: {message[0].lower() + message[1:]}"


def labelled(table, **names):
    """A pd.DataFrame with its ids, of rows and columns, as a page shows them, or as in `names`."""
    return table.rename(index=names).rename(index=label, columns=label).rename_axis(index=None)
