"""Where launched processes meet: at one address, never at all of a machine's."""

import socket

import pytest

from fomo_dagster.cli import agent
from fomo_dagster.errors import InputError

OWN = {"lo": ["127.0.0.1", "::1"], "eth0": ["192.0.2.5"], "ib0": ["198.51.100.5", "2001:db8::5"]}
NAMES = {
    "here": ["192.0.2.5"], "debian": ["127.0.1.1"], "both": ["127.0.1.1", "198.51.100.5"],
    "six": ["2001:db8::5"], "there": ["192.0.2.9"], "127.0.0.1": ["127.0.0.1"],
}  # fmt: skip


class Listening:
    def __init__(self, address, family):
        self.address, self.family = address, family


@pytest.fixture(autouse=True)
def network(monkeypatch):
    def resolved(host, port):
        if host not in NAMES:
            raise socket.gaierror(-2, "Name or service not known")
        return [(None, None, None, None, (address, port)) for address in NAMES[host]]

    monkeypatch.setattr(agent, "addresses", lambda: OWN)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(socket, "create_server", Listening)


@pytest.mark.parametrize(
    ("host", "interface", "machines", "address"),
    [
        ("127.0.0.1", None, 1, "127.0.0.1"),
        ("here", None, 2, "192.0.2.5"),
        ("here", "eth0", 2, "192.0.2.5"),
        ("both", None, 2, "198.51.100.5"),
        ("both", "ib0", 2, "198.51.100.5"),
        ("debian", "ib0", 2, "198.51.100.5"),  # its own name stands for 127.0.1.1 in /etc/hosts
        ("six", "ib0", 2, "2001:db8::5"),
    ],
)
def test_the_store_listens_at_one_address(host, interface, machines, address):
    listening = agent.listen(host, 29500, interface, machines)
    assert listening.address == (address, 29500)
    assert listening.family == (socket.AF_INET6 if ":" in address else socket.AF_INET)


@pytest.mark.parametrize("interface", [None, "eth0"])
def test_a_machine_without_the_rendezvous_s_address_has_no_store(interface):
    assert agent.listen("there", 29500, interface, 2) is None


@pytest.mark.parametrize(
    ("host", "interface", "said"),
    [
        ("nowhere", None, "'nowhere' is no machine's name"),
        ("here", "eth1", r"interface is 'eth1'.* has eth0, ib0, lo|it has eth0, ib0, lo"),
        ("here", "ib0", "here is 192.0.2.5, and machines.interface 'ib0' has 198.51.100.5"),
        ("debian", None, "debian is 127.0.1.1 on this machine, where no other can come"),
    ],
)
def test_where_the_others_would_not_come_is_refused(host, interface, said):
    with pytest.raises(InputError, match=said):
        agent.listen(host, 29500, interface, 2)


def test_a_taken_port_is_said(monkeypatch):
    def taken(address, family):
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket, "create_server", taken)
    with pytest.raises(InputError, match=r"192\.0\.2\.5:29500 cannot be listened on .*in use"):
        agent.listen("here", 29500, None, 2)
