"""The form of Hugging Face's transformers: a folder for CLIPModel or SiglipModel."""

from __future__ import annotations

from pathlib import Path

from fomo_dagster.exporting.form import Export, Form, Written
from fomo_dagster.exporting.subject import Subject


class TransformersForm(Form):
    """A folder that `from_pretrained` loads, with its processor."""

    name = "transformers"
    description = "a folder that transformers loads as CLIPModel or SiglipModel, with processor"
    fits_all = False

    def check(self, subject: Subject) -> None:
        from fomo_dagster.exporting.transformers_folder import check

        super().check(subject)
        check(subject)

    def write(self, export: Export, folder: Path) -> Written:
        from fomo_dagster.exporting.transformers_folder import write_folder

        return write_folder(export, folder, self.name)
