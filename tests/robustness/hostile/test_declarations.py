"""Experiment and dataset files that are damaged or meant ill."""

import os

import pytest


def append(path, text):
    path.write_text(path.read_text() + text)


def bomb(levels=30):
    """A mapping whose every key is nine times the one before."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


CASES = {
    "bytes that are no text": (
        lambda p: (p.root / "experiments/toy.yaml").write_bytes(b"name: \xff\xfe\n"),
        ["plan", "toy"], 2, ["toy.yaml"],
    ),
    "a key that repeats": (
        lambda p: append(p.root / "experiments/toy.yaml", "batch_size: 10\n"),
        ["plan", "toy"], 2, ["toy.yaml", "batch_size"],
    ),
    "anchors that make a few lines many": (
        lambda p: (p.root / "experiments/toy.yaml").write_text(bomb()),
        ["plan", "toy"], 2, ["toy.yaml, line 7", "anchors"],
    ),
    "brackets without end in a value of a command": (
        lambda p: None, ["plan", "toy", "--set", "seed=" + "[" * 100_000], 2, ["nesting depth"],
    ),
    "a pipe, which would be waited for": (
        lambda p: pipe(p.root / "experiments/toy.yaml"), ["plan", "toy"], 2, ["it is no file"],
    ),
    "a number where text is expected": (
        lambda p: append(p.root / "experiments/toy.yaml", "description: 1e3\n"),
        ["plan", "toy"], 2, ["toy.yaml, line ", "description is 1000.0", "quote it"],
    ),
    "more stages than concepts": (
        lambda p: None, ["plan", "toy", "--set", "stream.stages=99"], 2,
        ["streams/toy/order: stream.stages is 99", "choose from 1 to "],
    ),
    "nothing to evaluate on": (
        lambda p: None,
        ["plan", "toy", "--set", "stream.datasets=[]", "--set", "evaluation.held_out=[]"],
        2, ["'toy' has no dataset to evaluate on", "evaluation.held_out"],
    ),
    "a budget of less than a batch": (
        lambda p: None, ["plan", "toy", "--set", "budget={samples: 2}"], 2,
        ["--set 'budget={samples: 2}': budget.samples is 2", "lower batch_size"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_declaration_is_refused_in_a_sentence(ends, case):
    ends(*CASES[case])
