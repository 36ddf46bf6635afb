from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file

from geopos_diffusers.errors import MissingDependencyError
from geopos_diffusers.metrics.features import WEIGHTS_FILE, MobileNetV2, extract_features, load_mobilenet, to_pixels
from geopos_diffusers.metrics.kid import kid
from geopos_diffusers.metrics.wheel_files import cache_directory


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


@pytest.fixture(scope="module")
def weights_file(mobilenet) -> bytes:
    return (cache_directory() / WEIGHTS_FILE).read_bytes()


class TestWeights:
    @staticmethod
    def write_damaged(folder: Path, content: bytes) -> None:
        """50 bytes of the weights changed: the file still loads, and features change by a little."""
        damaged = np.frombuffer(content, dtype=np.uint8).copy()
        places = np.random.default_rng(0).choice(np.arange(len(content) // 2, len(content)), 50, replace=False)
        damaged[places] ^= 0x11
        folder.mkdir()
        (folder / WEIGHTS_FILE).write_bytes(damaged.tobytes())
        assert load_file(folder / WEIGHTS_FILE).keys() == MobileNetV2().state_dict().keys()

    def test_an_undamaged_cache_is_used_without_a_registry(self, mobilenet, weights_file, no_registry):
        no_registry.mkdir()
        (no_registry / WEIGHTS_FILE).write_bytes(weights_file)
        loaded = load_mobilenet().state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in mobilenet.state_dict().items())

    def test_a_few_changed_bytes_are_seen(self, weights_file, no_registry):
        self.write_damaged(no_registry, weights_file)
        with pytest.raises(MissingDependencyError, match=rf"{WEIGHTS_FILE} is damaged; the MobileNetV2"):
            load_mobilenet()

    def test_a_damaged_cache_is_repaired(self, mobilenet, weights_file, tmp_path, monkeypatch, caplog):
        monkeypatch.setenv("GEOPOS_CACHE", str(tmp_path / "cache"))
        self.write_damaged(tmp_path / "cache", weights_file)
        try:
            loaded = load_mobilenet().state_dict()
        except MissingDependencyError as error:
            pytest.skip(str(error))  # the right file was cached earlier, and there is no registry now
        assert f"{WEIGHTS_FILE} is damaged and is fetched again" in caplog.text
        assert all(torch.equal(value, loaded[name]) for name, value in mobilenet.state_dict().items())

    def test_damaged_cache_is_not_used(self, no_registry):
        no_registry.mkdir()
        (no_registry / WEIGHTS_FILE).write_bytes(b"\x10\x00")
        with pytest.raises(MissingDependencyError, match="is damaged; the MobileNetV2 feature extractor could not"):
            load_mobilenet()
