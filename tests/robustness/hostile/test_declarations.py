"""Experiment and dataset files that are damaged or meant ill."""

import pytest


def append(path, text):
    path.write_text(path.read_text() + text)


CASES = {
    "bytes that are no text": (
        lambda p: (p.root / "experiments/toy.yaml").write_bytes(b"name: \xff\xfe\n"),
        ["plan", "toy"], 2, ["toy.yaml"],
    ),
    "a key that repeats": (
        lambda p: append(p.root / "experiments/toy.yaml", "batch_size: 10\n"),
        ["plan", "toy"], 2, ["toy.yaml", "batch_size"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_declaration_is_refused_in_a_sentence(ends, case):
    ends(*CASES[case])
