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
