"""Masked losses, and mirrored images with their masks and captions."""

import pytest
import torch
from torch.nn.functional import mse_loss

from geopos_diffusers.finetuning.masks import mask_weight, share_inside, weighted_error
from geopos_diffusers.finetuning.mirrored_captions import mirror_some, mirrored_caption


@pytest.fixture
def mask():
    """[2, 1, 16, 16] for latents of 8 x 8: the left half, and a corner of 5 x 5 pixels."""
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, :, :, :8] = 1
    mask[1, :, :5, :5] = 1
    return mask


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestWeights:
    def test_latent_pixels_get_the_mean_of_their_pixels(self, mask):
        weight = mask_weight(mask, (8, 8), 1.0, 0.1)
        assert weight.shape == (2, 1, 8, 8)
        assert weight[0, 0, 0].tolist() == pytest.approx([1.0] * 4 + [0.1] * 4)
        assert weight[1, 0, 2, [0, 1, 2, 3]].tolist() == pytest.approx([0.55, 0.55, 0.325, 0.1])

    def test_a_mask_of_ones_gives_the_plain_loss(self):
        error = random(3, 4, 8, 8).square()
        weight = mask_weight(torch.ones(3, 1, 16, 16), (8, 8), 1.0, 0.1)
        torch.testing.assert_close(weighted_error(error, weight), weighted_error(error, None), rtol=1e-6, atol=0)
        torch.testing.assert_close(weighted_error(error, None), error.flatten(1).mean(1), rtol=0, atol=0)

    @pytest.mark.parametrize(("inside", "floor"), [(1.0, 0.1), (2.0, 0.5), (1.0, 0.0)])
    def test_gradients_outside_are_the_floor_s_share_of_those_inside(self, mask, inside, floor):
        prediction = torch.zeros(2, 4, 8, 8, requires_grad=True)
        error = mse_loss(prediction, torch.ones(2, 4, 8, 8), reduction="none")
        weighted_error(error, mask_weight(mask, (8, 8), inside, floor)).sum().backward()
        gradient = prediction.grad
        assert (gradient[0, :, :, 4:] / gradient[0, :, :, :4]).flatten().tolist() == pytest.approx(
            [floor / inside] * 128
        )

    def test_small_masks_count_as_much_as_large_ones(self, mask):
        """Where the error is 1 inside and 0 outside, and the floor 0, each image's loss is 1."""
        weight = mask_weight(mask, (8, 8), 1.0, 0.0)
        assert weighted_error((weight > 0).float().expand(-1, 4, -1, -1), weight).tolist() == pytest.approx([1.0, 1.0])

    def test_an_empty_mask_without_a_floor_counts_nothing(self, mask):
        mask[0] = 0
        prediction = random(2, 4, 8, 8).requires_grad_()
        losses = weighted_error(prediction.square(), mask_weight(mask, (8, 8), 1.0, 0.0))
        losses.sum().backward()
        assert losses[0] == 0 < losses[1]
        assert prediction.grad[0].abs().max() == 0 < prediction.grad[1].abs().max()
        assert prediction.grad.isfinite().all()

    def test_the_share_inside(self, mask):
        weight = mask_weight(mask[:1], (8, 8), 1.0, 0.25)
        assert share_inside(torch.ones(1, 4, 8, 8), weight, mask[:1]).item() == pytest.approx(0.8)


class TestMirrors:
    @pytest.mark.parametrize(
        ("caption", "expected"),
        [
            ("a left hand", "a right hand"),
            ("Right hand, LEFT-handed; a bright leftover", "Left hand, RIGHT-handed; a bright leftover"),
            ("leftmost, rightwards, righty", "rightmost, leftwards, lefty"),
            ("left_hand and right.", "right_hand and left."),
            ("upright, cleft, aright", "upright, cleft, aright"),
            ("", ""),
        ],
    )
    def test_captions(self, caption, expected):
        assert mirrored_caption(caption) == expected
        assert mirrored_caption(expected) == caption

    @pytest.mark.parametrize("flip_captions", [False, True])
    def test_what_belongs_to_an_image_is_mirrored_with_it(self, flip_captions):
        count = 16
        batch = {"pixels": random(count, 3, 4, 4), "mask": random(count, 1, 4, 4, seed=1)}
        batch |= {"caption": ["a left hand"] * count, "text0": torch.zeros(count, 2, 3), "sizes": torch.zeros(count, 6)}
        batch["mirrored0"] = torch.ones(count, 2, 3)
        torch.manual_seed(0)
        found = mirror_some(batch, flip_captions)
        torch.manual_seed(0)
        mirrored = torch.rand(count) < 0.5
        assert 0 < mirrored.sum() < count
        for name in ("pixels", "mask"):
            assert torch.equal(found[name][mirrored], batch[name][mirrored].flip(-1))
            assert torch.equal(found[name][~mirrored], batch[name][~mirrored])
        changed = mirrored & flip_captions
        assert [caption == "a right hand" for caption in found["caption"]] == changed.tolist()
        assert found["text0"][:, 0, 0].tolist() == changed.float().tolist()
        assert batch["caption"] == ["a left hand"] * count
