"""When an experiment runs again: a cron schedule, and its time zone."""

from __future__ import annotations

import zoneinfo
from typing import Annotated

from croniter import CroniterError, croniter
from pydantic import AfterValidator

from fomo_dagster.errors import nearest


def _comes_due(schedule: str) -> str:
    try:
        fields, *_ = croniter.expand(schedule)
        if len(fields) != 5:
            raise ValueError(
                f"{schedule!r} has seconds, but schedules count in minutes: give five fields"
            )
        croniter(schedule).get_next()
    except CroniterError as error:
        raise ValueError(f"{schedule!r} is not a cron schedule ({error})") from error
    return schedule


def _is_a_zone(name: str) -> str:
    zones = zoneinfo.available_timezones()
    if name not in zones:
        cities = {zone.rpartition("/")[2]: zone for zone in zones}
        known = cities.get(name.strip().title().replace(" ", "_"))
        hint = f"did you mean {known!r}?" if known else nearest(name, zones)
        raise ValueError(f"there is no time zone {name!r}; {hint}")
    return name


CronSchedule = Annotated[str, AfterValidator(_comes_due)]
"""Minute, hour, day, month, weekday."""
TimeZone = Annotated[str, AfterValidator(_is_a_zone)]
"""A name of the IANA database, such as Europe/Berlin."""
