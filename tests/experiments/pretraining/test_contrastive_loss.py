import math

import pytest
import torch
import torch.nn.functional as F
from experiments.pretraining.contrastive_loss import ContrastiveLoss, LatentEncoder
from transformers import CLIPTextConfig, CLIPTextModel


@pytest.fixture
def loss():
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=38,
        eos_token_id=39,
        pad_token_id=39,
    )
    return ContrastiveLoss(CLIPTextModel(config), LatentEncoder(4, 8, 16)).eval()


def captions(*words):
    return torch.tensor([[38, word, 39, 39] for word in words])


def test_loss_is_the_symmetric_cross_entropy_of_cosine_similarities(loss):
    latents, input_ids = torch.randn(3, 4, 8, 8), captions(1, 2, 3)
    images = F.normalize(loss.image_encoder(latents), dim=1)
    texts = F.normalize(loss.text_projection(loss.text_encoder(input_ids).pooler_output), dim=1)
    scores = images @ texts.T / 0.07
    own = torch.arange(3)
    expected = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
    torch.testing.assert_close(loss(latents, input_ids)["loss"], expected)


def test_equal_captions_are_no_mistakes(loss):
    values = loss(torch.randn(1, 4, 8, 8).expand(4, -1, -1, -1), captions(5, 5, 5, 5))
    assert values["accuracy"].item() == 1
    assert values["loss"].item() == pytest.approx(math.log(4), abs=1e-4)


def test_pairs_are_learnt(loss):
    latents, input_ids = torch.randn(6, 4, 8, 8), captions(*range(1, 7))
    optimizer = torch.optim.Adam(loss.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(latents, input_ids)["loss"].backward()
        optimizer.step()
    values = loss(latents, input_ids)
    assert values["accuracy"].item() == 1
    assert values["loss"].item() < 0.2


@pytest.mark.parametrize("side", [8, 16, 6])
def test_image_encoder_takes_any_side(side):
    assert LatentEncoder(4, side, 16)(torch.randn(2, 4, side, side)).shape == (2, 16)


def test_wrong_captions_compete_with_the_right_one_of_their_image(loss):
    latents, input_ids, wrong = torch.randn(3, 4, 8, 8), captions(1, 2, 3), captions(11, 2, 13)
    images = F.normalize(loss.image_encoder(latents), dim=1)
    scores, others = loss.scores(images, input_ids), loss.scores(images, wrong).diagonal()
    own = torch.arange(3)
    rows = [torch.cat([scores[index], others[index : index + 1]]) for index in own]
    rows[1] = scores[1]  # the second one's is no wrong caption
    among = torch.stack([F.cross_entropy(row[None], own[index : index + 1]) for index, row in enumerate(rows)]).mean()
    values = loss(latents, input_ids, wrong)
    torch.testing.assert_close(values["loss"], (among + F.cross_entropy(scores.T, own)) / 2)
    assert values["told"].item() == (scores.diagonal() > others)[[0, 2]].float().mean().item()


def test_words_that_tell_no_images_of_a_batch_apart_are_learnt_from_wrong_captions(loss):
    """Two words are the right ones of all images, and all wrong captions differ in the second."""
    latents, input_ids = torch.randn(4, 4, 8, 8), torch.tensor([[38, 1, 5, 39]]).repeat(4, 1)
    wrong = torch.tensor([[38, 1, 6, 39]]).repeat(4, 1)
    optimizer = torch.optim.Adam(loss.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        values = loss(latents, input_ids, wrong)
        values["loss"].backward()
        optimizer.step()
    assert values["told"].item() == 1
    assert values["loss"].item() < math.log(4) + 0.05
