"""A model of 33 million weights, from an OpenCLIP file through two stages to an OpenCLIP file."""

import shutil

import open_clip
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from fomo_dagster.cli.exporting import export_weights
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights

pytestmark = pytest.mark.slow

VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CONFIGURATION = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}


def draw(path, seed):
    """A JPEG of 256 pixels, another one for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.effect_noise((256, 256), 20 + 9 * (seed % 7)).convert("RGB")
    image.paste((seed * 37 % 256, seed * 91 % 256, seed * 151 % 256), (40, 40, 140, 200))
    image.save(path)


@pytest.fixture
def photographs(project):
    """A project with two folders of JPEGs; its large files go when the test ends."""
    seed = 0
    for name, concepts in (("trees", ("oak", "elm")), ("paints", ("red",))):
        for concept in concepts:
            for split, count in (("train", 2), ("test", 1)):
                for number in range(count):
                    seed += 1
                    draw(project.root / "jpegs" / name / split / concept / f"{number}.jpg", seed)
    yield project
    shutil.rmtree(project.root)


def write(project, architecture, weights, **changes):
    """An experiment `real` of two stages of one step that starts from a file of weights."""
    experiment = {
        "datasets": {
            name: {"source": {"type": "folder", "path": f"../jpegs/{name}"}}
            for name in ("trees", "paints")
        },
        "backbone": {
            "name": "real", "architecture": architecture, "weights": f"../{weights.name}",
        },
        "stream": {"datasets": ["trees"], "stages": 2},
        "pretraining_pool": {"name": "paints", "datasets": ["paints"]},
        "evaluation": {"held_out": ["paints"]},
        "optimiser": {"learning_rate": 1e-4},
        "batch_size": 3,
        "budget": {"steps": 1},
        "execution": {"device": "cpu"},
        **changes,
    }  # fmt: skip
    (project.root / "experiments" / "real.yaml").write_text(yaml.safe_dump(experiment))


def features(module, image_size):
    """Image and text features of some inputs, (2, D) each."""
    images = torch.linspace(-2, 2, 2 * 3 * image_size**2).reshape(2, 3, image_size, image_size)
    tokens = open_clip.tokenize(["an oak", "a red elm"], module.context_length)
    with torch.inference_mode():
        return module.eval().encode_image(images.sin()), module.encode_text(tokens)


def stored(stage):
    """The model that a stage deploys, from the store."""
    request = resolve_request("real", [])
    context = RunContext(request.graph, request.home)
    path = context.artifact(f"real/trained_{stage:03d}").path(WEIGHTS)
    return load_weights(request.experiment.backbone, path)


@pytest.mark.journey
def test_a_trained_vit_s_32_loads_in_openclip_with_the_same_features(photographs):
    torch.manual_seed(0)
    module = open_clip.create_model("ViT-S-32-alt")
    weights = photographs.root / "weights.pt"
    torch.save(module.state_dict(), weights)
    before = features(module, 224)
    del module
    # With micro-batches, so that GradCache runs on a real model too.
    write(photographs, "ViT-S-32-alt", weights, execution={"device": "cpu", "micro_batch_size": 2})
    run_experiment("real", [])
    exported = photographs.root / "exported.safetensors"
    assert repr(str(exported)) in export_weights("real", [], None, exported)[0]
    there = features(open_clip.create_model("ViT-S-32-alt", pretrained=str(exported)), 224)
    model = stored(2)
    assert model.image_size == 224
    kept = model.module.state_dict()
    for name, tensor in load_file(exported).items():
        assert torch.equal(tensor, kept[name]), f"{name} was exported as something else"
    for what, found, expected, old in zip(
        ("image", "text"), there, features(model.module, 224), before, strict=True
    ):
        difference = float((found - expected).abs().max())
        assert difference == 0, f"{what} features differ by {difference}"
        moved = float((found - old).abs().max())
        assert moved > 1e-4, f"{what} features moved by {moved} only: nothing was trained"


@pytest.mark.parametrize(
    ("saved_as", "exported_as"), [(".pt", ".safetensors"), (".safetensors", ".pt")]
)
def test_a_configuration_of_ones_own_loads_in_openclip_with_the_same_features(
    photographs, saved_as, exported_as
):
    from fomo_dagster.models.backbones import create

    weights = photographs.root / f"weights{saved_as}"
    state = create(CONFIGURATION, 0).module.state_dict()
    torch.save(state, weights) if saved_as == ".pt" else save_file(state, weights)
    write(
        photographs, CONFIGURATION, weights, precision="bf16",
        execution={"device": "cpu", "micro_batch_size": 2},
    )  # fmt: skip
    run_experiment("real", [])
    for stage in (1, 2):
        exported = photographs.root / f"own{stage}_{saved_as[1:]}_{exported_as[1:]}{exported_as}"
        export_weights("real", [], stage, exported)
        open_clip.add_model_config(exported.with_suffix(".json"))
        loaded = open_clip.create_model(exported.stem, pretrained=str(exported))
        for found, expected in zip(
            features(loaded, 16), features(stored(stage).module, 16), strict=True
        ):
            assert torch.equal(found, expected)


def test_weights_that_do_not_fit_are_refused_by_name_and_nothing_is_kept(photographs):
    weights = photographs.root / "weights.safetensors"
    from fomo_dagster.models.backbones import create

    state = create(CONFIGURATION, 0).module.state_dict()
    state["visual.proj"] = torch.zeros(16, 8)
    del state["ln_final.bias"]
    save_file({**state, "stray": torch.zeros(1)}, weights)
    write(photographs, CONFIGURATION, weights)
    with pytest.raises(FomoError) as raised:
        run_experiment("real", [])
    for part in (str(weights.name), "missing: ln_final.bias", "unexpected: stray",
                 "visual.proj (16, 8) instead of (16, 16)"):  # fmt: skip
        assert part in str(raised.value)
    assert not any(artifact.startswith("backbone/") for artifact in photographs.artifacts())


def test_weights_that_are_not_there_are_named_before_anything_is_made(photographs):
    write(photographs, CONFIGURATION, photographs.root / "absent.pt")
    with pytest.raises(InputError, match=r"weights of backbone .real.: .*absent\.pt"):
        run_experiment("real", [])
    assert not photographs.artifacts()
