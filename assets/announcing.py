"""Failures of runs that nobody sits at are announced: scheduled ones, arrivals, automation.

Off unless one of these is set where Dagster's daemon and code server run:

FOMO_ANNOUNCE_WEBHOOK: a URL that is sent a JSON object by POST: `text` (a sentence, which Slack and
  Mattermost show as it is), `experiment`, `job`, `run_id`, `error`, `url` (of the run in the UI,
  where `fomo ui` runs; else null).
FOMO_ANNOUNCE_EMAIL: addresses, separated by commas; FOMO_SMTP says by which server,
  `smtps://user:password@host:465` or `smtp://host:25` (with STARTTLS where the server has it).
"""

import json
import os
import smtplib
import ssl
from collections.abc import Callable, Iterator, Mapping
from email.message import EmailMessage
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import dagster as dg
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from assets.specs import EXPERIMENT_TAG
from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.names import ANNOUNCE
from fomo_dagster.home import UI

WEBHOOK, EMAIL, SMTP = "FOMO_ANNOUNCE_WEBHOOK", "FOMO_ANNOUNCE_EMAIL", "FOMO_SMTP"
SECONDS_FOR_AN_ANSWER = 10
OF_NOBODY = ("dagster/schedule_name", "dagster/sensor_name")  # tags of runs that no person began

Send = Callable[[Mapping[str, Any]], None]


def announcing_sensor() -> Iterator[dg.SensorDefinition]:
    """The sensor, switched on, if an announcement is set up; none otherwise."""
    if not (os.environ.get(WEBHOOK) or os.environ.get(EMAIL)):
        return

    @dg.run_failure_sensor(
        name=ANNOUNCE,
        description="Announces failed runs of schedules and sensors by webhook or e-mail.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def announce(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        if not any(tag in context.dagster_run.tags for tag in OF_NOBODY):
            return dg.SkipReason("a person began this run, and sees its end")
        told = announcement_of(context)
        failed = []
        for kind, send in senders():
            try:
                send(told)
            except (requests.RequestException, OSError, InputError) as error:
                # Not its text: that of requests has the whole URL, which is a secret.
                reason = str(error) if isinstance(error, InputError) else type(error).__name__
                failed.append(f"the {kind} was not sent ({reason})")
        if failed:
            raise dg.Failure(f"{told['text']}; and {' and '.join(failed)}", allow_retries=False)
        return None

    yield announce


def announcement_of(context: dg.RunFailureSensorContext) -> dict[str, Any]:
    """What is announced about a failed run."""
    run = context.dagster_run
    errors = []
    failures = [event.step_failure_data.error for event in context.get_step_failure_events()]
    # A run that fails before its first step has its reason in its own event, if anywhere.
    whole = context.failure_event.event_specific_data
    for raised in failures or [getattr(whole, "error", None)]:
        while raised is not None and raised.cause is not None:
            raised = raised.cause
        if raised is not None:
            errors.append(raised.message.strip())
    error = "; ".join(errors) or context.failure_event.message or "no reason is known"
    experiment = run.tags.get(EXPERIMENT_TAG)
    address = os.environ.get(UI)
    return {
        "text": f"{experiment or run.job_name} failed: {error}",
        "experiment": experiment,
        "job": run.job_name,
        "run_id": run.run_id,
        "error": error,
        "url": f"http://{address}/runs/{run.run_id}" if address else None,
    }


def senders() -> Iterator[tuple[str, Send]]:
    """The configured senders, by the kind of message."""
    if webhook := os.environ.get(WEBHOOK):
        yield "webhook", lambda told: _post(webhook, told)
    if addresses := os.environ.get(EMAIL):
        yield "e-mail", lambda told: _mail(addresses, told)


def _post(url: str, told: Mapping[str, Any]) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{WEBHOOK} is no http or https URL")
    # A server that is busy or starts again is asked three times; POST is no reason not to.
    # It is not waited for as long as it likes: a sensor has a minute.
    tries = Retry(
        3, backoff_factor=1, status_forcelist=(429, 502, 503, 504), allowed_methods=None,
        raise_on_status=False, respect_retry_after_header=False,
    )  # fmt: skip
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=tries))
        # A redirection would become a GET, and the message be lost with a success.
        answer = session.post(url, json=told, timeout=SECONDS_FOR_AN_ANSWER, allow_redirects=False)
    if not 200 <= answer.status_code < 300:
        raise InputError(f"its server answered {answer.status_code}, not 200 to 299")


def _mail(addresses: str, told: Mapping[str, Any]) -> None:
    server = _server(os.environ.get(SMTP, ""))
    to = [address.strip() for address in addresses.split(",") if address.strip()]
    if not to:
        raise InputError(f"{EMAIL} names no address: give one, or several separated by commas")
    user, password = unquote(server.username or ""), unquote(server.password or "")
    message = EmailMessage()
    message["To"], message["From"] = ", ".join(to), user if "@" in user else to[0]
    message["Subject"] = f"{told['experiment'] or told['job']} failed"
    message.set_content(f"{told['text']}\n\n{json.dumps(told, indent=1)}\n")
    host, secure = server.hostname or "", server.scheme == "smtps"
    port = server.port or (465 if secure else 25)
    trusted = ssl.create_default_context()  # smtplib's own takes any certificate
    with (
        smtplib.SMTP_SSL(host, port, timeout=SECONDS_FOR_AN_ANSWER, context=trusted)
        if secure
        else smtplib.SMTP(host, port, timeout=SECONDS_FOR_AN_ANSWER)
    ) as connection:
        if not secure:
            connection.ehlo()
            if connection.has_extn("starttls"):
                connection.starttls(context=trusted)
            elif user:
                raise InputError("its server has no STARTTLS: the password would go in clear")
        if user:
            connection.login(user, password)
        connection.send_message(message)


def _server(url: str) -> SplitResult:
    try:
        server = urlsplit(url)
        right = server.scheme in ("smtp", "smtps") and server.hostname and server.port != 0
    except ValueError:  # whose text may have a piece of a password with `/` or `#` in it
        right = False
    if not right:
        raise InputError(
            f"{SMTP} must be smtp://HOST or smtps://HOST, for {EMAIL} to be sent; in a user or"
            " password `/`, `#`, `?` and `@` are written %2F, %23, %3F and %40"
        )
    return server
