"""Which datasets can be compared, and what is said of those that cannot."""

import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.tables.evaluated_alike import alike

BIRDS = {"task": "classification", "prompts": ["a {}"], "subset": 1, "concepts": "0", "test": "0",
         "version": 2, "role": "adaptation"}  # fmt: skip
SAID = {
    "concepts": "other classes",
    "test": "another test split",
    "version": "version 2 and '1'",
    "role": "role 'adaptation' and '1'",
    "prompts": r"prompts \['a \{\}'\] and '1'",
}


@pytest.mark.parametrize("key", SAID)
def test_what_is_evaluated_otherwise_is_named_and_cannot_be_made_common(key):
    both = {"a": {"birds": BIRDS, "cats": BIRDS}, "b": {"birds": BIRDS | {key: "1"}, "cats": BIRDS}}
    said = f"birds is evaluated otherwise by a and b: {SAID[key]}"
    with pytest.raises(InputError, match=f"{said}; --common"):
        alike(both, common=False)
    found = alike(both, common=True)
    assert found.kept == {"cats"}
    (sentence,) = found.left_out
    assert sentence.startswith("left out: birds is evaluated otherwise by a and b: ")
    for own in both.values():
        del own["cats"]
    with pytest.raises(InputError, match=f"no dataset in common .*{said}"):
        alike(both, common=True)


def test_of_other_subsets_those_samples_are_left_that_both_take():
    both = {"a": {"birds": BIRDS}, "b": {"birds": BIRDS | {"subset": 0.5, "seed": 1}}}
    with pytest.raises(InputError, match=r"subset 1 and 0\.5, seed None and 1; --common"):
        alike(both, common=False)
    assert alike(both, common=True).kept == {"birds"}
    both["b"]["birds"] |= {"test": "1"}
    with pytest.raises(InputError, match=r"no dataset in common .*: another test split"):
        alike(both, common=True)
