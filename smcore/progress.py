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
    if path and os.path.exists(path):  # a worker on another machine does not see run.py's file
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    elif not path and sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)


def track(iterable, label, total=None):
    """Pass the items on, and show how many of `total` are done and the time left."""
    if not os.environ.get("SMCORE_PROGRESS"):
        yield from tqdm(iterable, label, total, disable=not sys.stderr.isatty())
        return
    total = len(iterable) if total is None else total
    start = shown = time.monotonic()
    for done, item in enumerate(iterable, 1):
        yield item
        now = time.monotonic()
        if now - shown >= INTERVAL or (done == total and shown > start):
            shown = now
            left = duration((now - start) / done * (total - done))
            report(f"{label} {done}/{total}, {left} left")
