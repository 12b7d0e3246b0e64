"""`fomo serve`."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fomo_dagster.cli.output import Terminal, TerminalHandler, say
from fomo_dagster.cli.release_commands import Name
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.home import Home

if TYPE_CHECKING:
    from fomo_dagster.serving.counters import Counters
    from fomo_dagster.serving.limits import Limits
    from fomo_dagster.serving.loading import Loader

ENGINES = ("onnx", "torch")
FORMS = ("onnx", "onnx_fp16", "onnx_int8")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def serve(
    name: Name,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on; 0 is any that is free.")
    ] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    beside: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, help="A release to have at hand beside the live one."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="onnx, which takes the files of a release, or torch, its weights.")
    ] = "onnx",
    form: Annotated[
        str, typer.Option(help="The form that onnx takes: onnx, onnx_fp16 or onnx_int8.")
    ] = "onnx",
    batch: Annotated[
        int, typer.Option(min=1, max=1024, help="The most images or texts of a batch.")
    ] = 32,
    wait_ms: Annotated[
        float,
        typer.Option(min=0, max=1000, help="Milliseconds that a batch waits for more to come."),
    ] = 3.0,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds until a request is given up.")
    ] = 10.0,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of the model; by default one for each core (onnx)."),
    ] = None,
) -> None:
    """Answer over HTTP with what is live: embeddings, and classes by name.

    A release that goes live takes over without a request lost. The page at / tries it; endpoints
    are in /openapi.json. docs/serving.md tells more.
    """
    from fomo_dagster.cli.ports import check_is_free, is_open_to_others
    from fomo_dagster.cli.releases import log_of
    from fomo_dagster.serving.packages import check_packages

    for option, value, valid in (("--engine", engine, ENGINES), ("--form", form, FORMS)):
        if value not in valid:
            raise InputError(f"{option} {value!r} is unknown: {nearest(value, valid)}")
    if engine == "torch" and (form != "onnx" or threads is not None):
        raise InputError("--form and --threads are about --engine onnx: leave them out")
    check_packages()
    home = Home.from_environment()
    log_of(home, name)
    check_is_free(host, port)
    is_open = is_open_to_others(host)
    if is_open:
        logging.getLogger(__name__).warning(
            "the server asks nobody who they are: whoever reaches %s:%d can use it", host, port
        )
    from fomo_dagster.serving.counters import Counters
    from fomo_dagster.serving.limits import Limits
    from fomo_dagster.serving.loaded import Batching
    from fomo_dagster.serving.loading import EngineName, Form, Loader

    counters = Counters()
    loader = Loader(
        home=home, name=name, engine=cast(EngineName, engine), form=cast(Form, form),
        threads=threads, batching=Batching(batch, wait_ms / 1000), on_batch=counters.on_batch,
    )  # fmt: skip
    hosts = None if is_open else frozenset({*LOOPBACK, _in_address(host).lower()})
    _run(loader, counters, beside, host, port, Limits(seconds=timeout), hosts)


def _run(
    loader: Loader, counters: Counters, beside: int | None, host: str, port: int, limits: Limits,
    hosts: frozenset[str] | None,
) -> None:  # fmt: skip
    from fomo_dagster.cli.interruptions import Signals
    from fomo_dagster.serving.releases import ServedReleases
    from fomo_dagster.serving.server import serve as answer

    _log_swaps()
    with Signals():  # SIGTERM is as Ctrl-C
        releases = ServedReleases(loader, counters, beside)
        shown = releases.history.shown(releases.live.number)
        where = f"{loader.name}, {shown}: http://{_in_address(host)}"
        answer(
            loader, releases, counters, host=host, port=port, limits=limits, hosts=hosts,
            on_start=lambda port: say(Terminal(), f"{where}:{port}"),
        )  # fmt: skip


def _in_address(host: str) -> str:
    """A host as an address on the web has it."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def _log_swaps() -> None:
    """Say on stderr, with the time, what the server does by itself."""
    handler = TerminalHandler(logging.INFO)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    served = logging.getLogger("fomo_dagster.serving")
    served.handlers, served.propagate = [handler], False
    served.setLevel(logging.INFO)
