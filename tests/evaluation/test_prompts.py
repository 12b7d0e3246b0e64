"""Zero-shot classifiers against OpenCLIP's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.prompts import class_texts, mean_embeddings, templates_of
from fomo_dagster.experiment.evaluation import Waffle, WaffleDescriptors
from fomo_dagster.models.backbones import Model

NAMES = ["tench", "great white shark", "{curly} name", "tench"]


@pytest.mark.parametrize(
    ("prompts", "functions"),
    [("openai", OPENAI_IMAGENET_TEMPLATES), ("simple", SIMPLE_IMAGENET_TEMPLATES)],
)
def test_template_sets_give_openclips_texts(
    prompts: str, functions: tuple[Callable[[str], str], ...]
) -> None:
    templates = templates_of(prompts, "unused {}")
    assert class_texts(NAMES, templates) == tuple(f(name) for name in NAMES for f in functions)


def test_other_settings_are_the_datasets_prompt_and_the_list_itself() -> None:
    assert templates_of("dataset", "A sketch of a {}") == ("A sketch of a {}",)
    assert templates_of(("{} one", "two {}"), "unused {}") == ("{} one", "two {}")


def test_waffle_appends_words_and_characters_of_equal_lengths_to_the_prompt() -> None:
    prompts = Waffle(waffle=WaffleDescriptors(pairs=4, words=3, seed=5))
    templates = templates_of(prompts, "A photo of a {}, a type of bird.")
    assert len(set(templates)) == 8
    known = {token[:-4] for token in SimpleTokenizer().encoder if token.endswith("</w>")}
    start = "A photo of a {}, a type of bird, which has "
    for words, characters in zip(templates[::2], templates[1::2], strict=True):
        parts = [t.removeprefix(start).removesuffix(".").split(" ") for t in (words, characters)]
        assert all(t.startswith(start) and t.endswith(".") for t in (words, characters))
        assert [len(word) for word in parts[0]] == [len(group) for group in parts[1]]
        assert len(parts[0]) == 3
        assert set(parts[0]) <= known
        assert not set(parts[1]) & known
        assert words.count("{}") == characters.count("{}") == 1
    # Seeded, and the first pairs stay when more are asked for.
    fewer = Waffle(waffle=WaffleDescriptors(pairs=2, words=3, seed=5))
    assert templates_of(fewer, "A photo of a {}, a type of bird.") == templates[:4]
    other = Waffle(waffle=WaffleDescriptors(pairs=4, words=3, seed=6))
    assert not set(templates_of(other, "A photo of a {}, a type of bird.")) & set(templates)


def test_other_braces_of_a_template_are_text() -> None:
    assert class_texts(["x"], ["{0} {} {y}"]) == ("{0} x {y}",)


@pytest.mark.parametrize("prompts", ["dataset", "openai", ("one {}", "two {}", "a longer {} here")])
def test_class_embeddings_are_openclips(tiny_model: Model, prompts: str | tuple[str, ...]) -> None:
    templates = templates_of(prompts, "A photo of a {}.")
    texts = class_texts(NAMES, templates)
    encoder = Encoder(model=tiny_model, batch_size=33, precision="fp32", device="cpu")
    features = encoder.texts(texts)
    found = mean_embeddings(features, len(templates))
    expected = open_clip.build_zero_shot_classifier(
        tiny_model.module.eval(), tiny_model.tokenize, NAMES, templates
    ).T
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_choosing_the_datasets_prompt_loads_no_pytorch() -> None:
    code = (
        "import sys; from fomo_dagster.evaluation.prompts import templates_of; "
        "templates_of('dataset', 'a {}'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
