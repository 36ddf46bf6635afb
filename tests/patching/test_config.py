"""Configs: checked values, JSON there and back, clear errors."""

import json

import pytest

from geopos_diffusers import GeoConvConfig, GeoPosConfig
from geopos_diffusers.errors import ConfigError
from geopos_diffusers.patching.config import name_matches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoding": "polar"}, "encoding must be one of product, squares"),
        ({"normalization": "none"}, "normalization must be one of unit, aspect, pixel; got 'none'"),
        ({"border": "wrap"}, "border must be one of zeros, extrapolate"),
        ({"shift_range": -1}, "shift_range must be a finite number >= 0; got -1"),
        ({"shift_range": float("nan")}, "shift_range must be a finite"),
        ({"shift_range": "0.25"}, "shift_range must be a finite"),
        ({"shift_range": True}, "shift_range must be a finite"),
        ({"reference_size": 0}, "reference_size must be an integer >= 1"),
        ({"shift_at_inference": 1}, "shift_at_inference must be true or false"),
        ({"target_modules": []}, "target_modules must hold one or more names"),
        ({"target_modules": ""}, "target_modules must be a regular expression"),
        ({"target_modules": "(["}, "target_modules is not a valid regular expression"),
        ({"exclude_modules": [1]}, "exclude_modules must hold one or more names"),
        ({"components": ()}, "components must hold one or more names"),
    ],
)
def test_bad_values_are_named(options, message):
    with pytest.raises(ConfigError) as error:
        GeoConvConfig(**options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_json_there_and_back():
    config = GeoConvConfig(
        encoding="squares", shift_range=0.5, target_modules=["conv1", "conv2"], components=("unet", "vae")
    )
    assert GeoConvConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object; got list"),
        ("{}", "format_version None; this release reads 1"),
        ('{"format_version": 3}', "format_version 3; this release reads 1 to 2"),
        ('{"format_version": 1, "basis": "taps"}', "format_version 1 has an unknown option 'basis'"),
        ('{"format_version": 1, "kernel": 3}', "unknown option 'kernel'"),
        ('{"format_version": 1, "encoding": ["product"]}', "encoding must be one of"),
        ('{"format_version": 1, "components": {"unet": 1}}', "components must be"),
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
