"""What is in trouble: it has an asset that says why, where a person looks for the experiment's."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg

from fomo_dagster.experiment.experiment_sets import Trouble
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.build.names import RESERVED, TROUBLE, WORDS, job_name
from fomo_dagster.graph.core.keys import DATASETS


def named_troubles(graph: Graph) -> dict[str, Trouble]:
    """The troubles of a graph, by names of groups and jobs that nothing else has: the experiment's,
    comparison's or gallery's own name, or else its file's."""
    of_files = (*graph.comparisons, *graph.galleries)
    names = (*graph.experiments, *graph.sweeps, *map(job_name, of_files))
    taken = {name.casefold() for name in (*names, *RESERVED, *WORDS)}
    named: dict[str, Trouble] = {}
    for trouble in graph.troubles:
        candidates = [re.sub(r"\W", "_", one, flags=re.ASCII) or "_"
                      for one in (trouble.name, trouble.path.stem)]  # fmt: skip
        candidates += [f"{candidates[0]}_{number}" for number in range(2, len(taken) + 3)]
        name = next(one for one in candidates if one.casefold() not in taken)
        taken.add(name.casefold())
        named[name] = trouble
    return named


def trouble_assets(
    troubles: Mapping[str, Trouble], wrong_datasets: Sequence[str]
) -> Iterator[dg.AssetsDefinition]:
    """An asset in the group of each, and one for the declarations of datasets."""
    for name, trouble in troubles.items():
        yield _saying(name, trouble.sentence)
    if wrong_datasets:
        yield _saying(DATASETS, "\n\n".join(wrong_datasets))


def trouble_key(name: str) -> dg.AssetKey:
    """The key of the asset in a group that says what is wrong."""
    return dg.AssetKey([name, TROUBLE])


def trouble_asset(
    name: str,
    sentence: str,
    materialise: Callable[[dg.AssetExecutionContext], None],
    checks: Sequence[dg.AssetCheckSpec] = (),
) -> dg.AssetsDefinition:
    """The asset in a group that says what is wrong. materialise: what materialising it does."""

    @dg.asset(
        key=trouble_key(name),
        group_name=name,
        description=sentence,
        kinds={"error"},
        check_specs=checks,
    )
    def say(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        materialise(context)
        results = [dg.AssetCheckResult(check_name=check.name, passed=True) for check in checks]
        return dg.MaterializeResult(check_results=results)

    return say


def _saying(name: str, sentence: str) -> dg.AssetsDefinition:
    def say(context: dg.AssetExecutionContext) -> None:
        raise dg.Failure(sentence, {"then": "reload the code location"}, allow_retries=False)

    return trouble_asset(name, sentence, say)
