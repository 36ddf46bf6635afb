"""Frames: boxes as centres and half sizes, the coordinates that layers see in them, and what is refused."""

import math

import pytest
import torch
from frame_cases import draw_frames, in_every_encoding, layer
from layer_cases import LAYERS, TRANSPOSED, image
from torch import nn

from geopos_diffusers import (
    GeoConv2d,
    GeoConvConfig,
    GeoPosConfig,
    apply_geoconv,
    geoconv_frames,
    geoconv_parameters,
    geoconv_status,
    mean_frame,
    remove_geoconv,
    set_geoconv_frames,
)
from geopos_diffusers.errors import ConfigError, SurgeryError
from geopos_diffusers.patching.frames import box_frames


class TestBoxes:
    def test_the_whole_image_is_the_image_itself(self):
        assert box_frames([(0, 0, 1, 1)]).tolist() == [[[0.0, 0.0], [1.0, 1.0]]]

    def test_edges_lie_where_shares_of_the_image_do(self):
        (centre, half), *_ = box_frames([(0.1, 0.3, 0.5, 0.9)])
        torch.testing.assert_close(centre - half, torch.tensor([2 * 0.3 - 1, 2 * 0.1 - 1], dtype=torch.float64))
        torch.testing.assert_close(centre + half, torch.tensor([2 * 0.9 - 1, 2 * 0.5 - 1], dtype=torch.float64))

    def test_pixels(self):
        pixels = box_frames([(16, 8, 48, 32)], image_size=(32, 64))
        assert torch.equal(pixels, box_frames([(0.25, 0.25, 0.75, 1.0)]))

    def test_the_mean_frame_has_the_mean_centre_and_size(self):
        boxes = [(0.0, 0.1, 0.4, 0.3), (0.2, 0.5, 1.0, 0.9), (0.5, 0.0, 0.6, 0.6)]
        mean = box_frames([mean_frame(boxes)])
        torch.testing.assert_close(mean, box_frames(boxes).mean(0, keepdim=True), rtol=0, atol=1e-6)


class TestCoordinates:
    """Against the definition: a layer whose image is a crop has, in the crop's frame, the crop's own coordinates."""

    @in_every_encoding
    @pytest.mark.parametrize("axes", [1, 2, 3])
    def test_an_image_in_the_frame_of_its_crop(self, axes, options):
        """Pixels i of 13 in a frame of pixels 3 to 9: the term on the crop is what 7 pixels get by themselves."""
        if options.get("border") != "extrapolate" and options.get("basis") is None:
            options = options | {"border": "extrapolate"}  # zero padding moves with the image's edge
        conv = layer(LAYERS[axes], options)
        alone = conv(torch.zeros(1, 4, *[7] * axes, dtype=torch.float64))
        conv_in_frame = nn.Sequential(conv)
        frame = torch.tensor([[[2 * 6 / 12 - 1] * axes, [6 / 12] * axes]], dtype=torch.float64)
        with geoconv_frames(conv_in_frame, frame):
            whole = conv(torch.zeros(1, 4, *[13] * axes, dtype=torch.float64))
        crop = whole[(slice(None), slice(None), *[slice(3, 10)] * axes)]
        torch.testing.assert_close(crop, alone, rtol=0, atol=1e-12)

    @in_every_encoding
    @pytest.mark.parametrize("cls", [*LAYERS.values(), *TRANSPOSED.values()], ids=lambda cls: cls.__name__)
    def test_the_image_as_its_own_frame_changes_no_bit(self, cls, options):
        conv = layer(cls, options, stride=2)
        axes = len(conv.kernel_size)
        x, before = image(axes), conv(image(axes))
        set_geoconv_frames(conv, torch.tensor([[[0.0] * axes, [1.0] * axes]]))
        assert torch.equal(conv(x), before)
        conv.train().requires_grad_(True)
        set_geoconv_frames(conv, None)
        outputs = []
        for frames in (None, torch.tensor([[[0.0] * axes, [1.0] * axes]])):
            set_geoconv_frames(conv, frames)
            torch.manual_seed(5)
            outputs.append(conv(x).detach())
        assert torch.equal(*outputs)

    @in_every_encoding
    @pytest.mark.parametrize("training", [False, True])
    def test_every_sample_is_in_its_own_frame(self, training, options):
        """As one by one, where the way through dense tables or one for all samples is taken."""
        conv, frames, x = layer(GeoConv2d, options), draw_frames(2, 2), image(2)
        conv.train(training).requires_grad_(training)
        conv.geo_config = GeoPosConfig(shift_range=0.0, **options)
        set_geoconv_frames(conv, frames)
        together = conv(x)
        for index in range(2):
            set_geoconv_frames(conv, frames[index : index + 1])
            torch.testing.assert_close(conv(x[index : index + 1])[0], together[index], rtol=0, atol=1e-12)

    @in_every_encoding
    def test_guidance_runs_the_batch_again_in_the_same_frames(self, options):
        conv, x = layer(GeoConv2d, options), image(2)
        set_geoconv_frames(conv, draw_frames(2, 2))
        torch.testing.assert_close(conv(torch.cat([x] * 3)), torch.cat([conv(x)] * 3), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("basis", ["multilinear", "taps"])
    @pytest.mark.parametrize("unit", ["batch", "sample"])
    def test_a_shift_is_in_units_of_the_frame(self, unit, basis):
        """A frame moved by the shift the other way, without a shift."""
        conv, x, frames = layer(GeoConv2d, {"basis": basis}).train(), image(2), draw_frames(2, 2)
        conv.geo_config = GeoPosConfig(shift_unit=unit, basis=basis)
        set_geoconv_frames(conv, frames)
        torch.manual_seed(3)
        shifted = conv(x)
        torch.manual_seed(3)
        shift = torch.empty(2 if unit == "sample" else 1, 2, dtype=torch.float64).uniform_(-0.25, 0.25)
        moved = torch.stack([frames[:, 0] - shift * frames[:, 1], frames[:, 1]], 1)
        set_geoconv_frames(conv.eval(), moved)
        torch.testing.assert_close(conv(x), shifted, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("basis", ["multilinear", "taps"])
    def test_what_moves_with_its_frame_stays_the_same(self, basis):
        """Equivariance: input and frame moved by two pixels down and three to the right, away from the border."""
        conv = layer(GeoConv2d, {"basis": basis})
        x, frame = image(2, (13, 13)), torch.tensor([[[-0.5, -0.4], [0.3, 0.4]]], dtype=torch.float64)
        moved = frame + torch.tensor([[[2 * 2 / 12, 3 * 2 / 12], [0.0, 0.0]]], dtype=torch.float64)
        set_geoconv_frames(conv, frame)
        before = conv(x)
        set_geoconv_frames(conv, moved)
        after = conv(x.roll((2, 3), (2, 3)))
        torch.testing.assert_close(after[..., 3:-1, 4:-1], before[..., 1:-3, 1:-4], rtol=0, atol=1e-12)

    def test_the_constant_does_not_move(self):
        conv = layer(GeoConv2d, {"basis": "multilinear"})
        conv.geo_weight[:, 1:] = 0
        x, before = image(2), conv(image(2))
        set_geoconv_frames(conv, draw_frames(2, 2))
        torch.testing.assert_close(conv(x), before, rtol=0, atol=0)

    def test_frames_of_fewer_axes_are_those_of_the_last(self):
        conv, frames, x = layer(LAYERS[3], {"basis": "multilinear"}), draw_frames(2, 2), image(3)
        whole_first = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 2, 1).expand(2, 2, 1)
        set_geoconv_frames(conv, frames)
        expected = conv(x)
        set_geoconv_frames(conv, torch.cat([whole_first, frames], 2))
        assert torch.equal(conv(x), expected)

    @in_every_encoding
    def test_gradients_reach_the_weights(self, options):
        conv = layer(GeoConv2d, options).requires_grad_(True)
        conv.geo_config = GeoPosConfig(shift_range=0.0, **options)
        set_geoconv_frames(conv, draw_frames(2, 2))
        x = image(2)

        def term(weight: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(conv, {"geo_weight": weight}, (x,))

        assert torch.autograd.gradcheck(term, conv.geo_weight.detach().requires_grad_(True), fast_mode=True)


def network(**options) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 3, padding=1))
    apply_geoconv(model, GeoConvConfig(**options))
    with torch.no_grad():
        for weight in geoconv_parameters(model).values():
            weight.normal_()
    return model.eval().requires_grad_(False)


class TestSetting:
    X = torch.zeros(2, 3, 8, 8)
    BOXES = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.25, 1.0, 1.0))

    def test_the_block_puts_back_what_was_set(self):
        model = network()
        image_itself = model(self.X)
        with geoconv_frames(model, self.BOXES[0]):
            first = model(self.X)
            with geoconv_frames(model, self.BOXES):
                assert not torch.equal(model(self.X)[1], first[1])
                with geoconv_frames(model, None):
                    assert torch.equal(model(self.X), image_itself)
            assert torch.equal(model(self.X), first)
        assert torch.equal(model(self.X), image_itself)

    def test_the_block_puts_back_after_an_error(self):
        model = network()
        before = model(self.X)
        with pytest.raises(RuntimeError), geoconv_frames(model, self.BOXES):
            raise RuntimeError
        assert torch.equal(model(self.X), before)

    def test_the_default_frame_holds_where_none_is_set(self):
        model, plain = network(default_frame=self.BOXES[1]), network()
        with geoconv_frames(plain, self.BOXES[1]):
            assert torch.equal(model(self.X), plain(self.X))
        with geoconv_frames(model, (0, 0, 1, 1)):
            assert torch.equal(model(self.X), plain(self.X))
        assert not torch.equal(model(self.X), plain(self.X))

    def test_status_tells(self):
        model = network(default_frame=[0.1, 0.2, 0.5, 0.75])
        status = geoconv_status(model)
        assert "trained with frames; where none are set: box 0.1 0.2 0.5 0.75 of the image" in str(status)
        assert status.frames == {"": 0}
        set_geoconv_frames(model, self.BOXES)
        assert "  frames: 2 set" in str(geoconv_status(model))

    def test_removing_and_patching_again_forgets(self):
        model = network()
        set_geoconv_frames(model, self.BOXES)
        remove_geoconv(model)
        assert not any("geo_frames" in vars(module) for module in model)
        apply_geoconv(model)
        assert geoconv_status(model).frames == {"": 0}

    def test_untouched_models_hold_nothing(self):
        model = network()
        set_geoconv_frames(model, None)
        assert all(module.geo_frames is None for module in model if hasattr(module, "geo_frames"))


class TestRefusals:
    def refused(self, frames, message: str, model=None, error=ConfigError, **options) -> None:
        model = network() if model is None else model
        before = model(TestSetting.X) if isinstance(model, nn.Sequential) else None
        with pytest.raises(error) as raised:
            set_geoconv_frames(model, frames, **options)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
        assert before is None or torch.equal(model(TestSetting.X), before)

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            ((0.2, 0.1, 1.4, 0.9), "box 0.2 0.1 1.4 0.9 reaches outside the image"),
            ((-0.1, 0.1, 0.4, 0.9), "box -0.1 0.1 0.4 0.9 reaches outside the image"),
            ((0.6, 0.1, 0.4, 0.9), "box 0.6 0.1 0.4 0.9 is empty or reversed"),
            ((0.2, 0.5, 0.4, 0.5), "box 0.2 0.5 0.4 0.5 is empty or reversed"),
            ((0.2, math.nan, 0.4, 0.5), "box takes four numbers x0 y0 x1 y1; got 0.2 nan 0.4 0.5"),
            ([], "got [0]"),
            ((0.1, 0.2, 0.3), "got [3]"),
            (torch.zeros(0, 4), "got [0, 4]"),
            (torch.zeros(0, 2, 2), "got [0, 2, 2]"),
            (torch.ones(1, 3, 2), "got [1, 3, 2]"),
            (torch.ones(1, 2, 4), "box 1 1 1 1 is empty or reversed"),
            (torch.zeros(1, 0, 4), "got [1, 0, 4]"),
            (torch.ones(1, 2, 3, 2), "got [1, 2, 3, 2]"),
            (torch.ones(1, 1, 1, 2, 2), "got [1, 1, 1, 2, 2]"),
            ([[(0, 0, 1, 1), (0, 0, 1, 2)]], "box 0 0 1 2 reaches outside the image"),
            ("left", "got str"),
            ([[0, 0, 1, 1], [0, 1]], "got list"),
            (torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]), "half sizes must be above 0; got 0"),
            (torch.tensor([[[0.0, 0.0], [1.0, -1.0]]]), "half sizes must be above 0; got -1"),
            (torch.tensor([[[math.inf, 0.0], [1.0, 1.0]]]), "not finite"),
            (torch.ones(1, 2, 3), "0 has 2 axes, the frames have 3"),
        ],
        ids=lambda value: None if isinstance(value, str) else "",
    )
    def test_values(self, frames, message):
        self.refused(frames, message)

    def test_pixels(self):
        self.refused([(0, 0, 65, 32)], "reaches outside the image", image_size=(64, 64))
        self.refused([(0, 0, 32, 32)], "image_size takes height and width", image_size=(0, 64))
        for size in (64, "64", (64, 64, 3), ("a", 64)):
            self.refused([(0, 0, 32, 32)], "image_size takes height and width", image_size=size)
        self.refused(torch.ones(1, 2, 2), "image_size goes with boxes in pixels", image_size=(64, 64))

    def test_models(self):
        box = (0, 0, 0.5, 0.5)
        self.refused(box, "not patched", nn.Conv2d(3, 3, 3), SurgeryError)
        self.refused(box, "0 has normalization 'pixel'; frames need 'unit'", network(normalization="pixel"))
        self.refused(box, "0 has normalization 'aspect'; frames need 'unit'", network(normalization="aspect"))
        self.refused(box, "which has no coordinates", network(encoding="constant"))

    @pytest.mark.parametrize("samples", [1, 3, 5, 8])
    def test_another_number_of_samples_at_the_call(self, samples):
        """Four times as many are two images a prompt under guidance, in an order that frames of prompts do not have."""
        model = network()
        set_geoconv_frames(model, TestSetting.BOXES)
        with pytest.raises(ConfigError, match=f"^2 frames are set and the model was called with {samples} samples"):
            model(torch.zeros(samples, 3, 8, 8))
        model(torch.zeros(6, 3, 8, 8))
        set_geoconv_frames(model, TestSetting.BOXES[0])
        model(torch.zeros(samples, 3, 8, 8))

    @pytest.mark.parametrize(
        ("boxes", "message"),
        [([], "no boxes"), ([(0, 0, 1, 2)], "reaches outside"), ([(0, 0, 1)], "four numbers"), ([3], "four numbers")],
    )
    def test_means(self, boxes, message):
        with pytest.raises(ConfigError, match=message):
            mean_frame(boxes)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"default_frame": (0, 0, 2, 1)}, "default_frame 0 0 2 1 reaches outside"),
            ({"default_frame": 0.5}, "default_frame takes four numbers"),
            ({"default_frame": (0, 0, 1, 1), "normalization": "aspect"}, "default_frame needs coordinates"),
            ({"default_frame": (0, 0, 1, 1), "encoding": "constant"}, "default_frame needs coordinates"),
        ],
    )
    def test_default_frames(self, options, message):
        with pytest.raises(ConfigError, match=message):
            GeoConvConfig(**options)
