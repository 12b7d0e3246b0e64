"""Threads make a merge faster, and nothing else of it different."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file

from fomo_dagster.errors import DataError
from fomo_dagster.merging import checkpoints, exact_quantiles
from fomo_dagster.merging.task_vectors import Elementwise
from fomo_dagster.merging.techniques import TECHNIQUES, AnyTechnique, merge
from fomo_dagster.merging.threads import Threads
from tests.merging.statistics_of import statistics_of

SHAPES = {
    "visual.transformer.resblocks.0.weight": (61, 5, 3),
    "transformer.resblocks.0.weight": (1, 257),
    "transformer.resblocks.1.weight": (130, 1),
    "visual.empty": (0, 3),
    "logit_scale": (),
}
KINDS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@pytest.fixture
def number_of_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", 64)
    monkeypatch.setattr(checkpoints, "NUMBERS_OF_ONE", 4)
    monkeypatch.setattr(exact_quantiles, "SAMPLED", 64)


def written(folder: Path, count: int, kinds: tuple[torch.dtype, ...]) -> list[Path]:
    """θ₀ first; many numbers are zeros of both signs, or have not changed, or changed equally."""
    random = torch.Generator().manual_seed(0)
    base = {}
    for name, shape in SHAPES.items():
        drawn = torch.randn(shape, generator=random)
        base[name] = torch.where(drawn.abs() < 0.3, 0 * drawn, drawn)
    paths = []
    for i in range(count + 1):
        weights = {}
        for name, theta in base.items():
            change = (torch.randn(theta.shape, generator=random) * 8).round() / 64
            weights[name] = (theta + (change if i else 0)).to(kinds[i % len(kinds)])
        paths.append(folder / f"{i}.safetensors")
        save_file(weights | {"counter": torch.tensor([3, 4])}, paths[-1])
    return paths


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("kinds", [KINDS, KINDS[:1]], ids=["mixed", "float32"])
@pytest.mark.usefixtures("number_of_threads")
def test_weights_are_the_same_with_every_number_of_threads(
    tmp_path: Path, technique: str, kinds: tuple[torch.dtype, ...]
) -> None:
    declared = TypeAdapter(AnyTechnique).validate_python({"technique": technique})
    count = 3 if declared.why_unsupported(3) is None else 2
    base, *models = written(tmp_path, count, kinds)
    found = []
    statistics = statistics_of(declared, models, tmp_path)
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        merge(declared, models, tmp_path / "out", base, statistics=statistics)
        found.append((tmp_path / "out").read_bytes())
    assert found[1] == found[0]
    assert found[2] == found[0]


OVER_MATRICES = [name for name, technique in TECHNIQUES.items() if technique.by_matrices]


@pytest.mark.parametrize("technique", OVER_MATRICES)
@pytest.mark.usefixtures("number_of_threads")
def test_matrices_that_libraries_would_share_out_among_threads_are_the_same(
    tmp_path: Path, technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", 2**19)
    random = torch.Generator().manual_seed(0)
    paths = [tmp_path / name for name in ("base", "a", "b")]
    for path in paths:
        shapes = {"visual.proj": (400, 300), "text_projection": (150, 350)}
        save_file({k: torch.randn(shape, generator=random) for k, shape in shapes.items()}, path)
    found = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        further = {"steps": 10} if technique == "wudi" else {}
        declared = TECHNIQUES[technique](**further)
        beside = statistics_of(declared, paths[1:], tmp_path)
        merge(declared, paths[1:], tmp_path / "out", paths[0], statistics=beside)
        found.append((tmp_path / "out").read_bytes())
        assert torch.get_num_threads() == threads
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.usefixtures("number_of_threads")
def test_no_more_threads_work_than_the_process_was_given(tmp_path: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    working: set[int] = set()

    class Watched(Elementwise):
        technique: str = "watched"

        def join(self, vectors, weights):
            working.add(threading.get_ident())
            time.sleep(0.001)
            return vectors.sum(axis=0)

    base, *models = written(tmp_path, 2, KINDS[:1])
    merge(Watched(), models, tmp_path / "out", base)
    assert len(working) == threads
    assert (threading.get_ident() in working) == (threads == 1)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.usefixtures("number_of_threads")
def test_of_several_files_that_are_broken_the_same_is_named(tmp_path: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    weights = {"w": torch.ones(4000)}
    save_file(weights, tmp_path / "a")
    late, early = weights["w"].clone(), weights["w"].clone()
    late[3999], early[2000] = float("nan"), float("inf")
    save_file({"w": late}, tmp_path / "late")
    save_file({"w": early}, tmp_path / "early")
    paths = [tmp_path / name for name in ("a", "late", "early")]
    for _ in range(5):
        with pytest.raises(DataError, match=r"w of .*early is not finite"):
            merge(TECHNIQUES["weighted_mean"](), paths, tmp_path / "out")


@pytest.mark.parametrize("technique", ["ties", "breadcrumbs", "sce"])
def test_what_selects_by_magnitude_names_what_is_not_finite(tmp_path: Path, technique: str) -> None:
    broken = torch.ones(4000)
    broken[1] = float("nan")  # which no sample has
    save_file({"w": torch.zeros(4000)}, tmp_path / "base")
    save_file({"w": broken}, tmp_path / "model")
    with pytest.raises(DataError, match=r"w of .*model is not finite"):
        merge(TECHNIQUES[technique](), [tmp_path / "model"], tmp_path / "out", tmp_path / "base")


@pytest.mark.usefixtures("number_of_threads")
def test_an_interrupt_ends_a_merge_when_no_thread_works_any_more(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    base, *models = written(tmp_path, 2, KINDS[:1])
    done = []

    class Interrupted(Elementwise):
        technique: str = "interrupted"

        def join(self, vectors, weights):
            time.sleep(0.001)
            done.append(1)
            if len(done) == 5:
                raise KeyboardInterrupt
            return vectors.sum(axis=0)

    with pytest.raises(KeyboardInterrupt):
        merge(Interrupted(), models, tmp_path / "out", base)
    so_many = len(done)
    assert so_many < 40
    time.sleep(0.05)
    assert len(done) == so_many


@pytest.mark.usefixtures("number_of_threads")
@pytest.mark.parametrize("threads", [1, 3])
def test_tasks_come_in_order_and_those_before_a_failure_are_told_first(threads: int) -> None:
    torch.set_num_threads(threads)

    def tasks(*, fails: int | None = None):
        for number in range(20):
            yield lambda number=number: slow(number, fails)
        raise ValueError("going on")

    def slow(number: int, fails: int | None) -> int:
        time.sleep(0.002 if number % 3 else 0.01)
        if number == fails:
            raise ValueError(f"task {number}")
        return number

    for fails, come, message in ((None, 20, "going on"), (18, 18, "task 18"), (3, 3, "task 3")):
        found = []
        with Threads() as work, pytest.raises(ValueError, match=message):
            found.extend(iter_into(found, work.in_order(tasks(fails=fails))))
        assert found == list(range(come))


def iter_into(found: list[int], results: Iterator[int]) -> list[int]:
    for result in results:
        found.append(result)
    return []


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1.0, 1e30])
def test_magnitudes_of_single_precision_are_those_rounded_from_double(
    tmp_path: Path, scale: float
) -> None:
    """Differences of numbers whose exponents are near and far, down to the smallest there are."""
    random = np.random.default_rng(0)
    near = random.normal(size=5000) * scale
    far = near * 2.0 ** random.integers(-40, 2, 5000)
    base, model = near.astype(np.float32), (near + far).astype(np.float32)
    save_file({"w": torch.from_numpy(base)}, tmp_path / "base")
    save_file({"w": torch.from_numpy(model)}, tmp_path / "model")
    with checkpoints.Checkpoints([tmp_path / "model"], tmp_path / "base") as files:
        found = np.concatenate([*files.over_magnitudes("w", 0, lambda numbers: numbers)])
    expected = np.abs(model.astype(np.float64) - base.astype(np.float64)).astype(np.float32)
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 1000
