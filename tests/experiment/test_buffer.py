"""The declaration of a buffer: what is refused, and in which words."""

from typing import Any

import pytest

from fomo_dagster.errors import InputError


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        ({"capacity": 0}, "buffer.capacity is 0: it must be at least 1"),
        ({"capacity_mib": 0}, "buffer.capacity_mib is 0: it must be above 0"),
        ({"capacity_mb": 64}, r"'buffer.capacity_mb' \(value 64\); did you mean 'capacity_mib'"),
        ({"selection": "reservoire"}, "selection is 'reservoire'; did you mean 'reservoir'"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(
    project: Any, buffer: dict[str, Any], message: str
) -> None:
    project.write("toy", buffer=buffer)
    with pytest.raises(InputError, match=message):
        project.load()
