"""What a person hears of forms that were written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fomo_dagster.exporting.form import Written


def told_of(written: Mapping[str, Written]) -> Iterator[str]:
    """A line for each form, with how far it is from the model; indented below it, what it costs in
    score and what else to know."""
    for name, one in written.items():
        line = f"{name}: {one.place}"
        if one.errors is not None:
            samples = f"{one.errors.image_count} images and {one.errors.text_count} texts"
            line += f", features within {one.errors.greatest:.1e} of the model's on {samples}"
        yield line
        if one.loss is not None:
            for mean, change in one.loss.means.items():
                interval = change.difference
                known = (
                    "" if interval is None else f" (95%: {interval.low:.2f} to {interval.high:.2f})"
                )
                yield f"  {mean} {change.after:.2f}, {change.points:+.2f} points{known}"
        for note in one.notes:
            yield f"  {note}"
