"""Backbones as files declare them: names, texts, folders, and how one goes over another."""

import json
import math

import open_clip
import pytest
import yaml

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone, Preprocessing
from fomo_dagster.experiment.backbone_names import BACKBONES
from fomo_dagster.experiment.experiment_sets import load_experiment_set
from fomo_dagster.experiment.extending import merged
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.experiment.transformers_config import architecture_from, images_from
from fomo_dagster.experiment.weights_folder import described, files_of, read_folder

B32 = {"name": "b", "architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k"}
BENCHMARK = [
    "openclip_vit_s16", "openclip_vit_b32", "openclip_vit_b16", "openclip_vit_l14",
    "openclip_vit_h14", "openclip_vit_g14", "openclip_vit_G14", "openclip_vit_b32_datacomp",
    "openclip_vit_b16_datacomp", "openclip_vit_l14_datacomp", "openclip_convnext_base_w",
    "openclip_convnext_large_d", "metaclip_vit_b32", "metaclip_vit_b16", "metaclip_vit_l14",
    "metaclip_vit_h14", "dfn_vit_b16", "dfn_vit_l14", "dfn_vit_h14", "clip_rn50", "clip_rn101",
    "clip_vit_b32", "clip_vit_b16", "clip_vit_l14",
]  # fmt: skip


def test_the_benchmarks_24_names_are_there() -> None:
    assert list(BACKBONES) == BENCHMARK
    assert len(BENCHMARK) == 24


@pytest.mark.parametrize("name", [name for name in BENCHMARK if name != "openclip_vit_s16"])
def test_openclip_has_what_a_name_stands_for(name) -> None:
    architecture, tag = BACKBONES[name]
    settings = open_clip.pretrained.get_pretrained_cfg(architecture, tag)
    assert settings
    configured = open_clip.get_model_config(architecture)
    assert settings.get("quick_gelu", False) == configured.get("quick_gelu", False)
    assert configured["vision_cfg"]["image_size"] == 224 or "convnext" in name


def test_a_name_without_a_tag_says_so_and_takes_a_file() -> None:
    assert open_clip.list_pretrained_tags_by_model("ViT-S-16") == []
    with pytest.raises(ValueError, match=r"no tag for .*'openclip_vit_s16': give their file"):
        Backbone.model_validate("openclip_vit_s16")
    given = {"architecture": "openclip_vit_s16", "weights": "s16.pt"}
    assert Backbone.model_validate(given) == Backbone(
        name="openclip_vit_s16", architecture="ViT-S-16", weights="s16.pt"
    )


def test_a_text_is_what_it_stands_for() -> None:
    assert Backbone.model_validate("openclip_vit_b32") == Backbone(
        **{**B32, "name": "openclip_vit_b32"}
    )
    assert Backbone.model_validate("ViT-B-32/laion2b_s34b_b79k") == Backbone(
        **{**B32, "name": "ViT_B_32_laion2b_s34b_b79k"}
    )
    images = {"preprocessing": {"mean": [0.1, 0.2, 0.3]}}
    given = Backbone.model_validate({"architecture": "openclip_vit_b32", "name": "b", **images})
    assert given == Backbone(**B32, **images)


def test_a_local_file_of_a_names_weights_keeps_the_tag_that_says_how_images_look() -> None:
    given = Backbone.model_validate({"architecture": "openclip_vit_l14", "weights": "l14.pt"})
    assert (given.name, given.architecture) == ("openclip_vit_l14", "ViT-L-14")
    assert (given.pretrained, str(given.weights)) == ("laion2b_s32b_b82k", "l14.pt")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("openclip_vit_b23", "did you mean 'openclip_vit_b32'"),
        ("ViT-B-32", "name of a backbone or architecture/tag"),
        (
            {"architecture": "clip_vit_b32", "pretrained": "openai"},
            "also names weights, and pretrained names others: give only the architecture, "
            "'ViT-B-32-quickgelu'",
        ),
        ({**B32, "pretraining": None, "weights": None, "pretrained": None}, "exactly one of"),
        ({"name": "x", "weights": "x.safetensors"}, "architecture is missing"),
        ({"name": "x", "pretrained": "openai"}, "architecture is missing"),
        ({**B32, "preprocessing": {"std": [0.1, 0.2, 0]}}, "greater than 0"),
        ({**B32, "preprocessing": {"interpolation": "nearest"}}, "'bicubic' or 'bilinear'"),
    ],
)
def test_what_is_no_backbone_is_refused(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        Backbone.model_validate(given)


@pytest.mark.parametrize(
    ("base", "child", "expected"),
    [
        (B32, "openclip_vit_b16", "openclip_vit_b16"),
        (B32, {"architecture": "openclip_vit_b16"}, "openclip_vit_b16"),
        (
            {**B32, "preprocessing": {"interpolation": "bilinear"}},
            {"architecture": "openclip_vit_b16", "name": "mine"},
            {
                "name": "mine", "architecture": "ViT-B-16", "pretrained": "laion2b_s34b_b88k",
                "preprocessing": {"interpolation": "bilinear"},
            },
        ),
        (
            "openclip_vit_b32",
            {"preprocessing": {"interpolation": "bilinear"}},
            {
                **B32, "name": "openclip_vit_b32", "preprocessing": {"interpolation": "bilinear"},
            },
        ),
        (
            "openclip_vit_b32",
            {"weights": "b32.pt"},
            {**B32, "name": "openclip_vit_b32", "weights": "b32.pt"},
        ),
        (
            B32,
            {"weights": "b32.pt"},
            {"name": "b", "architecture": "ViT-B-32", "weights": "b32.pt"},
        ),
        (B32, {"name": "f", "weights": "clip.v2"}, {"name": "f", "weights": "clip.v2"}),
        ("openclip_vit_b32", {"name": "f", "weights": "l14"}, {"name": "f", "weights": "l14"}),
    ],
)  # fmt: skip
def test_a_child_scales_its_parents_model_in_one_line(base, child, expected) -> None:
    result = merged({"backbone": base}, {"backbone": child})["backbone"]
    assert Backbone.model_validate(result) == Backbone.model_validate(expected)


@pytest.fixture
def write(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "datasets").mkdir()
    birds = {"birds": {"source": {"type": "folder", "path": "birds"}}}
    (tmp_path / "datasets" / "birds.yaml").write_text(yaml.safe_dump(birds))

    def write(**changes):
        told = {
            "backbone": B32,
            "stream": {"datasets": ["birds"], "stages": 2},
            "mixture": {"update": 0.5, "buffer": 0.5, "pretraining": 0},
        }
        (tmp_path / "experiments" / "e.yaml").write_text(yaml.safe_dump(told | changes))
        return tmp_path

    return write


def test_an_experiment_takes_another_backbone_on_the_command_line(write) -> None:
    loaded = load_experiment("e", write(), ["backbone=metaclip_vit_h14"])
    assert loaded.experiment.backbone.name == "metaclip_vit_h14"
    assert loaded.experiment.backbone.architecture == "ViT-H-14-quickgelu"
    with pytest.raises(InputError, match=r"backbone is 'metaclip_vit_h15'.*'metaclip_vit_h14'"):
        load_experiment("e", write(), ["backbone=metaclip_vit_h15"])


def test_a_sweep_over_backbones_names_each_by_itself(write) -> None:
    swept = ["openclip_vit_b32", "openclip_vit_b16", "ViT-L-14/laion2b_s32b_b82k"]
    experiment_set = load_experiment_set("e", write(sweep={"backbone": swept, "seed": [0, 1]}))
    backbones = {m.experiment.backbone.name for m in experiment_set.members}
    assert backbones == {"openclip_vit_b32", "openclip_vit_b16", "ViT_L_14_laion2b_s32b_b82k"}
    assert len(experiment_set.members) == 6
    assert experiment_set.names[0] == "e_openclip_vit_b32_seed_0"


def test_the_architecture_may_be_swept_with_its_weights(write) -> None:
    swept = ["openclip_vit_b32", "openclip_vit_b16"]
    experiment_set = load_experiment_set("e", write(sweep={"backbone.architecture": swept}))
    assert [m.experiment.backbone for m in experiment_set.members] == [
        Backbone.model_validate(name) for name in swept
    ]


OPENCLIP = {"model_cfg": {"embed_dim": 16, "vision_cfg": {}, "text_cfg": {}}}


def folder_of(tmp_path, files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "neither open_clip_config.json nor config.json"),
        ({"open_clip_config.json": "{"}, "open_clip_config.json cannot be read"),
        ({"open_clip_config.json": "[]"}, "must hold keys and values, not a list"),
        ({"open_clip_config.json": {}}, "no model_cfg"),
        ({"open_clip_config.json": OPENCLIP}, "has no weights: one of open_clip_model.safetensors"),
        ({"config.json": {"model_type": "siglip"}}, "type 'siglip'.*only clip is read"),
        (
            {"open_clip_config.json": {**OPENCLIP, "preprocess_cfg": {"resize_mode": "tile"}}},
            "resize_mode is 'tile'",
        ),
        (
            {
                "open_clip_config.json": {
                    **OPENCLIP, "preprocess_cfg": {"resize_mode": "longest", "fill_color": 255},
                }
            },
            "padded with 255",
        ),
        (
            {
                "config.json": {"model_type": "clip"},
                "model.safetensors.index.json": {"weight_map": {"a": "../secret.safetensors"}},
            },
            "not in its folder",
        ),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path, files, message) -> None:
    with pytest.raises(InputError, match=message):
        read_folder(folder_of(tmp_path, files))


def test_a_folder_tells_its_model_and_the_declaration_goes_over_it(tmp_path) -> None:
    images = {"mean": [0.1, 0.2, 0.3], "interpolation": "random", "size": 224, "mode": "RGB"}
    folder_of(
        tmp_path,
        {
            "open_clip_config.json": {**OPENCLIP, "preprocess_cfg": images},
            "open_clip_pytorch_model.bin": "", "model.safetensors": "", "notes.md": "",
            "tokenizer.json": {}, "merges.txt": "",
        },
    )  # fmt: skip
    declared = Backbone(
        name="mine", weights=tmp_path, preprocessing=Preprocessing(std=(0.5, 0.5, 0.5))
    )
    told = described(declared)
    assert told.architecture == OPENCLIP["model_cfg"]
    assert told.images == {
        "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic",
    }  # fmt: skip
    assert read_folder(tmp_path).weights == (tmp_path / "open_clip_pytorch_model.bin",)
    assert sorted(files_of(tmp_path)) == [
        "merges.txt", "open_clip_config.json", "open_clip_pytorch_model.bin", "tokenizer.json",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"leave out backbone\.architecture"):
        described(declared.model_copy(update={"architecture": "ViT-B-32"}))
    with pytest.raises(InputError, match="is not a folder"):
        described(declared.model_copy(update={"weights": tmp_path / "nowhere"}))


def test_every_hidden_size_survives_openclips_rounding(tmp_path) -> None:
    for width in range(32, 2049, 32):
        for hidden in (width * 4, width * 3 + 1, width * 5 - 7, 4304, 8192, 1):
            sizes = {"hidden_size": width, "intermediate_size": hidden}
            config = {"model_type": "clip", "vision_config": sizes, "text_config": sizes}
            found = architecture_from(config, tmp_path)
            assert int(width * found["vision_cfg"]["mlp_ratio"]) == hidden
            assert int(width * found["text_cfg"]["mlp_ratio"]) == hidden
            assert math.isclose(found["text_cfg"]["mlp_ratio"], hidden / width, rel_tol=1e-12)


def test_transformers_defaults_and_older_files(tmp_path) -> None:
    b32 = architecture_from({"model_type": "clip"}, tmp_path)
    theirs = open_clip.get_model_config("ViT-B-32-quickgelu")
    assert (b32["embed_dim"], b32["quick_gelu"]) == (theirs["embed_dim"], theirs["quick_gelu"])
    assert theirs["text_cfg"].items() <= b32["text_cfg"].items()
    assert theirs["vision_cfg"].items() <= b32["vision_cfg"].items()
    older = {"text_config": {"hidden_size": 64}, "text_config_dict": {"hidden_size": 32}}
    found = architecture_from({"model_type": "clip", **older}, tmp_path)
    assert found["text_cfg"]["width"] == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is gelu and quick_gelu"),
        ({"eos_token_id": 7}, "eos_token_id is 7, and 49407 was expected"),
    ],
)
def test_a_transformers_model_that_openclip_would_read_otherwise_is_refused(
    tmp_path, text, message
) -> None:
    with pytest.raises(InputError, match=message):
        architecture_from({"model_type": "clip", "text_config": text}, tmp_path)


def test_transformers_preprocessing(tmp_path) -> None:
    plain = {"do_center_crop": True, "size": {"shortest_edge": 16}, "crop_size": 16, "resample": 3}
    assert images_from(plain, 16, tmp_path) == {"interpolation": "bicubic"}
    assert images_from({"image_processor": plain}, 16, tmp_path) == {"interpolation": "bicubic"}
    raw = images_from({"do_normalize": False, "image_mean": [0.5] * 3}, 16, tmp_path)
    assert raw == {"mean": [0, 0, 0], "std": [1, 1, 1]}
    with pytest.raises(
        InputError, match=r"resized or cut to 16, 20 pixels, and the model takes 16"
    ):
        images_from({**plain, "size": {"shortest_edge": 20}}, 16, tmp_path)
    with pytest.raises(InputError, match="resample is 1"):
        images_from({"resample": 1}, 16, tmp_path)
