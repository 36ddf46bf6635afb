"""What both ways to end the coordinates of a frame have in common: `frame_limit` and `frame_window`."""

import pytest
import torch
from frame_cases import draw_frames, in_every_encoding, layer
from layer_cases import LAYERS
from torch import nn

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_frames,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
    set_geoconv_frames,
)
from geopos_diffusers.errors import SurgeryError


@in_every_encoding
@pytest.mark.parametrize(("training", "recorded"), [(False, False), (False, True), (True, True)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("end", [{"frame_limit": 1.5}, {"frame_window": True}])
def test_samples_in_their_own_frames(end, memory_format, training, recorded, options):
    model = nn.Sequential(layer(LAYERS[2], options | end | {"shift_range": 0}))
    model.train(training).requires_grad_(recorded)
    torch.manual_seed(1)
    frames, image = draw_frames(3, 2), torch.randn(3, 4, 9, 8, dtype=torch.float64)

    def run(samples):
        with geoconv_frames(model, frames[samples]):
            return model(image[samples].to(memory_format=memory_format))

    together = run([0, 1, 2])
    for sample in range(3):
        torch.testing.assert_close(run([sample]), together[sample : sample + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "unused", "said"),
    [
        ("frame_limit", 1.5, None, "coordinates in frames are cut off at 1.5 half sizes from the middle"),
        ("frame_window", True, False, "the term is added inside frames alone"),
    ],
)
def test_files_and_status(tmp_path, name, value, unused, said):
    def patched(value):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).eval()
        return apply_geoconv(model, GeoConvConfig(**{name: value})) and model

    assert name not in GeoConvConfig().to_dict()
    config = GeoConvConfig(**{name: value}, default_frame=(0, 0, 0.5, 0.5))
    assert GeoConvConfig.from_json(config.to_json()) == config
    model = patched(value)
    assert said in str(geoconv_status(model))
    for weight in geoconv_parameters(model).values():
        nn.init.normal_(weight)
    save_geoconv_weights(model, tmp_path / "adapter")
    torch.manual_seed(0)
    loaded = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)).eval()
    load_geoconv_weights(loaded, tmp_path / "adapter")
    outputs = []
    for one in (model, loaded):
        set_geoconv_frames(one, (0.1, 0.2, 0.3, 0.5))
        outputs.append(one(torch.zeros(1, 1, 8, 8)))
    assert torch.equal(*outputs)
    with pytest.raises(SurgeryError, match=f"{name}={unused}"):
        load_geoconv_weights(patched(unused), tmp_path / "adapter")
