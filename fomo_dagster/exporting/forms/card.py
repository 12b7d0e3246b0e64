"""The form of a model card: a page about the model and the files beside it."""

from __future__ import annotations

from pathlib import Path

from fomo_dagster.exporting.form import Export, Form, Written

FILE = "README.md"  # where hubs look for it


class CardForm(Form):
    """Data and licences, scores with intervals, limits, digests, how to load."""

    name = "card"
    description = "a model card in Markdown: data, licences, scores, limits, digests, how to load"
    version = 2  # 1: GM had no interval, and licences in the spelling of hubs were not read
    needs_samples = False
    last = True

    def write(self, export: Export, folder: Path) -> Written:
        from fomo_dagster.exporting.model_card import model_card

        (folder / FILE).write_text(model_card(export, folder), encoding="utf-8")
        return Written(place=FILE)
