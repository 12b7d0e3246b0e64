"""MLflow: a run per experiment and a registered model per release name, by its client. Its global
state is left alone.

MLFLOW_TRACKING_URI: the store; by default `trackers/mlflow.db` in FOMO_HOME (SQLite).

MLFLOW_EXPERIMENT_NAME: by default `fomo`. MLflow's own telemetry is off unless
MLFLOW_DISABLE_TELEMETRY says otherwise.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# By default it takes many minutes before it says that a server is away.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from fomo_dagster.store.files import replacing
from fomo_dagster.store.leases import lease
from fomo_dagster.trackers.tracker import Model, Point, Run, flat

# What a server takes, at once and in a parameter.
_MOST_METRICS, _MOST_PARAMETERS = 1000, 100
_LONGEST_NAME, _LONGEST_VALUE = 250, 6000
_SECONDS_LOCKED = 60.0  # that another process may take to write
_NOT_IN_NAMES = re.compile(r"[^\w./: -]", re.ASCII)
_NO_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)


class MLflow:
    """Logs to an MLflow store or server."""

    def __init__(self, folder: Path) -> None:
        for name in ("mlflow", "alembic"):  # which tell how they make a database
            logging.getLogger(name).setLevel(logging.WARNING)
        named = os.environ.get("MLFLOW_TRACKING_URI")
        self._uri = named or _own_store(folder / "mlflow.db")
        # Else the folder that the process happens to be started in would hold it.
        self._artifacts = None if named else (folder / "mlflow_artifacts").as_uri()
        self._experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "fomo"

    @property
    def destination(self) -> str:
        return f"{self._uri} {self._experiment}"

    @property
    def place(self) -> str:
        return self._uri

    def open(self, run: Run, earlier: str | None, sent: int) -> _Logging:
        _check_writable(self._uri)
        client = MlflowClient(self._uri)
        if earlier is not None and _is_there(client, earlier):
            client.update_run(earlier, status="RUNNING")
            return _Logging(client, earlier)
        experiment = client.get_experiment_by_name(self._experiment)
        where = (
            client.create_experiment(self._experiment, self._artifacts)
            if experiment is None
            else experiment.experiment_id
        )
        opened = _Logging(client, client.create_run(where, run_name=run.name).info.run_id)
        opened.log((), {k: _text(value) for k, value in flat(run.configuration).items()})
        return opened

    def register(self, model: Model) -> None:
        """Versions are told by their tag `number`, and numbered by MLflow, in the same order. An
        alias that MLflow refuses is left out."""
        _check_writable(self._uri)
        client = MlflowClient(self._uri)
        name, there = model.name, dict[str, str]()
        try:
            aliases = dict(client.get_registered_model(name).aliases)
            for known in client.search_model_versions(f"name='{name}'"):
                there[known.tags.get("number", "")] = str(known.version)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            client.create_registered_model(name)
            aliases = {}
        for version in model.versions:
            number = str(version.number)
            if number not in there:
                made = client.create_model_version(
                    name, version.source, tags={**version.tags, "number": number},
                    await_creation_for=0,
                )  # fmt: skip
                there[number] = str(made.version)
        for alias, at in model.aliases.items():
            wanted = there[str(at)]
            if not _NO_ALIAS.fullmatch(alias) and str(aliases.get(alias)) != wanted:
                client.set_registered_model_alias(name, alias, wanted)
        for alias in aliases.keys() & set(model.removed):
            client.delete_registered_model_alias(name, alias)


def _own_store(path: Path) -> str:
    """The address of a store in a file. MLflow makes one in seconds and many parts, and a kill
    meanwhile would leave one that it can neither use nor complete: so it is made beside."""
    with lease(path.with_suffix(".lease")):
        if not path.exists():
            with replacing(path) as temporary:
                MlflowClient(f"sqlite:///{temporary}").search_experiments()
    return f"sqlite:///{path}"


def _check_writable(uri: str) -> None:
    """Raises `OSError` for a database in a file that cannot be written: MLflow would try for
    minutes before it said so."""
    path = uri.partition("?")[0].removeprefix("sqlite:///")
    if path == uri or not path:
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=_SECONDS_LOCKED)) as database:
            database.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        raise OSError(f"{path}: {error}") from error


class _Logging:
    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.id = client, run_id

    def log(self, points: Sequence[Point], parameters: Mapping[str, str]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(p.series, p.value, now, p.step) for p in points]
        named = {
            _NOT_IN_NAMES.sub("_", name)[:_LONGEST_NAME]: value[:_LONGEST_VALUE]
            for name, value in parameters.items()
        }
        told = [Param(name, value) for name, value in named.items()]
        for first in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self.id, metrics=metrics[first : first + _MOST_METRICS])
        for first in range(0, len(told), _MOST_PARAMETERS):
            self._client.log_batch(self.id, params=told[first : first + _MOST_PARAMETERS])

    def close(self) -> None:
        self._client.set_terminated(self.id)


def _is_there(client: MlflowClient, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return False
        raise


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
