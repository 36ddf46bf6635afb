"""Adapter files: there and back, into the right base only, and never half-loaded."""

import json
import struct
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import trained_stable_diffusion

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
)
from geopos_diffusers.adapters.files import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, read_adapter
from geopos_diffusers.errors import AdapterError, ConfigError, GeoPosError, SurgeryError


@pytest.fixture
def trained():
    """A pipeline whose geometry weights are not zero."""
    return trained_stable_diffusion()


def same_weights(a, b) -> bool:
    left, right = geoconv_parameters(a), geoconv_parameters(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def rewrite(path, change) -> None:
    """Change an adapter's tensors (a dict) and config (a dict) in place."""
    tensors, values = read_adapter(path)
    change(tensors, values)
    save_file(tensors, path, metadata={"geoconv_config": json.dumps(values)})


class TestThereAndBack:
    def test_pipeline(self, trained, tmp_path):
        save_geoconv_weights(trained, tmp_path / "adapter")
        fresh = tiny_stable_diffusion()
        status = load_geoconv_weights(fresh, tmp_path / "adapter")
        expected = geoconv_status(trained)
        assert status.patched == expected.patched
        assert (status.geometry_parameters, status.base_parameters) == (976, expected.base_parameters)
        assert status.config.geopos() == expected.config.geopos()
        assert same_weights(fresh, trained)

    def test_an_adapter_of_format_version_1_loads_as_taps(self, tmp_path):
        """Version 1 had no basis; its weights are taps, and load bit for bit."""
        pipe = trained_stable_diffusion(GeoConvConfig(basis="taps"))
        path = save_geoconv_weights(pipe, tmp_path)

        def as_version_1(tensors, values):
            del values["basis"]
            values["format_version"] = 1

        rewrite(path, as_version_1)
        fresh = tiny_stable_diffusion()
        assert load_geoconv_weights(fresh, path).config.geopos() == geoconv_status(pipe).config.geopos()
        assert same_weights(fresh, pipe)

    @pytest.mark.parametrize("basis", ["taps", "multilinear"])
    def test_weights_of_the_other_basis_do_not_fit(self, basis, tmp_path):
        pipe = tiny_stable_diffusion()
        apply_geoconv(pipe, GeoConvConfig(basis=basis))
        other = {"taps": "multilinear", "multilinear": "taps"}[basis]
        path = save_geoconv_weights(pipe, tmp_path)
        rewrite(path, lambda tensors, values: values.update(basis=other, border=None))
        fresh = tiny_stable_diffusion()
        with pytest.raises(AdapterError, match="layers of another shape: conv_in"):
            load_geoconv_weights(fresh, path)
        assert not geoconv_status(fresh).patched

    def test_the_safetensors_file_suffices(self, trained, tmp_path):
        path = save_geoconv_weights(trained, tmp_path)
        (tmp_path / CONFIG_NAME).unlink()
        (tmp_path / CARD_NAME).unlink()
        fresh = tiny_stable_diffusion()
        load_geoconv_weights(fresh, path)
        assert same_weights(fresh, trained)

    def test_from_a_model_to_a_pipeline_and_back(self, trained, tmp_path):
        save_geoconv_weights(trained.unet, tmp_path)
        fresh = tiny_stable_diffusion()
        load_geoconv_weights(fresh, tmp_path)
        assert same_weights(fresh, trained)
        other = tiny_stable_diffusion()
        load_geoconv_weights(other.unet, tmp_path)
        assert same_weights(other, trained)

    def test_loading_again_replaces_the_weights(self, trained, tmp_path):
        save_geoconv_weights(trained, tmp_path)
        with torch.no_grad():
            for weight in geoconv_parameters(trained).values():
                weight.zero_()
        load_geoconv_weights(trained, tmp_path)
        assert all(weight.abs().max() > 0 for weight in geoconv_parameters(trained).values())

    def test_config_and_card_are_written_beside(self, trained, tmp_path):
        save_geoconv_weights(trained, tmp_path, card={"Base model": "owner/name", "Training": {"steps": 3}})
        config = json.loads((tmp_path / CONFIG_NAME).read_text())
        assert config["base_classes"] == {"unet": "UNet2DConditionModel"}
        card = (tmp_path / CARD_NAME).read_text()
        assert card.startswith("---\n")
        assert "base_model: owner/name" in card
        assert '"steps": 3' in card

    def test_equal_weights_make_equal_files(self, trained, tmp_path):
        files = {save_geoconv_weights(trained, tmp_path / str(number)).read_bytes() for number in range(16)}
        assert len(files) == 1
        fresh = tiny_stable_diffusion()
        load_geoconv_weights(fresh, tmp_path / "0")
        assert save_geoconv_weights(fresh, tmp_path / "again").read_bytes() in files

    def test_files_of_earlier_releases_are_read(self, trained, tmp_path):
        path = save_geoconv_weights(trained, tmp_path)
        tensors, values = read_adapter(path)
        values |= {"target_modules": r".*conv.*", "exclude_modules": None}
        save_file(tensors, path, metadata={"format": "pt", "geoconv_config": json.dumps(values)})
        fresh = tiny_stable_diffusion()
        load_geoconv_weights(fresh, path)
        assert same_weights(fresh, trained)

    def test_half_precision_halves_the_file(self, trained, tmp_path):
        full = save_geoconv_weights(trained, tmp_path / "full").stat().st_size
        half = save_geoconv_weights(trained, tmp_path / "half", dtype=torch.float16).stat().st_size
        assert half < 0.75 * full
        assert {tensor.dtype for tensor in load_file(tmp_path / "half" / WEIGHTS_NAME).values()} == {torch.float16}

    def test_other_files_in_the_folder_are_left_alone(self, trained, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        save_geoconv_weights(trained, tmp_path)
        assert (tmp_path / "notes.txt").read_text() == "mine"
        assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", WEIGHTS_NAME, CONFIG_NAME, CARD_NAME}


class Nested(nn.Module):
    """A layer whose whole name is the ending of another's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, 3)
        self.block = nn.Sequential(OrderedDict(conv1=nn.Conv2d(2, 2, 3), conv2=nn.Conv2d(2, 2, 1)))


class TestLayersOfAFile:
    """The layers to patch are those that a file has tensors of, no more and no fewer."""

    @pytest.mark.parametrize(
        ("targets", "expected"),
        [(r"conv1", ["conv1"]), (r"block\..*", ["block.conv1", "block.conv2"]), (["conv1"], ["conv1", "block.conv1"])],
    )
    def test_exactly_they_are_patched(self, tmp_path, targets, expected):
        source = Nested()
        assert apply_geoconv(source, GeoConvConfig(target_modules=targets)).patched == expected
        save_geoconv_weights(source, tmp_path)
        fresh = Nested()
        status = load_geoconv_weights(fresh, tmp_path)
        assert status.patched == expected
        assert apply_geoconv(fresh, status.config).patched == expected
        assert apply_geoconv(Nested(), status.config).patched == expected

    def test_a_file_names_its_layers_one_by_one(self, tmp_path):
        source = Nested()
        apply_geoconv(source, GeoConvConfig(target_modules=".*", exclude_modules=["conv2"]))
        values = read_adapter(save_geoconv_weights(source, tmp_path))[1]
        assert (values["target_modules"], values["exclude_modules"]) == (["block.conv1", "conv1"], None)

    def test_a_file_of_fewer_layers_patches_fewer(self, trained, tmp_path):
        path = save_geoconv_weights(trained, tmp_path)
        rewrite(path, lambda tensors, values: tensors.pop("unet.conv_in.geo_weight"))
        expected = [name for name in geoconv_status(trained).patched if name != "unet.conv_in"]
        assert load_geoconv_weights(tiny_stable_diffusion(), path).patched == expected

    def test_a_model_patched_by_other_words(self, trained, tmp_path):
        save_geoconv_weights(trained, tmp_path)
        names = [name.removeprefix("unet.") for name in geoconv_status(trained).patched]
        for config in (GeoConvConfig(), GeoConvConfig(target_modules=names)):
            pipe = tiny_stable_diffusion()
            apply_geoconv(pipe, config)
            load_geoconv_weights(pipe, tmp_path)
            load_geoconv_weights(pipe, tmp_path, "second")
            assert same_weights(pipe, trained)


class TestRefusals:
    def refused(self, path, word: str, error: type[GeoPosError] = AdapterError) -> None:
        pipe = tiny_stable_diffusion()
        keys = pipe.unet.state_dict().keys()
        with pytest.raises(error) as caught:
            load_geoconv_weights(pipe, path)
        assert word in str(caught.value)
        assert pipe.unet.state_dict().keys() == keys
        assert geoconv_parameters(pipe) == {}

    def test_nothing_there(self, tmp_path):
        self.refused(tmp_path, WEIGHTS_NAME)
        self.refused(tmp_path / "missing.safetensors", "missing.safetensors")

    def test_truncated(self, trained, tmp_path):
        path = save_geoconv_weights(trained, tmp_path)
        path.write_bytes(path.read_bytes()[:-10])
        self.refused(tmp_path, "readable")

    def test_a_pickle(self, tmp_path):
        torch.save({"a": torch.zeros(1)}, tmp_path / WEIGHTS_NAME)
        self.refused(tmp_path, "readable")

    def test_header_that_claims_to_be_huge(self, tmp_path):
        (tmp_path / WEIGHTS_NAME).write_bytes(struct.pack("<Q", 2**62) + b"{}")
        self.refused(tmp_path, "readable")

    def test_foreign_safetensors(self, tmp_path):
        save_file({"lora.weight": torch.zeros(2)}, tmp_path / WEIGHTS_NAME)
        self.refused(tmp_path, "config")

    def test_config_of_another_version(self, trained, tmp_path):
        rewrite(save_geoconv_weights(trained, tmp_path), lambda tensors, values: values.update(format_version=99))
        self.refused(tmp_path, "99", ConfigError)

    def test_foreign_layers_are_named(self, trained, tmp_path):
        def change(tensors, values):
            tensors["unet.somewhere.conv.geo_weight"] = tensors.pop("unet.conv_in.geo_weight")

        rewrite(save_geoconv_weights(trained, tmp_path), change)
        self.refused(tmp_path, "not in the model: somewhere.conv")

    def test_misshapen_layers_are_named(self, trained, tmp_path):
        def change(tensors, values):
            tensors["unet.conv_out.geo_weight"] = torch.zeros(4, 1, 5, 5)

        rewrite(save_geoconv_weights(trained, tmp_path), change)
        self.refused(tmp_path, "conv_out [4, 1, 5, 5] for [4, 4]")

    def test_weights_that_are_not_finite(self, trained, tmp_path):
        path = save_geoconv_weights(trained, tmp_path)
        rewrite(path, lambda tensors, values: tensors["unet.conv_in.geo_weight"].fill_(float("nan")))
        self.refused(tmp_path, "finite")

    def test_keys_that_are_no_layers(self, trained, tmp_path):
        path = save_geoconv_weights(trained, tmp_path)
        rewrite(path, lambda tensors, values: tensors.update({"../../etc/passwd": torch.zeros(1)}))
        self.refused(tmp_path, "passwd")

    def test_a_component_that_the_pipeline_lacks(self, trained, tmp_path):
        def change(tensors, values):
            for name in list(tensors):
                tensors[name.replace("unet.", "prior.")] = tensors.pop(name)

        rewrite(save_geoconv_weights(trained, tmp_path), change)
        self.refused(tmp_path, "'prior'")

    def test_another_config_than_the_patched_model(self, trained, tmp_path):
        save_geoconv_weights(trained, tmp_path)
        pipe = tiny_stable_diffusion()
        apply_geoconv(pipe, GeoConvConfig(encoding="sum"))
        with pytest.raises(SurgeryError, match=r"'sum'.*not.*'product'"):
            load_geoconv_weights(pipe, tmp_path)
        assert geoconv_status(pipe).config.encoding == "sum"

    def test_other_layers_than_the_patched_model(self, trained, tmp_path):
        save_geoconv_weights(trained, tmp_path)
        pipe = tiny_stable_diffusion()
        before = apply_geoconv(pipe, GeoConvConfig(exclude_modules=["conv_out"])).patched
        with pytest.raises(SurgeryError, match="without conv_out"):
            load_geoconv_weights(pipe, tmp_path)
        assert geoconv_status(pipe).patched == before

    def test_saving_an_unpatched_model(self, tmp_path):
        with pytest.raises(AdapterError, match="not patched"):
            save_geoconv_weights(tiny_stable_diffusion(), tmp_path / "adapter")
        assert not (tmp_path / "adapter").exists()

    def test_saving_weights_that_overflow_leaves_the_old_file(self, trained, tmp_path):
        path = save_geoconv_weights(trained, tmp_path)
        before = path.read_bytes()
        with torch.no_grad():
            next(iter(geoconv_parameters(trained).values())).fill_(1e30)
        with pytest.raises(AdapterError, match=r"not finite in torch\.float16"):
            save_geoconv_weights(trained, tmp_path, dtype=torch.float16)
        assert path.read_bytes() == before

    def test_saving_over_a_file(self, trained, tmp_path):
        (tmp_path / "adapter").write_text("a file")
        with pytest.raises(AdapterError, match="is a file"):
            save_geoconv_weights(trained, tmp_path / "adapter")
