"""Extractors with real networks: MobileNetV2, and small DINOv2 and CLIP with random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from geopos_diffusers.errors import DataError, MissingDependencyError
from geopos_diffusers.metrics.extractors import extractor
from geopos_diffusers.metrics.features import extract_features
from geopos_diffusers.metrics.hub_extractors import SETTINGS, read_preparation
from geopos_diffusers.metrics.inception import read_weights

IMAGE_MEAN, IMAGE_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def pictures(*sizes: tuple[int, int]) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]


def write_settings(folder, **changes) -> dict:
    settings = {
        "do_resize": True,
        "size": {"shortest_edge": 32},
        "do_center_crop": True,
        "crop_size": {"height": 28, "width": 28},
        "resample": 3,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": IMAGE_MEAN,
        "image_std": IMAGE_STD,
        "image_processor_type": "CLIPImageProcessor",
        **changes,
    }
    (folder / SETTINGS).write_text(json.dumps(settings))
    return settings


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("models") / "small-dinov2"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    model = Dinov2Model(Dinov2Config(**sizes)).eval()
    model.save_pretrained(folder)
    write_settings(folder)
    return folder, model


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("models") / "small-clip"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes, intermediate_size=64, projection_dim=16)).eval()
    model.save_pretrained(folder)
    write_settings(folder, size={"shortest_edge": 28})
    return folder, model


class TestHubModels:
    @pytest.mark.parametrize(("kind", "width"), [("dinov2", 32), ("clip", 16)])
    def test_features_are_those_of_the_model_and_its_own_processor(self, kind, width, request):
        from transformers import AutoImageProcessor

        folder, model = request.getfixturevalue(kind)
        images = pictures((40, 64), (57, 33), (28, 28), (90, 90), (31, 200))
        result = extractor(str(folder))
        assert (result.name, result.width) == (f"small-{kind}", width)
        processor = AutoImageProcessor.from_pretrained(folder, use_fast=False)
        pixels = torch.cat([processor(image, return_tensors="pt").pixel_values for image in images])
        torch.testing.assert_close(torch.stack([result.to_pixels(image) for image in images]), pixels)
        with torch.inference_mode():
            outputs = model(pixel_values=pixels)
        expected = outputs.image_embeds if kind == "clip" else outputs.last_hidden_state[:, 0]
        features = result.extract(iter(images))
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected.numpy(), rtol=1e-3, atol=1e-5)

    def test_modes_and_no_images(self, dinov2):
        result = extractor(str(dinov2[0]))
        assert result.extract([]).shape == (0, 32)
        assert np.isfinite(result.extract([Image.new("L", (9, 50)), Image.new("RGBA", (5, 5))])).all()

    def test_another_kind_of_model(self, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(DataError, match="type 'bert'; an extractor needs one of dinov2"):
            extractor(str(tmp_path))

    def test_folder_without_weights_or_settings(self, dinov2, tmp_path):
        with pytest.raises(DataError, match="cannot be loaded"):
            extractor(str(tmp_path))
        (tmp_path / "config.json").write_bytes((dinov2[0] / "config.json").read_bytes())
        with pytest.raises(DataError, match=SETTINGS):
            extractor(str(tmp_path))
        write_settings(tmp_path)
        with pytest.raises(DataError, match="safetensors"):
            extractor(str(tmp_path))

    def test_damaged_weights(self, dinov2, tmp_path):
        for file in dinov2[0].iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes()[: 1000 if file.suffix == ".safetensors" else None])
        with pytest.raises(DataError, match="cannot be loaded"):
            extractor(str(tmp_path))

    def test_hub_out_of_reach(self, tmp_path, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(MissingDependencyError, match="hf download facebook/dinov2-base") as caught:
            extractor("dinov2")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["no-such", "./no/such", "resnet"])
    def test_unknown_name(self, name):
        with pytest.raises(DataError, match="not mobilenet, dinov2, clip or inception"):
            extractor(name)


class TestPreparation:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"do_pad": True}, "padding"),
            ({"do_normalize": False}, "normalised"),
            ({"do_center_crop": False}, "crop to a fixed size"),
            ({"size": {"shortest_edge": 20}}, "crop to a fixed size"),
            ({"resample": 99}, "99 is not a valid"),
            ({"image_mean": None}, "NoneType"),
            ({"size": "large"}, "has no attribute"),
        ],
    )
    def test_what_is_not_known_is_refused(self, changes, message, tmp_path):
        write_settings(tmp_path, **changes)
        with pytest.raises(DataError, match=message):
            read_preparation(tmp_path / SETTINGS)

    def test_stretched_to_a_fixed_size(self, tmp_path):
        write_settings(tmp_path, size={"height": 20, "width": 24}, do_center_crop=False)
        assert read_preparation(tmp_path / SETTINGS)(pictures((50, 30))[0]).shape == (3, 20, 24)


def test_mobilenet(mobilenet):
    result = extractor("mobilenet")
    images = pictures((40, 30), (224, 224), (90, 10))
    assert result.name == "MobileNetV2-224"
    np.testing.assert_array_equal(result.extract(images), extract_features(mobilenet, images))


class TestInception:
    def test_missing_package_is_named(self):
        try:
            import torch_fidelity  # noqa: F401
        except ImportError:
            with pytest.raises(MissingDependencyError, match="pip install torch-fidelity"):
                extractor("inception")
        else:
            pytest.skip("torch-fidelity is installed")

    def test_another_file_is_not_used(self, tmp_path):
        (tmp_path / "weights.pth").write_bytes(b"something else")
        with pytest.raises(DataError, match="SHA-256 does not start with 6726825d"):
            read_weights(tmp_path / "weights.pth")
