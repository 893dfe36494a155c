"""What the command line draws."""

import json
import subprocess

import pytest

from tailcast.cli.intervals import Axis, axis_of
from tailcast.cli.view import show_estimates
from tiny import call


def row(p, low, high):
    return {"p": p, "ci_low": low, "ci_high": high}


@pytest.mark.parametrize(
    ("found", "bar"),
    [
        (row(1e-2, 1e-3, 1e-1), "  ├─●─┤  "),
        (row(1e-4, 0.0, 1e-3), "●─┤      "),
        (row(None, 0.0, 1e-2), "────┤    "),
        (row(1.0, 1e-1, 1.0), "      ├─●"),
        (row(1e-9, 1e-9, 1e-9), "●        "),
    ],
)
def test_a_bar_stands_where_its_numbers_are(found, bar):
    assert Axis(-4, 0, 9).bar(found) == bar


def test_the_axis_holds_all_rows_and_says_its_ends():
    axis = axis_of([row(3e-4, 2e-5, 1e-3), row(None, 0.0, 0.03)])
    assert (axis.low, axis.high) == (-5, -1)
    assert axis.title.startswith("1e-5") and axis.title.endswith("1e-1")
    assert len(axis.title) == axis.width
    assert [(one.low, one.high) for one in (axis_of([row(None, 0.0, 1.0)]), axis_of([]))] == [
        (-1, 0)
    ] * 2


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_narrow_terminal_has_no_plot(capsys, monkeypatch, tmp_path, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1") if columns == "80" else None
    found = row(1e-2, 1e-3, 1e-1) | {
        "query_id": "q", "method": "mc", "p_low": 0.0, "n_hits": 1, "n": 9, "verdict": "ok",
        "prompt": "x", "level": 0.95, "reasons": [],
    }  # fmt: skip
    (tmp_path / "estimates.jsonl").write_text(json.dumps(found) + "\n")
    show_estimates([found], tmp_path, as_json=False)
    out = capsys.readouterr().out
    assert ("●" in out) == (columns == "200")
    assert "\x1b[3" not in out  # no colour


@pytest.mark.parametrize(("columns", "held"), [("85", ""), ("110", "p"), ("140", "p●")])
def test_no_number_is_cut_where_the_terminal_is_narrow(
    capsys, monkeypatch, tmp_path, columns, held
):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    found = row(1e-2, 1e-3, 1e-1) | {
        "query_id": "query-1", "method": "mixture", "p_low": 1e-4, "n_hits": 1234, "n": 5678,
        "verdict": "unreliable", "prompt": "p" * 60, "level": 0.95, "reasons": ["few hits"],
    }  # fmt: skip
    show_estimates([found], tmp_path, as_json=False)
    line = capsys.readouterr().out.splitlines()[1]
    for cell in (
        "query-1",
        "1.00e-02",
        "1.0e-03 .. 1.0e-01",
        "1.0e-04",
        "1234 / 5678",
        "unreliable",
    ):
        assert cell in line
    assert ("pp" in line, "●" in line) == ("p" in held, "●" in held)


def test_a_shell_completes_verbs(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    script = tmp_path / "tailcast.bash"
    code, _, err = call(capsys, "--install-completion", "--shell", "bash", "--output", script)
    assert code == 0, err
    words = ["bash", "-c", f"source {script} && complete -p tailcast"]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "tailcast" in found.stdout and "estimate" in script.read_text()
