"""The form of ONNX in single precision: both towers, held against the model."""

from __future__ import annotations

import shutil
from pathlib import Path

from fomo_dagster.exporting.form import Export, Form, Written
from fomo_dagster.exporting.onnx_packages import EXTRA, PACKAGES


class OnnxForm(Form):
    """`image_encoder.onnx` and `text_encoder.onnx`."""

    name = "onnx"
    description = "both towers in ONNX, fp32, features equal to 1e-4"
    packages = PACKAGES
    extra = EXTRA

    def write(self, export: Export, folder: Path) -> Written:
        from fomo_dagster.exporting.onnx_files import describe, loading

        towers, errors = export.onnx
        place = folder / self.name
        shutil.copytree(towers, place)
        notes = describe(export.subject.model, export.samples.texts, place)
        return Written(place=self.name, loading=loading(self.name), errors=errors, notes=notes)
