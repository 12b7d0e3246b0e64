"""torchrun, with a store that listens at one address alone.

`python -m fomo_dagster.cli.agent ARGUMENTS OF torchrun`. PyTorch's own rendezvous backends open
their store at every address of a machine, and whoever reaches it can read and write it. The backend
`fomo` opens it at the address that the endpoint stands for, on the machine that has it, or at that
of an interface (`--rdzv-conf interface=NAME`). On one machine that is 127.0.0.1, and what Gloo and
NCCL open stays on the loopback interface too; on several, on the interface where one is named.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta

import psutil
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.run import main

from fomo_dagster.errors import InputError

BACKEND = "fomo"
_PATIENCE = timedelta(seconds=600)  # for the other machines to come


class Meeting(RendezvousHandler):
    """Where agents meet, as many as `--nnodes` says, and the processes that they start. Once."""

    def __init__(self, parameters: RendezvousParameters) -> None:
        host, _, port = parameters.endpoint.rpartition(":")
        self._run = parameters.run_id
        self._machines = parameters.max_nodes
        interface = parameters.get("interface")
        listening = listen(host, int(port), interface, self._machines)
        if self._machines == 1:
            interface = loopback()
        if interface is not None:  # for the processes that are started later
            os.environ |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
        if listening is not None:
            host, port = listening.getsockname()[:2]
        self._at = RendezvousStoreInfo(host, int(port))
        self._is_host = listening is not None
        self._store = TCPStore(
            host, int(port), is_master=self._is_host, timeout=_PATIENCE, wait_for_workers=False,
            master_listen_fd=None if listening is None else listening.detach(),
        )  # fmt: skip

    def get_backend(self) -> str:
        """See base class, as all the following."""
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        store = PrefixStore(self._run, self._store)
        number = 0 if self._is_host else store.add("others", 1)
        if number >= self._machines:
            raise RendezvousConnectionError(f"{self._machines} machines are there already")
        return RendezvousInfo(store, number, self._machines, self._at)

    def num_nodes_waiting(self) -> int:
        try:
            self._store.check([self._run])  # raises where the machine that has it is gone
        except (RuntimeError, TimeoutError) as error:
            raise RendezvousConnectionError("the machine with the store is gone") from error
        return 0

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def get_run_id(self) -> str:
        return self._run

    def shutdown(self) -> bool:
        return True


def listen(host: str, port: int, interface: str | None, machines: int) -> socket.socket | None:
    """A socket that listens at the address of `host` or of the interface; None on every machine but
    the one that `host` is.

    Raises `InputError` where others could not come to that address, or it is taken.
    """
    own = addresses()
    try:
        found = [str(answer[4][0]) for answer in socket.getaddrinfo(host, port)]
    except socket.gaierror as error:
        raise InputError(f"rendezvous: {host!r} is no machine's name ({error.strerror})") from error
    if interface is not None and interface not in own:
        raise InputError(
            f"machines.interface is {interface!r}, and {socket.gethostname()} has no such "
            f"interface with an address: it has {', '.join(sorted(own))}"
        )
    here = [one for one in found if is_local(one) or any(one in of for of in own.values())]
    if not here:
        return None
    outside = [one for one in here if not is_local(one)]
    reached = outside if interface is None else own[interface]
    if interface is not None and outside:
        reached = [one for one in outside if one in own[interface]]
        if not reached:
            raise InputError(
                f"rendezvous: {host} is {outside[0]}, and machines.interface {interface!r} has "
                f"{own[interface][0]}, where the other machines would not come: name that address, "
                "or the interface that has the other"
            )
    if machines > 1 and not reached:
        raise InputError(
            f"rendezvous: {host} is {here[0]} on this machine, where no other can come: give its "
            "address, or machines.interface"
        )
    address = (reached or here)[0]
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise InputError(
            f"rendezvous: {address}:{port} cannot be listened on ({error.strerror}): name another "
            "port"
        ) from error


def addresses() -> Mapping[str, Sequence[str]]:
    """Interface → its addresses, of this machine: IPv4 first, and none that is good on one link
    alone (fe80::…%eth0)."""
    own: dict[str, list[str]] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for name, several in psutil.net_if_addrs().items():
            found = [one.address for one in several if one.family == family]
            own.setdefault(name, []).extend(one for one in found if "%" not in one)
    return {name: several for name, several in own.items() if several}


def is_local(address: str) -> bool:
    """Whether no other machine reaches it."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def loopback() -> str:
    """The name of the interface that no other machine reaches; `lo` on Linux."""
    return next((name for name, own in addresses().items() if any(map(is_local, own))), "lo")


if __name__ == "__main__":
    rendezvous_handler_registry.register(BACKEND, Meeting)
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
