"""The declaration of a buffer: what is refused, and in which words."""

from typing import Any, get_args

import pytest

from fomo_dagster.data.buffer import BY_FEATURES, POLICIES
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.schema import Buffer


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        ({"capacity": 0}, "buffer.capacity is 0: it must be at least 1"),
        ({"capacity_mib": 0}, "buffer.capacity_mib is 0: it must be above 0"),
        ({"capacity_mb": 64}, r"'buffer.capacity_mb' \(value 64\); did you mean 'capacity_mib'"),
        ({"selection": "reservoire"}, "selection is 'reservoire'; did you mean 'reservoir'"),
        ({"selection": "herdin", "capacity": 3}, "selection is 'herdin'; did you mean 'herding'"),
        (
            {"selection": "k_centre"},
            "'k_centre', but without a capacity everything is kept: give capacity or capacity_mib",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_value(
    project: Any, buffer: dict[str, Any], message: str
) -> None:
    project.write("toy", buffer=buffer)
    with pytest.raises(InputError, match=message):
        project.load()


def test_every_selection_can_be_declared() -> None:
    assert get_args(Buffer.model_fields["selection"].annotation) == POLICIES
    by_features = [name for name in POLICIES if Buffer(selection=name, capacity=1).is_by_features]
    assert by_features == list(BY_FEATURES)
