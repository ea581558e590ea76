"""What a run of the profile `tiny` leaves, in a few numbers: to see what a change of code moves.

python tests/golden.py data/tiny > tests/golden.json
python tests/golden.py data/tiny --against tests/golden.json
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

# Six digits where only arithmetic takes part, two where a network was trained: its weights follow
# the rounding of the processor.
DIGITS = {"computed": 6, "trained": 2}
NETWORK = re.compile(r"product|ynet|sound|paper|anchored", re.IGNORECASE)
UNTRAINED_FILES = {"quality", "outside", "agreement"}
PARTLY_TRAINED_FILES = {  # their rows or columns name the datasets
    *("table2", "anatomy", "taylor", "truth", "skill_by_month", "shares", "likeness"),
    *("drying_shares", "datasets", "amounts", "baselines", "permutations"),
}


def summarise(folder):
    """Names, shapes, and mean and spread of each variable, of the prepared store to the results."""
    folder = Path(folder)
    found = {}
    for path in sorted(folder.glob("prepared/*/*.nc")):
        found[f"{path.parent.name}/{path.stem}"] = _dataset(path, "computed")
    for path in sorted(folder.glob("products/**/*.nc")):
        network, experiment_id = path.stem.split("_")[3:5]
        found[f"product {network} {experiment_id}"] = _dataset(path, "trained")
    for path in sorted(folder.glob("results/*")):
        name = re.sub(r"^\d\d_", "", path.stem)
        kind = "computed" if name in UNTRAINED_FILES else "trained"
        if path.suffix == ".nc":
            found[path.name] = _dataset(path, kind)
        elif path.suffix == ".csv":
            found[path.name] = _table(path, kind, name in PARTLY_TRAINED_FILES)
        elif path.suffix == ".json":
            claims = json.loads(path.read_text()).get("claims", {})
            found[path.name] = {"claims": sorted(claims)}
    return found


def _numbers(values, kind):
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return (
        [kind, values.size, float(values.mean()), float(values.std())] if values.size else [kind, 0]
    )


def _dataset(path, kind):
    with xr.open_dataset(path) as dataset:
        return {
            str(name): {"shape": list(field.shape), "all": _numbers(field.values, kind)}
            for name, field in dataset.data_vars.items()
            if field.dtype.kind in "fiub" and field.ndim and not str(name).endswith("_bnds")
        }


def _table(path, kind, partly):
    table = pd.read_csv(path)
    trained = np.zeros(len(table), bool)
    texts = table.select_dtypes(exclude="number")
    if partly:
        for column in texts:
            trained |= texts[column].astype(str).str.contains(NETWORK).to_numpy()
    summary = {"rows": len(table)}
    for column in table.columns:
        summary[column] = {}
        if column in texts:
            continue
        kinds = {"computed": ~trained, "trained": trained} if partly else {kind: trained | True}
        if NETWORK.search(column):
            kinds = {"trained": trained | True}
        for of, rows in kinds.items():
            if rows.any():
                summary[column][of] = _numbers(table.loc[rows, column], of)
    return summary


def differences(found, expected):
    """Lines that say where two summaries differ; empty where they agree."""
    lines = []

    def compare(where, one, other):
        if isinstance(other, dict) and isinstance(one, dict):
            for key in sorted(one.keys() | other.keys()):
                if key not in one or key not in other:
                    lines.append(f"{where}, {key}: {'new' if key in one else 'gone'}")
                else:
                    compare(f"{where}, {key}" if where else key, one[key], other[key])
        elif isinstance(other, list) and other and other[0] in DIGITS and one[:2] == other[:2]:
            scale = max(map(abs, other[2:]), default=0)
            near = 10.0 ** (1 - DIGITS[other[0]]) / 2 * scale
            if any(abs(a - b) > near for a, b in zip(one[2:], other[2:])):
                lines.append(f"{where}: {one} instead of {other}")
        elif one != other:
            lines.append(f"{where}: {one} instead of {other}")

    compare("", found, expected)
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    found = summarise(asked.folder)
    if asked.against is None:
        print(json.dumps(found, indent=0, sort_keys=True))
    else:
        lines = differences(found, json.loads(asked.against.read_text()))
        print("\n".join(lines) or "the same")
        sys.exit(bool(lines))
