"""A report's files in a folder, which may have other files too: these are left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fomo_dagster.errors import InputError
from fomo_dagster.plots.figure import pdf
from fomo_dagster.reports.content import Figure, Report, Table
from fomo_dagster.reports.html import as_html
from fomo_dagster.reports.latex import as_latex
from fomo_dagster.reports.names import PAGE
from fomo_dagster.store.digests import digest_of_bytes, digest_of_file
from fomo_dagster.store.files import explained, write_bytes
from fomo_dagster.units import counted

LISTED = "report.json"  # file → digests that a report wrote there


def files_of(report: Report) -> dict[str, bytes]:
    """Path within the folder → what is written there."""
    files = {PAGE: as_html(report).encode()}
    for table in report.all_of(Table):
        files[f"tables/{table.name}.csv"] = table.data.write_csv().encode()
        files[f"tables/{table.name}.tex"] = as_latex(table).encode()
    for figure in report.all_of(Figure):
        files[f"figures/{figure.name}.svg"] = figure.svg
        files[f"figures/{figure.name}.pdf"] = pdf(figure.drawing)
    return files


@dataclass(frozen=True)
class Written:
    """page: of the report; the names of the files that are new, replaced, and gone."""

    page: Path
    added: list[str]
    replaced: list[str]
    removed: list[str]

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        parts = {"new": self.added, "replaced": self.replaced, "removed": self.removed}
        said = ", ".join(f"{len(names)} {what}" for what, names in parts.items() if names)
        return f"{self.page}: {counted(len(self.added) + len(self.replaced), 'file')} ({said})"


def write_report(report: Report, folder: Path) -> Written:
    """Write the files of a report, and remove those of the one that was there.

    Raises `InputError`, before anything is written, if a file is in the way that no report wrote,
    or that was changed since; `StoreError` where the folder cannot be written.
    """
    files = files_of(report)
    before = _listed(folder)
    with explained(folder, named=True):
        there = [name for name in {**before, **files} if (folder / name).exists()]
        for name in there:
            path = folder / name
            if name in files and not _is_ours(path, before.get(name, [])):
                raise InputError(
                    f"{path} is no report's, or was changed since: it is not replaced. Move it, "
                    "or name another folder (--to)"
                )
        removed = [
            name for name in there if name not in files and _is_ours(folder / name, before[name])
        ]
    new = {name: [digest_of_bytes(data)] for name, data in files.items()}
    # So that what a report that was interrupted wrote is known to be one's.
    both = {name: [*before.get(name, []), *new.get(name, [])] for name in {**before, **new}}
    _write_list(folder, both)
    for name, data in files.items():
        write_bytes(folder / name, data, named=True)
    with explained(folder, named=True):
        for name in removed:
            (folder / name).unlink(missing_ok=True)
    _write_list(folder, new)
    replaced = [name for name in files if name in there]
    added = [name for name in files if name not in there]
    return Written(folder / PAGE, added, replaced, removed)


def _is_ours(path: Path, digests: list[str]) -> bool:
    return path.is_file() and digest_of_file(path) in digests


def _listed(folder: Path) -> dict[str, list[str]]:
    """What a report wrote into the folder; nothing if none did."""
    path = folder / LISTED
    try:
        files = json.loads(path.read_bytes())["fomo_report"]
        return {str(name): list(map(str, digests)) for name, digests in files.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is no report's list of files ({error}): move it, or name another folder (--to)"
        ) from error


def _write_list(folder: Path, files: Mapping[str, list[str]]) -> None:
    listed = {name: list(dict.fromkeys(digests)) for name, digests in sorted(files.items())}
    data = json.dumps({"fomo_report": listed}, indent=1) + "\n"
    write_bytes(folder / LISTED, data.encode(), named=True)
