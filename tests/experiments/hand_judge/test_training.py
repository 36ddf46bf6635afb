import numpy as np
import pytest
import torch
from experiments.hand_judge.augment import degrade, frame
from experiments.hand_judge.backgrounds import KINDS, draw_backgrounds
from experiments.hand_judge.batches import BatchMaker, compose, make_labels
from experiments.hand_judge.data import SIZE, SOUND, Hands, cut_out, stack
from experiments.hand_judge.loss import JudgeLoss
from experiments.hand_judge.run import without
from experiments.statistics import area_under_curve

from geopos_diffusers.data.hand_defects import DEFECTS
from geopos_diffusers.data.hands import HandOptions, HandRenderer
from geopos_diffusers.metrics.hand_judge_network import HandJudgeNetwork


@pytest.fixture(scope="module")
def hands() -> Hands:
    options = HandOptions(backgrounds="plain", defects=0.5, views=("palm", "back"), samples=1)
    return stack(list(HandRenderer(SIZE, 1, options).draw(0, 48)))


@pytest.fixture(scope="module")
def heads() -> np.ndarray:
    """Discs of skin in the place of heads, which take half a minute to load."""
    axis = np.linspace(-1.0, 1.0, SIZE)
    inside = (axis[None] ** 2 + axis[:, None] ** 2 < 0.5).astype(np.uint8)
    return np.stack([inside * 200, inside * 150, inside * 120, inside * 255], axis=2)[None]


@pytest.fixture(scope="module")
def backgrounds(heads) -> np.ndarray:
    return draw_backgrounds(60, SIZE, heads, np.random.default_rng(0))


class TestNoLeak:
    """Nothing but the hand itself may tell the classes apart."""

    def test_pictures_do_not_depend_on_the_class(self, hands, heads, backgrounds):
        swapped = Hands(**{**vars(hands), "defects": np.where(hands.defects == SOUND, 0, SOUND)})
        batches = [
            BatchMaker(some, backgrounds, heads)(list(range(32)), 0, torch.Generator().manual_seed(3))
            for some in (hands, swapped)
        ]
        for name in ("images", "keypoints", "present", "fingers", "right"):
            torch.testing.assert_close(batches[0][name], batches[1][name], rtol=0, atol=0)
        assert not torch.equal(batches[0]["well_formed"], batches[1]["well_formed"])

    def test_sharpness_noise_and_light_are_the_same_in_both_classes(self, heads, backgrounds):
        """With one hand in the place of all, statistics of the two halves of a large batch agree."""
        generator = torch.Generator().manual_seed(0)
        image = torch.full((256, 3, SIZE, SIZE), 0.5)
        image[:, :, 30:60, 30:60] = 0.8
        made = degrade(image, generator)
        halves = made[:128], made[128:]
        for statistic in (
            lambda images: images.mean((1, 2, 3)),
            lambda images: images.diff(dim=3).abs().mean((1, 2, 3)),
            lambda images: images.std((1, 2, 3)),
        ):
            values = [statistic(half) for half in halves]
            spread = torch.cat(values).std() * (2 / 128) ** 0.5
            assert (values[0].mean() - values[1].mean()).abs() < 4 * spread
            assert torch.cat(values).std() > 0.005  # they do vary

    def test_well_formed_weighs_as_much_in_every_group(self, hands):
        labels = make_labels(hands)
        weights, sound = labels.well_formed_weight.numpy(), labels.well_formed.numpy() > 0.5
        groups = hands.views * 6 + hands.fingers
        for group in np.unique(groups):
            own = groups == group
            if 0.13 < sound[own].mean() < 0.87:  # weights are limited to 4
                assert weights[own & sound].sum() == pytest.approx(weights[own & ~sound].sum(), rel=1e-5)


class TestPictures:
    def test_cut_out_restores_the_picture(self):
        options = HandOptions(backgrounds="plain")
        (hand,) = HandRenderer(SIZE, 5, options).draw(0, 1)
        image = np.asarray(hand.image)
        cut = cut_out(image, hand.mask)
        inside = hand.mask > 0.999
        np.testing.assert_allclose(cut[inside][:, :3].astype(int), image[inside].astype(int), atol=2)
        assert (cut[hand.mask == 0, 3] == 0).all()

    def test_key_points_follow_the_frame(self):
        """A bright dot at a key point is still there after any turn, zoom and mirroring."""
        pixels = torch.zeros(40, SIZE, SIZE, 4, dtype=torch.uint8)
        pixels[:, 40:44, 60:64] = 255
        keypoints = torch.tensor([[62.0, 42.0]] + [[20.0, 20.0], [75.0, 80.0]] * 10).expand(40, 21, 2)
        framed = frame(pixels, keypoints, torch.Generator().manual_seed(1))
        assert framed.mirrored.any()
        assert not framed.mirrored.all()
        centre = (torch.arange(SIZE) + 0.5) / SIZE
        for cut, points in zip(framed.cut, framed.keypoints, strict=True):
            if not ((points[0] > 0.1) & (points[0] < 0.9)).all():
                continue
            weight = cut[3] / cut[3].sum()
            found = torch.stack([(weight.sum(0) * centre).sum(), (weight.sum(1) * centre).sum()])
            torch.testing.assert_close(found, points[0], atol=0.012, rtol=0)

    def test_every_kind_of_background_is_drawn(self, heads):
        drawn = draw_backgrounds(120, 32, heads[:, ::3, ::3], np.random.default_rng(1))
        assert drawn.shape == (120, 32, 32, 3)
        flat = [np.ptp(picture.reshape(-1, 3), axis=0).max() == 0 for picture in drawn]
        assert 0.5 * KINDS["plain"] < np.mean(flat) < 1.7 * KINDS["plain"]

    def test_negatives_show_no_hand(self, hands, heads, backgrounds):
        """Pictures of plain backgrounds, heads and smears: the hand's own pixels are gone."""
        pixels, keypoints = torch.from_numpy(hands.pixels[:32]), torch.from_numpy(hands.keypoints[:32])
        made = {
            negatives: compose(
                pixels,
                keypoints,
                torch.from_numpy(backgrounds),
                torch.from_numpy(heads),
                torch.full((32,), negatives),
                torch.Generator().manual_seed(2),
            )["images"]
            for negatives in (False, True)
        }
        assert (made[True] - made[False]).abs().mean((1, 2, 3)).min() > 0.01


def test_a_short_training_lowers_the_loss(hands, heads, backgrounds):
    torch.manual_seed(0)
    maker = BatchMaker(hands, backgrounds, heads)
    loss = JudgeLoss(HandJudgeNetwork())
    optimizer = torch.optim.AdamW(loss.parameters(), 1e-3)
    batch = maker(list(range(24)), 0, torch.Generator().manual_seed(0))
    values = []
    for _ in range(12):
        losses = loss(**batch)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        values.append({name: value.item() for name, value in losses.items()})
    for name in ("loss", "keypoints_loss", "well_formed_loss", "maps_loss"):
        assert values[-1][name] < values[0][name], name


def test_kinds_can_be_left_out(hands):
    present = DEFECTS[hands.defects[hands.defects != SOUND][0]]
    fewer = without(hands, [present])
    assert len(fewer) == len(hands) - (hands.defects == DEFECTS.index(present)).sum()
    assert DEFECTS.index(present) not in fewer.defects
    assert (fewer.defects == SOUND).sum() == (hands.defects == SOUND).sum()


def test_area_under_curve_against_all_pairs():
    generator = np.random.default_rng(0)
    scores, positive = generator.integers(0, 12, 60) / 10, generator.random(60) < 0.4
    above = scores[positive][:, None] - scores[~positive]
    assert area_under_curve(scores[~positive], scores[positive]) == pytest.approx(
        ((above > 0) + 0.5 * (above == 0)).mean()
    )
    assert np.isnan(area_under_curve(scores[:0], scores))
