"""`fomo export` and `fomo merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fomo_dagster.cli.output import Terminal, say

Experiment = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="An experiment's name, or a path to its file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the experiment for this command; can be repeated.",
    ),
]


def export(
    experiment: Experiment,
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A file for OpenCLIP, .safetensors or .pt; with --form, a new folder, by default "
            "named after experiment and stage.",
            show_default=False,
        ),
    ] = None,
    stage: Annotated[
        int | None, typer.Option(min=0, help="The stage to export; by default the last.")
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORM",
            help="openclip, transformers, onnx, onnx_fp16, onnx_int8 or card; can be repeated.",
        ),
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Write what a stage deploys as files that other libraries load.

    `fomo export EXPERIMENT model.safetensors` writes a file for
    `open_clip.create_model(ARCHITECTURE, pretrained=PATH)`. If the architecture is your own
    configuration, it is written beside the weights as .json, for `open_clip.add_model_config`.

    `fomo export EXPERIMENT FOLDER --form transformers --form onnx --form card` writes each form
    into a folder of its own, and a page about them. Each is held against the model, and the loss
    of score of lower precisions is measured. docs/exporting.md tells more.
    """
    from fomo_dagster.cli.exporting import export as write

    terminal = Terminal(stderr=True)
    for line in write(experiment, overrides or [], stage, path, form or []):
        say(terminal, line)


def merge(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write: .pt or .safetensors.")
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Weights to merge, oldest first: .pt or .safetensors."),
    ] = None,
    technique: Annotated[
        str | None,
        typer.Option(
            help="A technique of docs/merging.md, such as ties; those over task vectors need --base"
        ),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="The weights of θ₀, which the files were trained from.")
    ] = None,
    statistics: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Statistics of what a file was trained on, for fisher and regmean; one for each.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set a parameter of the technique; can be repeated."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="mergekit's YAML, in place of files and technique."),
    ] = None,
) -> None:
    """Merge weights of OpenCLIP models into one file.

    docs/merging.md lists the techniques and their parameters. For example:

    `fomo merge merged.pt january.pt may.pt --base openai.pt --technique ties --set density=0.3`

    `fomo merge merged.pt --recipe mergekit.yaml`
    """
    from fomo_dagster.cli.merging import asked_for, merge_files

    asked = asked_for(files or [], technique, base, settings or [], recipe)
    told = merge_files(output, asked.models, asked.base, asked.technique, statistics or ())
    say(Terminal(stderr=True), told)
