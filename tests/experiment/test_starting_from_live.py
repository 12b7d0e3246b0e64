"""What cannot go with starting from what is live: whatever takes from stages that were refused."""

import pytest

from fomo_dagster.errors import InputError

MERGE = {"technique": "interpolation"}


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"deploy": "joint", "merge": MERGE}, "deploy: joint merges all stages"),
        ({"deploy": "fold", "merge": MERGE}, "deploy: fold merges all stages"),
        ({"preserve": {"name": "ewc"}}, "ewc is carried from stage to stage, but start_from: live"),
    ],
)
def test_what_takes_from_refused_stages_is_refused(project, method, said):
    project.write("toy", release={"name": "shop"}, method={"start_from": "live", **method})
    with pytest.raises(InputError, match=said):
        project.load()


def test_a_merge_and_a_teacher_are_what_is_live(project):
    method = {
        "start_from": "live", "merge": MERGE, "preserve": {"name": "lwf", "teacher": "deployed"},
    }  # fmt: skip
    project.write("toy", release={"name": "shop"}, method=method)
    nodes = project.graph().nodes
    assert nodes["toy/deployed_002"].models == ("toy/start_002", "toy/trained_002")
    assert nodes["toy/trained_002"].reference.key == "toy/start_002"
