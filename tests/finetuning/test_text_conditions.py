import logging
from contextlib import contextmanager

import pytest
import torch
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_xl

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.supported_pipelines import check_supported
from geopos_diffusers.finetuning.text_conditions import CaptionEncoder, warn_of_long_captions

CPU = torch.device("cpu")
SIZES = torch.tensor([[40.0, 48.0, 0.0, 4.0, 32.0, 32.0]] * 2)


def test_captions_are_encoded_as_the_pipeline_does():
    pipe = tiny_stable_diffusion()
    conditions = CaptionEncoder(pipe, CPU)(["a hand", "a fist"], SIZES)
    expected, _ = pipe.encode_prompt("a fist", CPU, 1, False)
    assert conditions.keys() == {"encoder_hidden_states"}
    assert conditions["encoder_hidden_states"].shape == (2, 77, 16)
    torch.testing.assert_close(conditions["encoder_hidden_states"][1:], expected)


def test_dropout_replaces_whole_captions():
    pipe = tiny_stable_diffusion()
    encode = CaptionEncoder(pipe, CPU)
    empty, _ = pipe.encode_prompt("", CPU, 1, False)
    captions, sizes = ["a hand"] * 400, SIZES[:1].expand(400, 6)
    torch.manual_seed(0)
    hidden = encode(captions, sizes, dropout=0.25)["encoder_hidden_states"]
    dropped = (hidden == empty).flatten(1).all(1)
    kept = encode(["a hand"], SIZES[:1])["encoder_hidden_states"]
    assert 0.15 < dropped.float().mean() < 0.35
    torch.testing.assert_close(hidden[~dropped], kept.expand_as(hidden[~dropped]))


def test_sdxl_gets_pooled_text_and_sizes_and_zeros_for_no_caption():
    encode = CaptionEncoder(tiny_stable_diffusion_xl(), CPU)
    conditions = encode(["a hand", "a fist"], SIZES, dropout=1.0)
    assert conditions["encoder_hidden_states"].shape == (2, 77, 32)
    assert not conditions["encoder_hidden_states"].any()
    assert conditions["added_cond_kwargs"]["text_embeds"].shape == (2, 16)
    assert torch.equal(conditions["added_cond_kwargs"]["time_ids"], SIZES)
    assert encode(["a hand"], SIZES[:1])["added_cond_kwargs"]["text_embeds"].any()


def test_unsupported_pipelines_are_named():
    pipe = tiny_stable_diffusion()
    check_supported(pipe)
    pipe.unet.register_to_config(in_channels=9)
    with pytest.raises(
        ConfigError, match="StableDiffusionPipeline cannot be fine-tuned here: its denoiser has 9 input channels"
    ):
        check_supported(pipe)


def test_captions_that_are_too_long_are_counted_once_and_not_reported_each_time(caplog):
    pipe = tiny_stable_diffusion()
    limit = pipe.tokenizer.model_max_length
    captions = ["a hand", "a hand " * limit, "hand " * (limit + 5)]
    assert warn_of_long_captions(pipe, captions) == 2
    assert [record.getMessage().split(" are")[0] for record in caplog.records] == ["2 of 3 captions"]
    caplog.clear()
    assert warn_of_long_captions(pipe, captions[:1]) == 0
    encode = CaptionEncoder(pipe, CPU)
    library = logging.getLogger("diffusers")
    level = library.level
    with caplog.at_level(logging.WARNING), propagating(library):
        encode(captions, SIZES[:1].expand(3, 6))
    assert not caplog.records
    assert library.level == level


@contextmanager
def propagating(library):
    """diffusers keeps its messages from the root logger, where pytest reads them."""
    before, library.propagate = library.propagate, True
    try:
        yield
    finally:
        library.propagate = before
