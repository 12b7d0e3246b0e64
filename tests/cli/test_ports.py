"""`fomo ui` says at once that it cannot listen where it was asked to."""

import errno
import re
import socket

import pytest
from typer.testing import CliRunner

from fomo_dagster.cli import ports
from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_named_with_a_free_one(taken):
    with pytest.raises(InputError, match=rf"port {taken} of 127\.0\.0\.1 is taken: --port") as said:
        ports.check_is_free("127.0.0.1", taken)
    free = int(re.search(r"--port (\d+) is free", str(said.value))[1])
    ports.check_is_free("127.0.0.1", free)


def test_a_port_that_another_address_has_is_taken_for_all(taken):
    with pytest.raises(InputError, match=rf"port {taken} of 0\.0\.0\.0 is taken"):
        ports.check_is_free("0.0.0.0", taken)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a..b", "x" * 300])
def test_a_host_that_is_no_address_of_this_machine_is_refused(host):
    with pytest.raises(InputError, match=r"nothing can listen at --host .* leave it out for 127"):
        ports.check_is_free(host, 3000)


def test_a_port_that_needs_root_is_said(monkeypatch):
    def refused(address, family):
        if address[1] < 1024:
            raise PermissionError(errno.EACCES, "Permission denied")
        return socket.socket()

    monkeypatch.setattr(socket, "create_server", refused)
    with pytest.raises(
        InputError, match=r"port 80 of 127\.0\.0\.1 needs root.*--port 1024 is free"
    ):
        ports.check_is_free("127.0.0.1", 80)


def test_a_name_without_ipv6_behind_it_is_free(monkeypatch):
    families = [(socket.AF_INET6, ("::1", 3000, 0, 0)), (socket.AF_INET, ("127.0.0.1", 3000))]
    found = [(family, None, None, "", address) for family, address in families]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    def listened(address, family):
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return socket.socket()

    monkeypatch.setattr(socket, "create_server", listened)
    ports.check_is_free("localhost", 3000)


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True), ("192.0.2.1", True)],
)
def test_a_ui_that_others_reach_is_told(host, is_open):
    assert ports.is_open_to_others(host) is is_open


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http"])
def test_what_is_no_port_is_refused(port):
    result = CliRunner().invoke(app, ["ui", "--port", port])
    assert result.exit_code == 2
    assert "--port" in result.output
