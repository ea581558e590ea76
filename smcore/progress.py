"""How far a long step has come: lines on the terminal, never on a page of the book."""

import os
import sys
import time

from tqdm import tqdm

INTERVAL = 2.0  # seconds between two lines of `track`


def duration(seconds):
    """A length of time in words, such as ``1 min 10 s``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def report(text):
    """Show a line: through ``notebooks/run.py`` where it runs the chapter, else on a terminal."""
    path = os.environ.get("SMCORE_PROGRESS")
    if path:
        if os.path.exists(path):  # a worker on another machine does not see run.py's file
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{text}\n")
    elif sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)


def track(iterable, label, total=None):
    """Pass the items on, and show how many are done and the time that the others will take.

    Parameters
    ----------
    iterable : iterable
        What a loop goes through.
    label : str
        What is being done, such as ``"epochs"``.
    total : int, optional
        Number of items, where `iterable` has no length.
    """
    if not os.environ.get("SMCORE_PROGRESS"):
        yield from tqdm(iterable, label, total, disable=not sys.stderr.isatty())
        return
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    start = shown = time.monotonic()
    for done, item in enumerate(iterable, 1):
        yield item
        now = time.monotonic()
        if now - shown < INTERVAL and not (done == total and shown > start):
            continue
        shown = now
        seconds = (now - start) / done * (total - done) if total else None
        report(f"{label} {done}/{total}, {duration(seconds)} left" if total else f"{label} {done}")
