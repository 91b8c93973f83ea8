"""G5: the fuzzing command says what it did, and fails where it found something."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from benchmarks.fuzz import __main__ as command
from benchmarks.fuzz import running
from benchmarks.fuzz.running import Result

HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


def called(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fuzz", *arguments])
    return command.main()


def test_what_libfuzzer_says_is_counted():
    result = Result("json")

    running._take(result, 100, "#4096\tpulse  cov: 239 ft: 361 corp: 33/4886b lim: 9 exec/s: 2\n")
    running._take(result, 100, "INFO: Seed: 1\n")
    running._take(result, 100, "FINDING /a/b KeyError at x.py:1: 'no'\n")

    assert (result.executions, result.coverage, result.features, result.corpus) == (
        *(4196, 239, 361),
        33,
    )
    assert result.findings == ["/a/b KeyError at x.py:1: 'no'"]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_counts_and_the_path_of_each_finding_are_printed(capsys, as_json):
    clean = Result("json", 10.0, 50_000, 30, 90, 12)
    faulty = Result("pt", 10.0, 20_000, 400, 900, 120, ["/a/b KeyError at x.py:1"])

    command._print([clean, faulty], as_json=as_json)

    text = capsys.readouterr().out
    assert "/a/b KeyError at x.py:1" in text
    if as_json:
        document = json.loads(text)
        assert (document["executions"], document["findings"]) == (70_000, 1)
        assert document["targets"][0]["speed"] == 5000
    else:
        assert "| json | 50,000 | 5,000 | 30 | 90 | 12 | 0 |" in text
        assert "70,000 executions in 20 seconds, 1 findings" in text


def test_an_unknown_target_is_refused_with_those_that_there_are(monkeypatch, capsys):
    with pytest.raises(SystemExit) as refused:
        called(monkeypatch, "nosuch")

    assert refused.value.code == 2
    assert "no target nosuch; there are pt, torch, pickle" in capsys.readouterr().err


@pytest.mark.skipif(HAS_ATHERIS, reason="atheris is installed here")
def test_without_atheris_the_command_says_what_to_install(monkeypatch, capsys):
    assert called(monkeypatch, "json") == 2
    assert "pip install 'ckptstore[fuzz]'" in capsys.readouterr().out


@pytest.mark.skipif(HAS_ATHERIS, reason="atheris is installed here")
def test_a_worker_that_does_not_run_is_an_error_and_no_success(tmp_path):
    with pytest.raises(RuntimeError, match="the worker of json does not run:(.|\n)*atheris"):
        running.run(
            "json",
            seconds=5,
            corpus=tmp_path / "corpus",
            findings=tmp_path / "findings",
            tell=lambda result: None,
        )


@pytest.mark.skipif(not HAS_ATHERIS, reason="needs atheris")
def test_a_short_run_finds_nothing(monkeypatch, tmp_path, capsys):
    folders = ("--corpus", str(tmp_path / "corpus"), "--findings", str(tmp_path / "findings"))

    assert called(monkeypatch, "json", "--seconds", "5", "--json", *folders) == 0
    assert json.loads(capsys.readouterr().out)["executions"] > 0
