import io
import itertools

import pytest

from smcore import progress


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """Reads what was reported so far, as run.py does."""
    path = tmp_path / "progress"
    path.touch()
    monkeypatch.setenv("SMCORE_PROGRESS", str(path))
    return lambda: path.read_text().splitlines()


def _clock(monkeypatch, *times):
    times = itertools.chain(times, itertools.repeat(times[-1]))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (70, "1 min 10 s"), (3725, "1 h 2 min")],
)
def test_duration_names_the_two_largest_units(seconds, words):
    assert progress.duration(seconds) == words


def test_report_appends_a_line(lines):
    progress.report("epoch 1, loss 0.31")
    progress.report("epoch 2, loss 0.25")
    assert lines() == ["epoch 1, loss 0.31", "epoch 2, loss 0.25"]


def test_report_is_silent_where_the_file_is_on_another_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("SMCORE_PROGRESS", str(tmp_path / "gone" / "progress"))
    progress.report("epoch 1")
    assert not (tmp_path / "gone").exists()


def test_report_and_track_are_silent_without_a_reader(monkeypatch, capfd):
    monkeypatch.delenv("SMCORE_PROGRESS", raising=False)
    progress.report("epoch 1")
    assert list(progress.track([1, 2], "epochs")) == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_track_draws_a_bar_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.delenv("SMCORE_PROGRESS", raising=False)
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    assert list(progress.track([1, 2], "epochs")) == [1, 2]
    assert "epochs: 100%" in terminal.getvalue()


def test_track_tells_the_time_left_about_every_two_seconds(lines, monkeypatch):
    # start, then the ends of items 1 to 4: the first second passes in silence
    _clock(monkeypatch, 100, 101, 102, 103, 104)
    assert list(progress.track(range(4), "months")) == [0, 1, 2, 3]
    assert lines() == ["months 2/4, 2 s left", "months 4/4, 0 s left"]


def test_track_of_quick_work_says_nothing(lines, monkeypatch):
    _clock(monkeypatch, 100, 100.1, 100.2)
    assert list(progress.track(range(2), "months")) == [0, 1]
    assert lines() == []


def test_track_takes_the_total_where_there_is_no_length(lines, monkeypatch):
    _clock(monkeypatch, 100, 110)
    next_item = progress.track(iter("ab"), "files", total=2)
    assert [next(next_item), next(next_item)] == ["a", "b"]
    assert lines() == ["files 1/2, 10 s left"]
