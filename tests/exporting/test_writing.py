"""What is written whole or not at all, and what licences say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import open_clip
import pytest
import torch

from fomo_dagster.cli.weights_commands import export
from fomo_dagster.errors import DataError, InputError, StoreError
from fomo_dagster.exporting import form as form_module
from fomo_dagster.exporting.form import Export
from fomo_dagster.exporting.licences import restrictions, said_of
from fomo_dagster.exporting.model_card import model_card
from fomo_dagster.exporting.registry import all_forms, forms_named
from fomo_dagster.exporting.samples import MOST, _shared_out
from fomo_dagster.exporting.score_loss import score_intervals, score_loss
from fomo_dagster.exporting.subject import DataUse, Subject
from fomo_dagster.exporting.writing import write_form, write_forms
from fomo_dagster.models import backbones
from fomo_dagster.models.backbones import Model, StateDict
from fomo_dagster.store.files import new_folder


def test_the_card_comes_last_and_names_are_checked() -> None:
    assert [form.name for form in forms_named(["card", "onnx", "openclip", "onnx"])] == [
        "onnx", "openclip", "card"
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"no form 'tensorrt'"):
        forms_named(["onnx", "tensorrt"])


def test_the_command_line_lists_all_forms() -> None:
    taken = inspect.signature(export, eval_str=True).parameters["form"].annotation
    (option,) = (one for one in get_args(taken) if hasattr(one, "help"))
    assert all(name in option.help for name in all_forms())


def test_openclips_file_has_its_own_folder_and_loads(clip_subject: Subject, tmp_path: Path) -> None:
    # OpenCLIP keeps the name that it is told, and no other test exports by that one.
    provenance = replace(clip_subject.provenance, experiment="sweeps/loaded")
    subject = replace(clip_subject, provenance=provenance)
    written = write_form("openclip", subject, tmp_path / "export")
    folder = tmp_path / "export"
    name = "sweeps-loaded-stage-2"
    assert sorted(path.name for path in (folder / "openclip").iterdir()) == [
        f"{name}.json", f"{name}.safetensors"
    ]  # fmt: skip
    code = written.loading.replace('"openclip/', f'"{folder}/openclip/')
    found: dict[str, object] = {}
    exec(code, found)
    images = torch.rand(2, 3, 24, 24)
    with torch.inference_mode():
        torch.testing.assert_close(
            found["model"].eval().encode_image(images),  # type: ignore[attr-defined]
            clip_subject.model.module.eval().encode_image(images),
        )
    assert name in open_clip.list_models()


@pytest.mark.parametrize("changed", ["weights", "architecture"])
@pytest.mark.parametrize("evaluated", [True, False])
def test_an_openclip_file_that_computes_something_else_is_refused(
    changed: str, *, evaluated: bool, clip_subject: Subject, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    right = backbones.export

    def wrong(weights: StateDict, architecture: dict[str, object], path: Path) -> None:
        if changed == "weights":
            weights = {**weights, "visual.proj": weights["visual.proj"].flip(0)}
        else:
            architecture = {**architecture, "quick_gelu": False}
        right(weights, architecture, path)

    monkeypatch.setattr(backbones, "export", wrong)
    subject = clip_subject if evaluated else replace(clip_subject, evaluated=())
    with pytest.raises(DataError, match=r"read again, .* other features than the model"):
        write_form("openclip", subject, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_what_openclip_loads_is_compared_on_real_samples(
    siglip_subject: Subject, tmp_path: Path
) -> None:
    written = write_form("openclip", siglip_subject, tmp_path / "export")
    assert written.errors is not None
    assert (written.errors.image_count, written.errors.greatest < 1e-6) == (100, True)


def test_openclip_is_told_how_images_differ_from_its_defaults(
    clip_subject: Subject, tmp_path: Path
) -> None:
    assert write_form("openclip", clip_subject, tmp_path / "usual").notes == ()
    other = replace(clip_subject.model, mean=(0.5, 0.5, 0.5), resize_mode="squash")
    (note,) = write_form("openclip", replace(clip_subject, model=other), tmp_path / "other").notes
    assert note.endswith("by default: mean (0.5, 0.5, 0.5), resize_mode squash")


@pytest.mark.parametrize("there", ["file", "folder"])
def test_nothing_is_written_over(there: str, clip_subject: Subject, tmp_path: Path) -> None:
    target = tmp_path / "export"
    if there == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    with pytest.raises(InputError, match=r"nothing is written over: give another folder"):
        write_form("card", clip_subject, target)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_an_empty_folder_is_filled_and_one_that_fills_meanwhile_is_kept(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with new_folder(tmp_path / "new") as place:
        (place / "file").write_text("whole")
        assert not list((tmp_path / "new").iterdir())
    assert (tmp_path / "new" / "file").read_text() == "whole"

    def both() -> None:
        with new_folder(tmp_path / "other") as place:
            (place / "file").touch()
            (tmp_path / "other").mkdir()
            (tmp_path / "other" / "theirs").touch()

    with pytest.raises(InputError, match="not empty"):
        both()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "other"]


def test_a_folder_below_a_file_cannot_be_written(clip_subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        write_form("card", clip_subject, tmp_path / "file" / "export")


def test_a_missing_package_names_the_command_that_installs_it(
    clip_subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(form_module, "find_spec", lambda name: None if "onnx" in name else True)
    with pytest.raises(InputError, match=r"pip install 'fomo-dagster\[onnx\]'"):
        write_forms(["openclip", "onnx"], clip_subject, tmp_path / "export")
    assert not list(tmp_path.iterdir())


def test_what_was_evaluated_on_nothing_can_only_have_forms_that_need_no_samples(
    clip_subject: Subject, tmp_path: Path
) -> None:
    bare = replace(clip_subject, evaluated=())
    write_forms(["openclip", "card"], bare, tmp_path / "export")
    assert "It was not evaluated." in (tmp_path / "export" / "README.md").read_text()
    with pytest.raises(InputError, match="evaluated on no dataset"):
        write_form("transformers", bare, tmp_path / "other")


def test_samples_are_shared_out_among_datasets() -> None:
    assert _shared_out([10, 3]) == [10, 3]
    assert _shared_out([1000, 20, 1000]) == [118, 20, 118]
    assert sum(_shared_out([1000] * 7)) == MOST


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        ("", ["does not say"]),
        ("not stated (from ImageNet)", ["does not say"]),
        ("unknown", ["does not say"]),
        ("other", ["does not say"]),
        ("cc", ["does not say"]),
        ("All rights reserved", ["does not say"]),
        ("all rights reserved.", ["does not say"]),
        ("\u00a9 2024 Foo, all rights reserved", ["does not say"]),
        ("Licence unknown", ["does not say"]),
        ("Licence unknown, maybe CC BY-ND", ["derived", "does not say"]),
        ("n.a.", ["does not say"]),
        ("TBD", ["does not say"]),
        ("None given", ["does not say"]),
        ("other-license", ["does not say"]),
        ("Proprietary", ["does not say"]),
        ("proprietary, research only", ["research alone", "does not say"]),
        ("rendered here", []),
        ("CC BY 4.0", []),
        ("cc-by-4.0", []),
        ("cc0-1.0", []),
        ("mit", []),
        ("apache-2.0", []),
        ("bsd-3-clause", []),
        ("unlicense", []),
        ("afl-3.0", []),
        ("Academic Free License 3.0", []),
        ("free for research and commercial use", []),
        ("free for academic use or commercial use", []),
        ("for commercial and non-commercial use", []),
        ("MIT, no restrictions on commercial use", []),
        ("CC BY 4.0, commercial use allowed, no attribution required", []),
        ("CC BY-NC-SA 4.0", ["commercial", "same licence"]),
        ("cc-by-nc-4.0", ["commercial"]),
        ("cc_by_nc_2.0", ["commercial"]),
        ("cc-by-nc-sa-4.0", ["commercial", "same licence"]),
        ("cc-by-nc-nd-4.0", ["derived", "commercial"]),
        ("https://creativecommons.org/licenses/by-nc/4.0/", ["commercial"]),
        ("CC BY\u2013NC 4.0", ["commercial"]),
        ("CCBYNC4.0", ["commercial"]),
        ("cc-by-nc4.0", ["commercial"]),
        ("CCBY4.0", []),
        ("\uff23\uff23 \uff22\uff39\uff0d\uff2e\uff23", ["commercial"]),
        ("personal use only", ["commercial"]),
        ("for personal and commercial use", []),
        ("not-for-profit use only", ["commercial"]),
        ("Non commercial use only", ["commercial"]),
        ("noncommercial", ["commercial"]),
        ("not for commercial use", ["commercial"]),
        ("No commercial use", ["commercial"]),
        ("may not be used for commercial purposes", ["commercial"]),
        ("Commercial use is prohibited", ["commercial"]),
        ("commercial use requires a licence", ["commercial"]),
        ("non-profit use only", ["commercial"]),
        ("research, non-commercial", ["commercial", "research alone"]),
        ("fair-noncommercial-research-license", ["commercial", "research alone"]),
        ("research only and commercial use prohibited", ["commercial", "research alone"]),
        ("not for research or commercial use", ["commercial", "limits"]),
        ("academic use; commercial licence on request", ["research alone"]),
        ("for educational purposes only", ["research alone"]),
        ("research only, no resale", ["research alone"]),
        ("Research use prohibited", ["limits what it may be used for"]),
        ("not for academic research", ["limits what it may be used for"]),
        ("commercial use permitted, including research", []),
        ("research; commercial use permitted only with a contract", ["research alone"]),
        ("non-commercial use permitted, including research", ["commercial", "research alone"]),
        ("CC BY-ND 4.0", ["derived"]),
        ("cc-by-nd-4.0", ["derived"]),
        ("NoDerivatives", ["derived"]),
        ("cc-by-sa-4.0", ["same licence"]),
        ("gpl-3.0", ["same licence"]),
        ("GNU General Public License", ["same licence"]),
        ("agpl-3.0", ["same licence"]),
        ("odbl", ["same licence"]),
        ("cdla-sharing-1.0", ["same licence"]),
        ("cdla-permissive-2.0", []),
        ("openrail", ["limits what it may be used for"]),
        ("bigscience-openrail-m", ["limits what it may be used for"]),
        ("CC BY 4.0, not for training by its authors' terms", ["training"]),
        ("may not be used to train models", ["training"]),
        ("no AI training", ["training"]),
    ],
)
def test_a_licence_is_read_for_what_it_forbids(licence: str, words: list[str]) -> None:
    found = restrictions(licence)
    assert len(found) == len(words), found
    assert all(word in said for word, said in zip(words, found, strict=True)), found


def test_every_restriction_is_said_once_with_its_datasets() -> None:
    data = [
        DataUse(dataset="cub", use="update", licence="non-commercial research"),
        DataUse(dataset="aves", use="update", licence="CC BY-NC 4.0"),
        DataUse(dataset="aves", use="pretraining", licence="CC BY-NC 4.0"),
        DataUse(dataset="digits", use="update", licence="CC BY 4.0"),
    ]
    assert said_of(data) == [
        "the licence of aves (CC BY-NC 4.0), cub (non-commercial research) forbids commercial use",
        "the licence of cub (non-commercial research) allows research alone",
    ]


def test_the_same_model_loses_nothing_and_another_loses_its_difference(
    clip_subject: Subject, make_clip: Callable[..., Model]
) -> None:
    same = score_loss(clip_subject, clip_subject.model)
    assert all(one.points == 0 for one in (*same.datasets.values(), *same.means.values()))
    other = score_loss(clip_subject, make_clip(quick_gelu=False))
    for name, change in other.datasets.items():
        (one,) = (one for one in clip_subject.evaluated if one.name == name)
        assert change.before == one.score
        assert change.difference is not None
        assert change.difference.estimate == pytest.approx(change.points)
        assert change.difference.low <= change.points <= change.difference.high


def test_scores_have_intervals_where_predictions_were_kept(clip_subject: Subject) -> None:
    birds, scenes = clip_subject.evaluated
    of_datasets, of_means = score_intervals([birds, replace(scenes, predictions=None)])
    assert of_datasets.keys() == {"birds"}
    assert of_means.keys() == {"KA"}
    assert of_datasets["birds"].estimate == pytest.approx(birds.score)
    # A share p of n images has the standard error √(p(1-p)/n), nearly.
    share = birds.score / 100
    assert of_datasets["birds"].error == pytest.approx(
        100 * (share * (1 - share) / 59) ** 0.5, rel=1e-3
    )


def test_the_geometric_mean_has_the_interval_of_both_means(clip_subject: Subject) -> None:
    _, of_means = score_intervals(clip_subject.evaluated)
    accumulation, retention, both = of_means["KA"], of_means["ZS"], of_means["GM"]
    product = accumulation.estimate * retention.estimate
    assert both.estimate == pytest.approx(product**0.5)
    # Datasets are independent, so that relative errors of a product add up in squares, nearly.
    relative = [one.error / one.estimate for one in (accumulation, retention)]
    assert both.error == pytest.approx(
        both.estimate * 0.5 * (relative[0] ** 2 + relative[1] ** 2) ** 0.5, rel=0.1
    )
    page = model_card(Export(subject=clip_subject, scratch=Path("none")), Path("none"))
    assert f"√(KA·ZS) | {product**0.5:.2f} | {both.low:.2f} to {both.high:.2f} |" in page
