"""Time of a training step and of inference at the paper's size, against plain training.

    python benchmarks/training.py

Plain: the same network in float32 with contiguous tensors and torch's default Adam, one month
read from an ``.npz`` file for each sample, as public code of YNet does. Ours: the arrays in memory,
fused Adam and the precision that `smcore.training.precision` chooses, with channels_last where
that is bfloat16, as in `smcore.training.fit`. Both in turns, medians over the repeats; values are
random.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from smcore.training import masked_mse, precision
from smcore.ynet import YNet, YNetConfig

SOURCES, COARSE, FINE, MONTHS = 25, (18, 33), (144, 264), 64


def networks(chosen):
    """The same weights twice, each with its optimiser."""
    torch.manual_seed(0)
    plain, ours = YNet(YNetConfig()), YNet(YNetConfig())
    ours.load_state_dict(plain.state_dict())
    if chosen == "bfloat16":
        ours = ours.to(memory_format=torch.channels_last)
    adam = torch.optim.Adam
    return (plain, adam(plain.parameters(), lr=1e-4)), (
        ours,
        adam(ours.parameters(), lr=1e-4, fused=True),
    )


def step(network, optimiser, x, auxiliary, y, valid, chosen):
    """One step as in `smcore.training.fit`."""
    with torch.autocast("cpu", torch.bfloat16, enabled=chosen == "bfloat16"):
        estimate = network(x, auxiliary)
    loss = masked_mse(estimate.float(), y, valid)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    random = np.random.default_rng(0)
    x = random.standard_normal((MONTHS, SOURCES, *COARSE), dtype="float32")
    y = random.standard_normal((MONTHS, 1, *FINE), dtype="float32")
    auxiliary = torch.from_numpy(random.standard_normal((1, 2, *FINE), dtype="float32"))
    valid = torch.ones(1, 1, *FINE, dtype=torch.bool)
    chosen = precision("auto")
    memory = torch.from_numpy(x), torch.from_numpy(y)
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
                fields = auxiliary.expand(size, -1, -1, -1)
                start = time.perf_counter()
                months, target = read(batch)
                step(plain, plain_adam, months, fields, target, valid, "float32")
                middle = time.perf_counter()
                here = torch.from_numpy(batch)
                step(ours, our_adam, memory[0][here], fields, memory[1][here], valid, chosen)
                times["plain"].append((middle - start) / size)
                times["ours"].append((time.perf_counter() - middle) / size)
            one, other = (statistics.median(values[1:]) for values in times.values())
            print(f"| {size} | {one:.3f} | {other:.3f} | {one / other:.2f} |", flush=True)

    rates = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            ours.eval()(memory[0][:12], auxiliary.expand(12, -1, -1, -1))
            rates.append(12 / (time.perf_counter() - start))
    print(f"\nInference: {statistics.median(rates):.0f} months a second, float32, 12 at a time.")


if __name__ == "__main__":
    main()
