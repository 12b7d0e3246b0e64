"""Failures of scheduled runs and arrivals reach a webhook and a mailbox, those of people do not."""

import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from assets.announcing import EMAIL, SMTP, UI, WEBHOOK, announcing_sensor

SCHEDULED = {"dagster/schedule_name": "toy_schedule", "fomo/experiment": "toy"}


@pytest.fixture
def hook(monkeypatch):
    """A server on loopback; the list of what it was sent, and the statuses that it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.received.append(json.loads(body))
            self.send_response(server.answers.pop(0) if server.answers else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{server.server_port}/secret")
    monkeypatch.delenv(EMAIL, raising=False)
    monkeypatch.setenv(UI, "127.0.0.1:3000")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def mailbox(monkeypatch):
    """A mail server on loopback, as far as one message goes; what it was told, line by line."""
    listening = socket.create_server(("127.0.0.1", 0))
    lines: list[str] = []

    def serve():
        connection, _ = listening.accept()
        with connection, connection.makefile("rw", newline="\r\n") as stream:

            def answer(text):
                stream.write(text + "\n")
                stream.flush()

            answer("220 here")
            body = False
            for line in stream:
                lines.append(line.strip())
                if body and line.strip() != ".":
                    continue
                body = line.strip().upper() == "DATA"
                said = {"DATA": "354 go on", "QUIT": "221 bye"}
                answer(said.get(line.strip().upper(), "250 fine"))

    threading.Thread(target=serve, daemon=True).start()
    monkeypatch.delenv(WEBHOOK, raising=False)
    monkeypatch.setenv(EMAIL, "ann@example.com, ben@example.com")
    monkeypatch.setenv(SMTP, f"smtp://127.0.0.1:{listening.getsockname()[1]}")
    yield lines
    listening.close()


@dg.op
def fail():
    raise ValueError("the images are gone")


@dg.job
def toy():
    fail()


@dg.resource
def broken(_):
    raise ValueError("the store is gone")


@dg.op(required_resource_keys={"store"})
def never_begins():
    pass


@dg.job(resource_defs={"store": broken})
def without_steps():
    never_begins()


def announce(tags, toy=toy):
    """What the sensor makes of a run that failed with these tags."""
    (sensor,) = announcing_sensor()
    with dg.DagsterInstance.ephemeral() as instance:
        result = toy.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        context = dg.build_run_status_sensor_context(
            sensor_name=sensor.name,
            dagster_event=result.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=instance.get_run_by_id(result.run_id),
        )
        return sensor(context.for_run_failure()), result.run_id


def test_nothing_is_announced_unless_it_is_asked_for(monkeypatch):
    monkeypatch.delenv(WEBHOOK, raising=False)
    monkeypatch.delenv(EMAIL, raising=False)
    assert list(announcing_sensor()) == []


@pytest.mark.parametrize("tag", ["dagster/schedule_name", "dagster/sensor_name"])
def test_a_failure_of_a_schedule_or_a_sensor_is_posted_with_its_reason(hook, tag):
    _, run = announce({tag: "x", "fomo/experiment": "toy"})
    (told,) = hook.received
    assert told == {
        "text": "toy failed: ValueError: the images are gone", "experiment": "toy", "job": "toy",
        "run_id": run, "error": "ValueError: the images are gone",
        "url": f"http://127.0.0.1:3000/runs/{run}",
    }  # fmt: skip


def test_a_run_that_fails_before_its_first_step_is_posted_with_its_reason(hook):
    announce(SCHEDULED, without_steps)
    assert hook.received[0]["error"] == "ValueError: the store is gone"


def test_a_run_that_a_person_began_is_not_announced(hook):
    result, _ = announce({"fomo/experiment": "toy"})
    assert isinstance(result, dg.SkipReason)
    assert hook.received == []


def test_a_busy_server_is_asked_again_and_a_refusal_is_said_without_the_url(hook):
    hook.answers[:] = [503]
    announce(SCHEDULED)
    assert len(hook.received) == 2
    hook.answers[:] = [404]
    with pytest.raises(dg.Failure) as raised:
        announce(SCHEDULED)
    assert "the webhook was not sent (its server answered 404" in raised.value.description
    assert "secret" not in raised.value.description


def test_a_redirection_is_no_success(hook):
    hook.answers[:] = [302]
    with pytest.raises(dg.Failure, match="answered 302"):
        announce(SCHEDULED)


def test_a_failure_is_mailed_to_every_address(mailbox):
    announce(SCHEDULED)
    assert {"rcpt TO:<ann@example.com>", "rcpt TO:<ben@example.com>"} <= set(mailbox)
    assert "Subject: toy failed" in mailbox
    assert any("the images are gone" in line for line in mailbox)


def test_a_mail_server_that_is_none_is_named(mailbox, monkeypatch):
    monkeypatch.setenv(SMTP, "example.com:25")
    with pytest.raises(dg.Failure) as raised:
        announce(SCHEDULED)
    assert "FOMO_SMTP must be smtp://HOST" in raised.value.description


def test_addresses_that_are_none_are_named(mailbox, monkeypatch):
    monkeypatch.setenv(EMAIL, " , ")
    with pytest.raises(dg.Failure, match=r"FOMO_ANNOUNCE_EMAIL names no address"):
        announce(SCHEDULED)


@pytest.mark.parametrize("password", ["s3c/ret", "s3c#ret", "s3c[ret"])
def test_a_password_that_is_not_escaped_is_refused_and_not_shown(mailbox, monkeypatch, password):
    monkeypatch.setenv(SMTP, f"smtp://ann:{password}@127.0.0.1:25")
    with pytest.raises(dg.Failure) as raised:
        announce(SCHEDULED)
    assert "FOMO_SMTP must be smtp://HOST" in raised.value.description
    assert "s3c" not in raised.value.description


def test_a_password_does_not_go_in_clear(mailbox, monkeypatch):
    monkeypatch.setenv(SMTP, os.environ[SMTP].replace("smtp://", "smtp://ann:secret@"))
    with pytest.raises(dg.Failure, match="no STARTTLS"):
        announce(SCHEDULED)
    assert not any(line.upper().startswith("AUTH") for line in mailbox)
