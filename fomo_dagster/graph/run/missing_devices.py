"""Whether this machine has the devices that a plan computes on, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable

from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.builder import Graph
from fomo_dagster.graph.run.plan import Planned


def missing_devices(planned: Iterable[Planned], graph: Graph) -> list[str]:
    """A sentence for each device that is named and not here, with the first asset that needs it.

    What several machines make together is left to them: this one may only launch it.
    """
    named: dict[tuple[str, int], str] = {}
    for entry in planned:
        node = graph.nodes[entry.asset]
        needs, execution = node.needs, node.parallelism
        is_elsewhere = execution is not None and execution.machines is not None
        if needs is None or not entry.compute or is_elsewhere:
            continue
        is_named = needs.device not in ("", "cpu", "auto")
        if is_named or (needs.device == "auto" and needs.devices > 1):
            named.setdefault((needs.device, needs.devices), entry.asset)
    if not named:
        return []
    from fomo_dagster.models.devices import check_device  # with PyTorch

    said = []
    for (device, processes), asset in named.items():
        try:
            check_device(device, processes)
        except InputError as error:
            said.append(f"{asset}: {error}")
    return said
