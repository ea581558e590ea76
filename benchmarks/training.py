"""Time of a training step and of inference at the paper's size, against plain training.

    python benchmarks/training.py

Plain: the same network in float32 with contiguous tensors and torch's default Adam, one month
read from an ``.npz`` file for each sample, as public code of YNet does. Ours: the arrays in memory,
fused Adam and the precision and layout that `smcore.training` chooses, as in its `fit`. Both in
turns, medians over the repeats. Inference: `smcore.fusion.predict` over the months of a scenario,
each precision in a process of its own. Values are random.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # on processor cores only

import numpy as np
import pandas as pd
import torch
import xarray as xr

from smcore.fusion import predict
from smcore.tensors import Statistics
from smcore.training import Trained, autocast_to, layout_of, masked_mse, precision
from smcore.ynet import YNet, YNetConfig

SOURCES, COARSE, FINE, MONTHS = 25, (18, 33), (144, 264), 64


def networks(chosen):
    """The same weights twice, each with its optimiser."""
    torch.manual_seed(0)
    plain, ours = YNet(YNetConfig()), YNet(YNetConfig())
    ours.load_state_dict(plain.state_dict())
    ours = ours.to(memory_format=layout_of(chosen))
    adam = torch.optim.Adam
    return (plain, adam(plain.parameters(), lr=1e-4)), (
        ours,
        adam(ours.parameters(), lr=1e-4, fused=True),
    )


def step(network, optimiser, x, auxiliary, y, valid, chosen):
    """One step as in `smcore.training.fit`."""
    with autocast_to(chosen):
        estimate = network(x, auxiliary)
    loss = masked_mse(estimate.float(), y, valid)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def inference(chosen):
    """Months a second over a scenario, and the peak of the process's memory (MiB)."""
    random = np.random.default_rng(0)
    time_axis = pd.date_range("2015-01-01", periods=1032, freq="MS")
    coarse, fine = (
        {"lat": np.arange(shape[0]) * step, "lon": np.arange(shape[1]) * step}
        for shape, step in [(COARSE, 2.0), (FINE, 0.25)]
    )
    shape = (SOURCES, len(time_axis), *COARSE)
    predictors = xr.DataArray(
        random.standard_normal(shape, dtype="float32"),
        coords={"source_id": range(SOURCES), "time": time_axis, **coarse},
    )
    static = xr.Dataset(coords=fine)
    for name in ("elevation", "land_fraction"):
        static[name] = (("lat", "lon"), random.standard_normal(FINE, dtype="float32"))
    ones = {name: 1.0 for name in static}
    scaling = Statistics([0.0] * SOURCES, [1.0] * SOURCES, ones, ones, 0.25, 0.1)
    trained = Trained(YNet(YNetConfig()), scaling, pd.DataFrame(), 1, chosen, "this machine")
    start = time.perf_counter()
    predict(trained, predictors, static, land=static["elevation"].notnull())
    rate = len(time_axis) / (time.perf_counter() - start)
    return rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    random = np.random.default_rng(0)
    x = random.standard_normal((MONTHS, SOURCES, *COARSE), dtype="float32")
    y = random.standard_normal((MONTHS, 1, *FINE), dtype="float32")
    auxiliary = torch.from_numpy(random.standard_normal((12, 2, *FINE), dtype="float32"))
    valid = torch.ones(1, 1, *FINE, dtype=torch.bool)
    chosen = precision("auto")
    memory = torch.from_numpy(x).to(memory_format=layout_of(chosen)), torch.from_numpy(y)
    (plain, plain_adam), (ours, our_adam) = networks(chosen)

    with tempfile.TemporaryDirectory() as folder:
        for month in range(MONTHS):
            np.savez(Path(folder) / f"{month}.npz", x=x[month], y=y[month])

        def read(batch):
            files = [np.load(Path(folder) / f"{month}.npz") for month in batch]
            return [torch.from_numpy(np.stack([file[name] for file in files])) for name in "xy"]

        print(f"{torch.get_num_threads()} threads; ours in {chosen}\n")
        print("| batch | plain (s a sample) | ours (s a sample) | plain / ours |")
        print("|---:|---:|---:|---:|")
        for size in (1, 8):
            times = {"plain": [], "ours": []}
            for repeat in range(repeats + 1):  # the first warms up
                batch = np.arange(repeat * size, (repeat + 1) * size) % MONTHS
                fields = auxiliary[:size]
                fields_ours = fields.to(memory_format=layout_of(chosen))
                start = time.perf_counter()
                months, target = read(batch)
                step(plain, plain_adam, months, fields, target, valid, "float32")
                middle = time.perf_counter()
                here = torch.from_numpy(batch)
                step(ours, our_adam, memory[0][here], fields_ours, memory[1][here], valid, chosen)
                times["plain"].append((middle - start) / size)
                times["ours"].append((time.perf_counter() - middle) / size)
            one, other = (statistics.median(values[1:]) for values in times.values())
            print(f"| {size} | {one:.3f} | {other:.3f} | {one / other:.2f} |", flush=True)

    print("\n| inference in | months a second | peak RSS (MiB) |")
    print("|---|---:|---:|")
    fresh = multiprocessing.get_context("spawn")
    for one in dict.fromkeys(["float32", chosen]):
        with fresh.Pool(1) as pool:
            rate, peak = pool.apply(inference, (one,))
        print(f"| {one} | {rate:.0f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
