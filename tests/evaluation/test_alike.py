"""Classes with equal token rows are found as the tokeniser itself would find them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip import SimpleTokenizer

from fomo_dagster.cli.main import main
from fomo_dagster.evaluation.alike import alike_classes, equal_in_all, said_of
from fomo_dagster.experiment.evaluation import Waffle
from fomo_dagster.models.clip_tokens import tokens_of, words_of

TOKENISER = SimpleTokenizer(context_length=12)
SHORT: dict[str, Any] = {"text_cfg": {"context_length": 12}}
LETTERS = "aAbs '’12+-_ßİ½&;.éÉÅ\u212b\u0301\u200b\u00a0\u2028漢ⅣﬁΣς"


def row(text: str) -> tuple[int, ...]:
    return tuple(TOKENISER([text])[0].tolist())


def alike(classes: list[str], folder: Path, prompts: Any = "dataset", **options: Any) -> Any:
    return alike_classes(classes, prompts, "a photo of a {}.", SHORT, None, folder, **options)


def some(letters: str, longest: int) -> Any:
    return st.lists(st.text(st.sampled_from(letters), max_size=longest), max_size=8, unique=True)


@settings(max_examples=30)
@given(st.text(max_size=20) | st.text(st.sampled_from(LETTERS), max_size=40))
def test_tokens_are_openclips(text: str) -> None:
    assert [TOKENISER.encoder[token] for token in tokens_of(text)] == TOKENISER.encode(text)


def test_special_tokens_and_long_words_are_openclips() -> None:
    for text in ("<start_of_text> a <END_OF_TEXT>", "antidisestablishmentarianism", "wheels's", ""):
        assert [TOKENISER.encoder[token] for token in tokens_of(text)] == TOKENISER.encode(text)


@given(some(LETTERS, 5))
def test_words_are_equal_exactly_where_tokens_are(texts: list[str]) -> None:
    by_tokens = equal_in_all(texts, ["{}"], lambda text: tuple(TOKENISER.encode(text)))
    assert equal_in_all(texts, ["{}"], words_of) == by_tokens


@given(some("aA bé.", 30))
@example(names=["AA", "", "A", "a", " "])
def test_classes_are_alike_exactly_where_their_rows_are_equal(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    found = alike(names, tmp_path_factory.getbasetemp())
    assert found == equal_in_all(names, ["a photo of a {}."], row)


CASES = {
    "case": (["Crane", "crane", "swan"], (("Crane", "crane"),)),
    "blanks": (["a  b", "a b", "a\u00a0b", "ab"], (("a  b", "a b", "a\u00a0b"),)),
    "past the context length": (
        ["one two three four five six seven", "one two three four five six eight", "one two"],
        (("one two three four five six seven", "one two three four five six eight"),),
    ),
    "entities and dashes": (["Q&A", "Q&amp;A", "rock'n", "rock’n"],
                            (("Q&A", "Q&amp;A"), ("rock'n", "rock’n"))),
    "none": (["a", "b", "a b"], ()),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_classes_that_no_model_tells_apart_are_grouped(tmp_path: Path, case: str) -> None:
    names, groups = CASES[case]
    assert alike(names, tmp_path) == groups


def test_classes_must_be_alike_in_every_template(tmp_path: Path) -> None:
    names = ["one two three four five six seven", "one two three four five six eight", "A", "a"]
    assert alike(names, tmp_path, ("{}", "a photo of a {}")) == (("A", "a"),)


@pytest.mark.parametrize("prompts", ["simple", Waffle()])
def test_what_needs_the_vocabulary_is_worked_out_once(tmp_path: Path, prompts: Any) -> None:
    assert alike(["A", "a"], tmp_path, prompts) == (("A", "a"),)
    (kept,) = tmp_path.iterdir()
    kept.write_text('[["from", "here"]]')
    assert alike(["A", "a"], tmp_path, prompts) == (("from", "here"),)
    assert alike(["A", "b"], tmp_path, prompts) == ()


def test_a_tokeniser_from_a_hub_is_not_fetched_to_plan(tmp_path: Path) -> None:
    arguments = (["A", "a"], "dataset", "{}", "ViT-B-16-SigLIP", None, tmp_path)
    assert alike_classes(*arguments) is None


def test_the_sentence_names_the_classes() -> None:
    said = said_of("birds", (("Crane", "crane"), ("a", "b", "c")))
    assert said.startswith("dataset 'birds' has 5 classes that no model can tell apart")
    assert "'Crane' and 'crane'; 'a' and 'b' and 'c'. Rename" in said


def test_a_plan_names_classes_that_are_alike(
    project: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        folder = project.root / "images/birds" / split
        (folder / "wren").rename(folder / "ROBIN")
    monkeypatch.setattr(sys, "argv", ["fomo", "plan", "toy"])
    with pytest.raises(SystemExit):
        main()
    assert caplog.text.count("'ROBIN' and 'robin'") == 1  # not at every stage
