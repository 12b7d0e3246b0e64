"""What features cost, held against OpenCLIP's own table."""

import pytest

from fomo_dagster.models.operations import of_encoding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "image", "text"),
    [
        ("RN50", 12.22, 5.96),
        ("ViT-B-16", 35.13, 5.96),
        ("ViT-g-14", 534.06, 47.09),
        ("ViT-B-16-SigLIP", 35.42, 11.02),
        ("convnext_base_w", 40.11, 9.27),
        ("coca_ViT-B-32", 9.19, 5.96),
    ],
)
def test_the_operations_of_features_are_those_of_the_published_profile(architecture, image, text):
    """GFLOPs of OpenCLIP's docs/model_profile.csv."""
    cost = of_encoding(architecture)
    assert cost.flops_per_image / 1e9 == pytest.approx(image, abs=0.005)
    assert cost.flops_per_text / 1e9 == pytest.approx(text, abs=0.005)


@pytest.mark.slow
def test_the_parameters_of_a_model_are_counted_without_its_weights():
    """The size that is published of CLIP's ViT-B/32."""
    assert of_encoding("ViT-B-32").parameters == 151_277_313
