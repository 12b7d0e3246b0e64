"""The quickstart suite: declared soundly, deterministic, apart from itself where it must be."""

from __future__ import annotations

import contextlib
import io
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.generated import GeneratedSource
from fomo_dagster.data.suite import photographs
from fomo_dagster.data.suite.generator import GeneratedSample, Generator
from fomo_dagster.data.suite.registry import GENERATORS, create_generator
from fomo_dagster.errors import DataError, InputError

ROOT = Path(__file__).parents[2]
SUITE = {
    name: Dataset.model_validate(declaration)
    for name, declaration in yaml.safe_load((ROOT / "datasets/quickstart.yaml").read_text()).items()
}
ADAPTATION = [name for name, d in SUITE.items() if d.description.startswith("Adaptation")]
HELD_OUT = [name for name, d in SUITE.items() if d.description.startswith("Held out")]
POOL = "quickstart_pretraining"
GRIDS = ("dsprites", "shapes3d")  # of every picture there is; see test_rendered.py
FAMILIES = [name for name in GENERATORS if name not in ("medley", *GRIDS)]


def generator_of(name: str) -> Generator:
    source = SUITE[name].source
    assert isinstance(source, GeneratedSource)
    return create_generator(source.generator, source.parameters, source.seed)


@cache
def samples_of(name: str) -> dict[str, list[GeneratedSample]]:
    """By split."""
    return {split: generator_of(name).samples(split) for split in ("train", "test")}


def all_samples_of(name: str) -> list[GeneratedSample]:
    return [sample for of_split in samples_of(name).values() for sample in of_split]


def small(family: str, seed: int = 0, **parameters: object) -> Generator:
    given_parameters = {"samples_per_concept": 2, "test_samples_per_concept": 1, **parameters}
    return create_generator(family, given_parameters, seed)


def pixels(generator: Generator, split: str, key: str) -> bytes:
    return generator.render(split, key).tobytes()


def test_the_roles_make_a_study() -> None:
    assert len(ADAPTATION) >= 5
    assert len(HELD_OUT) >= 3
    assert [n for n in HELD_OUT if SUITE[n].task == "retrieval"] == ["relations"]
    assert set(ADAPTATION) | set(HELD_OUT) | {POOL} == set(SUITE)
    assert all(not samples_of(name)["train"] for name in HELD_OUT)
    concepts = [(n, s.concept) for n in ADAPTATION for s in samples_of(n)["train"]]
    assert len(set(concepts)) >= 50


@pytest.mark.parametrize("name", SUITE)
def test_every_sample_has_a_unique_key_and_one_to_three_distinct_captions(name: str) -> None:
    keys = [sample.key for sample in all_samples_of(name)]
    assert len(set(keys)) == len(keys) > 0
    for split, samples in samples_of(name).items():
        assert all(sample.key.startswith(split + "/") for sample in samples)
    for sample in all_samples_of(name):
        assert 1 <= len(sample.captions) <= 3
        assert len(set(sample.captions)) == len(sample.captions)
        assert all(c == c.strip() and "{" not in c and "  " not in c for c in sample.captions)


@pytest.mark.parametrize("name", [n for n, d in SUITE.items() if d.task == "classification"])
def test_captions_name_the_concept_and_the_prompt_is_one_of_them(name: str) -> None:
    samples = all_samples_of(name)
    for sample in samples:
        assert all(sample.concept in caption for caption in sample.captions)
    captions = {caption for sample in samples for caption in sample.captions}
    prompts = {SUITE[name].prompt.format(sample.concept) for sample in samples}
    assert len(prompts & captions) >= len(prompts) / 2  # the others differ by an article


@pytest.mark.parametrize("name", [n for n, d in SUITE.items() if d.task == "retrieval"])
def test_a_retrieval_dataset_has_one_concept_with_its_name(name: str) -> None:
    assert {sample.concept for sample in all_samples_of(name)} == {name}


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_distinct_rgb_squares_of_the_asked_size_and_not_blank(family: str) -> None:
    generator = small(family, size=40)
    keys = [(split, s.key) for split in ("train", "test") for s in generator.samples(split)]
    seen = set()
    for split, key in keys:
        image = generator.render(split, key)
        assert (image.size, image.mode) == ((40, 40), "RGB")
        assert np.asarray(image, dtype=float).std() > 3, key
        seen.add(image.tobytes())
    assert len(seen) == len(keys)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_depends_on_neither_order_nor_count_nor_process_state(family: str) -> None:
    generator = small(family)
    keys = [s.key for s in generator.samples("train")]
    forward = [pixels(generator, "train", key) for key in keys]
    np.random.seed(1)  # no generator may draw from the global state
    again = small(family, samples_per_concept=5)
    assert [pixels(again, "train", key) for key in reversed(keys)] == forward[::-1]
    copied = pickle.loads(pickle.dumps(generator))
    assert [pixels(copied, "train", key) for key in keys] == forward
    wider = {s.key: s for s in again.samples("train")}
    assert all(wider[s.key] == s for s in generator.samples("train"))


def test_another_process_renders_the_same_pixels() -> None:
    code = (
        "import hashlib; from fomo_dagster.data.suite.registry import create_generator as c\n"
        "for f in ('aerial', 'glyphs', 'photographs', 'rooms'):\n"
        "    g = c(f, {'samples_per_concept': 1}, 7)\n"
        "    k = [s.key for s in g.samples('train')]\n"
        "    print(hashlib.sha256(b''.join(g.render('train', x).tobytes() for x in k)).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": "1"},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()) as ours:
        exec(code, {})
    assert other == ours.getvalue()
    assert len(other.split()) == 4


@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in ("digits", "photographs")])
def test_another_seed_or_split_gives_other_images(family: str) -> None:
    concept = small(family).samples("train")[0].concept
    first, other = small(family), small(family, seed=1)
    key, test_key = f"train/{concept}/00000", f"test/{concept}/00000"
    images = {
        pixels(first, "train", key),
        pixels(other, "train", key),
        pixels(first, "test", test_key),
        pixels(other, "test", test_key),
    }
    assert len(images) == 4


def test_the_pool_shares_no_image_with_the_held_out_sets() -> None:
    pool = generator_of(POOL)
    pool_images = {pixels(pool, "train", s.key) for s in samples_of(POOL)["train"][::20]}
    for name in HELD_OUT:
        generator = generator_of(name)
        held_out = {pixels(generator, "test", s.key) for s in samples_of(name)["test"][::5]}
        assert not pool_images & held_out


def test_training_and_test_crops_come_from_disjoint_regions() -> None:
    for subject, photograph in photographs.PHOTOGRAPHS.items():
        (l1, t1, r1, b1), (l2, t2, r2, b2) = photograph.train, photograph.test
        assert min(r1, r2) <= max(l1, l2) or min(b1, b2) <= max(t1, t2), subject


def test_no_handwritten_digit_is_used_twice() -> None:
    generator = create_generator(
        "digits", {"samples_per_concept": 130, "test_samples_per_concept": 44}, 0
    )
    for digit in ("zero", "eight"):
        images = [
            pixels(generator, split, s.key)
            for split in ("train", "test")
            for s in generator.samples(split)
            if s.concept == digit
        ]
        assert len(images) == len(set(images)) == 174


def test_held_out_faces_cover_every_alphabet_and_have_every_glyph() -> None:
    from fomo_dagster.data.suite.glyphs import ALPHABETS, HELD_OUT, font_of

    for name, alphabet in ALPHABETS.items():
        assert 0 < len(set(alphabet.faces) & set(HELD_OUT)) < len(alphabet.faces), name
        for face in alphabet.faces:
            font = font_of(face, 64)
            missing = bytes(font.getmask("\U000f1234"))
            for concept, character in alphabet.characters.items():
                assert bytes(font.getmask(character)) not in (missing, b""), (face, concept)


def test_relations_are_told_as_they_are_painted() -> None:
    generator = create_generator(
        "relations", {"samples_per_concept": 60, "concept": "pairs", "size": 64}, 3
    )
    from fomo_dagster.data.suite.canvas import COLOURS

    checked = 0
    for sample in generator.samples("train"):
        relation = next((r for r in ("left of", "above") if f" {r} " in sample.captions[0]), None)
        if relation is None:
            continue
        before, after = sample.captions[0].split(f" {relation} ")
        picture = np.asarray(generator.render("train", sample.key), dtype=float)
        middles = []
        for side in (before, after):
            colour = next(name for name in COLOURS if f" {name} " in f" {side} ")
            near = np.abs(picture - np.array(COLOURS[colour])).max(axis=2) < 30
            middles.append(np.argwhere(near).mean(axis=0))  # row, column
        axis = 1 if relation == "left of" else 0
        assert middles[0][axis] < middles[1][axis], sample
        checked += 1
    assert checked >= 15


def test_a_medley_is_its_parts_under_one_concept() -> None:
    part = {"generator": "sprites", "parameters": {"samples_per_concept": 2}}
    medley = create_generator("medley", {"concept": "all", "parts": {"a": part, "b": part}}, 0)
    samples = medley.samples("train")
    assert {s.concept for s in samples} == {"all"}
    assert len(samples) == 2 * 12 * 2
    rendered = {pixels(medley, "train", s.key) for s in samples}
    assert len(rendered) == len(samples)  # equal parts have seeds of their own
    with pytest.raises(DataError, match="no part 'c'"):
        medley.render("train", "train/c/circle/00000")
    with pytest.raises(InputError, match="sprites"):
        create_generator("medley", {"parts": {"a": {"generator": "sprite"}}}, 0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("sprite", {}, "'sprites'"),
        ("sprites", {"samples_per_concpet": 3}, "'samples_per_concept'"),
        ("sprites", {"samples_per_concept": -1}, "samples_per_concept = -1"),
        ("sprites", {"size": 4}, "size = 4"),
        ("sprites", {"concepts": ["circel"]}, "'circle'"),
        ("sprites", {"concepts": ["circle", "circle"]}, "named twice"),
        ("sprites", {"concepts": []}, "no concepts"),
        ("digits", {"samples_per_concept": 131}, "130 train images"),
        ("glyphs", {"alphabet": "cyrillic"}, "alphabet = 'cyrillic'"),
        ("relations", {"concept": "a/b"}, "without '/'"),
        ("medley", {"parts": {}}, "parts"),
    ],
)
def test_bad_parameters_are_named_with_the_way_out(
    name: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        create_generator(name, parameters, 0)


@given(key=st.text(max_size=30) | st.sampled_from(["train/circle/2", "test/circle/00000"]))
@settings(max_examples=50)
def test_a_key_that_is_not_in_the_split_is_refused(key: str) -> None:
    generator = small("sprites", concepts=["circle"])
    if key in {s.key for s in generator.samples("train")}:
        return
    with pytest.raises(DataError):
        generator.render("train", key)
    with pytest.raises(InputError, match="train"):
        generator.samples("trian")


def test_making_one_family_loads_no_other_library() -> None:
    code = (
        "import sys; from fomo_dagster.data.suite.registry import create_generator as c\n"
        "c('photographs', {}, 0).samples('train'); c('digits', {}, 0); c('glyphs', {}, 0)\n"
        "print([m for m in ('skimage', 'sklearn', 'matplotlib', 'torch') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
