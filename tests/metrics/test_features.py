from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from geopos_diffusers.errors import MissingDependencyError
from geopos_diffusers.metrics.features import WEIGHTS_FILE, MobileNetV2, extract_features, load_mobilenet, to_pixels
from geopos_diffusers.metrics.kid import kid


@pytest.fixture(scope="module")
def hands(rendered_hands):
    return [Image.open(path).convert("RGB") for path in sorted(rendered_hands.glob("*.png"))]


class TestNetwork:
    def test_size_is_that_of_the_paper(self):
        # Table 4 of the paper says 3.4 million; the exact number of the published weights is this.
        assert sum(parameter.numel() for parameter in MobileNetV2().parameters()) == 3_504_872

    def test_shapes(self):
        network = MobileNetV2().eval()
        with torch.inference_mode():
            assert network.features(torch.zeros(1, 3, 64, 64)).shape == (1, 1280, 2, 2)
            assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 1280)

    def test_knows_a_class_of_imagenet(self, mobilenet):
        # The portrait of Grace Hopper in uniform that matplotlib ships; class 652 is "military uniform".
        matplotlib = pytest.importorskip("matplotlib")
        path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
        if not path.exists():
            pytest.skip("this matplotlib ships no sample data")
        logits = mobilenet.classifier(mobilenet(to_pixels(Image.open(path))[None]))
        assert logits.argmax().item() == 652

    def test_is_frozen(self, mobilenet):
        assert not mobilenet.training
        assert not any(parameter.requires_grad for parameter in mobilenet.parameters())


class TestExtraction:
    def test_batches_do_not_matter(self, mobilenet, hands):
        together = extract_features(mobilenet, hands[:5], batch_size=5)
        apart = extract_features(mobilenet, iter(hands[:5]), batch_size=2)
        assert together.shape == (5, 1280)
        np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)

    def test_no_pictures(self, mobilenet):
        assert extract_features(mobilenet, []).shape == (0, 1280)

    def test_blur_is_farther_than_another_half(self, mobilenet, hands):
        features = extract_features(mobilenet, hands)
        blurred = extract_features(mobilenet, [image.filter(ImageFilter.GaussianBlur(3)) for image in hands[:6]])
        assert kid(blurred, features[6:], seed=0).value > kid(features[:6], features[6:], seed=0).value + 0.02


class TestWeights:
    def test_damaged_cache_is_not_used(self, no_registry):
        no_registry.mkdir()
        (no_registry / WEIGHTS_FILE).write_bytes(b"\x10\x00")
        with pytest.raises(MissingDependencyError, match="the MobileNetV2 feature extractor could not be fetched"):
            load_mobilenet()
