"""Configs: checked values, JSON there and back, clear errors."""

import json

import pytest

from geopos_diffusers import GeoConvConfig, GeoPosConfig
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import name_matches


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"encoding": "polar"}, "encoding"),
        ({"normalization": "none"}, "normalization"),
        ({"border": "wrap"}, "border"),
        ({"shift_range": -1}, "shift_range"),
        ({"shift_range": float("nan")}, "shift_range"),
        ({"shift_range": "0.25"}, "shift_range"),
        ({"shift_range": True}, "shift_range"),
        ({"reference_size": 0}, "reference_size"),
        ({"shift_at_inference": 1}, "shift_at_inference"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ""}, "target_modules"),
        ({"target_modules": "(["}, "target_modules"),
        ({"exclude_modules": [1]}, "exclude_modules"),
        ({"components": ()}, "components"),
    ],
)
def test_bad_values_are_named(options, name):
    with pytest.raises(ConfigError) as error:
        GeoConvConfig(**options)
    assert str(error.value).startswith(f"{name} ")
    assert "\n" not in str(error.value)


def test_json_there_and_back():
    config = GeoConvConfig(
        encoding="squares", shift_range=0.5, target_modules=["conv1", "conv2"], components=("unet", "vae")
    )
    assert GeoConvConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("[]", "list"),
        ("{}", "format_version None"),
        ('{"format_version": 3}', "format_version 3"),
        ('{"format_version": 1, "basis": "taps"}', "'basis'"),
        ('{"format_version": 1, "kernel": 3}', "'kernel'"),
        ('{"format_version": 1, "encoding": ["product"]}', "encoding"),
        ('{"format_version": 1, "components": {"unet": 1}}', "components"),
    ],
)
def test_bad_json_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        GeoConvConfig.from_json(text)


def test_every_option_has_a_help_text():
    for option in GeoConvConfig.__dataclass_fields__.values():
        assert len(option.metadata["help"]) > 20


def test_geopos_part_keeps_the_channel_options():
    config = GeoConvConfig(encoding="sum", border="extrapolate", target_modules="conv_in")
    assert config.geopos() == GeoPosConfig(encoding="sum", border="extrapolate")


def test_to_dict_is_plain_json():
    values = GeoConvConfig(target_modules=("a",)).to_dict()
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (("conv1",), True),
        (("resnets.0.conv1",), True),
        (("nv1",), False),
        (r"down_blocks\..*conv1", True),
        ("conv1", False),
    ],
)
def test_name_matches(pattern, expected):
    assert name_matches("down_blocks.0.resnets.0.conv1", pattern) is expected
