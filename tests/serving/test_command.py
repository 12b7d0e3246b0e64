"""What `fomo serve` refuses before it listens."""

import importlib.util

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.serving import packages


@pytest.fixture
def in_home(home, monkeypatch):
    monkeypatch.setenv("FOMO_HOME", str(home.root))
    monkeypatch.delenv("FOMO_STORE", raising=False)


def serve(*arguments):
    return CliRunner().invoke(app, ["serve", *arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serch"], "nothing was released as 'serch' yet: did you mean 'search'"),
        (["search", "--engine", "tensorrt"], "--engine 'tensorrt' is unknown: valid: 'onnx', 't"),
        (["search", "--form", "onnx_int4"], "--form 'onnx_int4' is unknown: did you mean"),
        (["search", "--engine", "torch", "--threads", "2"], "are about --engine onnx: leave them"),
        (["search", "--host", "no.such.host.invalid"], "nothing can listen at --host"),
        (["search"], r"the files of release 2 of search .* are not there: with `release.forms"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_way_out(in_home, arguments, said):
    with pytest.raises(InputError, match=said):
        serve(*arguments, "--port", "0")


def test_packages_that_are_missing_are_named_with_the_command(in_home, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        packages, "find_spec", lambda name: None if name == "fastapi" else there(name)
    )
    with pytest.raises(InputError, match=r"needs fastapi: pip install 'fomo-dagster\[serving\]'"):
        serve("search")
