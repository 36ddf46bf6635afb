"""Transformers: their patch embeddings and convolutional feed-forwards, and image encoders of transformers."""

import torch
from model_case import Inputs, ModelCase, noise

DENOISERS, ENCODERS, NOTHING = "Diffusion transformers", "Image encoders (transformers)", "Nothing to patch"

_NO_CONVOLUTION = "it has none"


def _image_tokens(size: int = 8, channels: int = 4, **more) -> Inputs:
    text = noise(2, 5, 8, seed=1)
    latents = noise(2, channels, size, size)
    return {"hidden_states": latents, "encoder_hidden_states": text, "timestep": torch.tensor([3, 700])} | more


def _video_tokens(frames: int = 2, channels: int = 4, **more) -> Inputs:
    return _image_tokens(hidden_states=noise(2, channels, frames, 8, 8), **more)


def _hunyuan_dit_inputs() -> Inputs:
    return _image_tokens(
        timestep=torch.tensor([3.0, 700.0]),
        text_embedding_mask=torch.ones(2, 5),
        encoder_hidden_states_t5=noise(2, 6, 8, seed=2),
        text_embedding_mask_t5=torch.ones(2, 6),
        image_meta_size=torch.arange(12.0).view(2, 6),
        style=torch.zeros(2, dtype=torch.long),
        image_rotary_emb=[torch.ones(16, 8), torch.zeros(16, 8)],
    )


def _allegro_inputs() -> Inputs:
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    frequencies = [get_1d_rotary_pos_embed(8, size, use_real=True, repeat_interleave_real=False) for size in (2, 4, 4)]
    positions = torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(4)).T.unsqueeze(1)
    return _video_tokens(
        attention_mask=torch.ones(2, 2, 8, 8),
        encoder_attention_mask=torch.ones(2, 5),
        image_rotary_emb=(frequencies, positions.contiguous()),
    )


_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
_SANA = _HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": 8,
    "sample_size": 8,
}
_SD3 = _HEADS | {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "joint_attention_dim": 8,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 8,
    "pos_embed_max_size": 8,
}
_WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 8,
    "freq_dim": 16,
    "ffn_dim": 16,
    "num_layers": 1,
    "rope_max_seq_len": 32,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
_FLAT_PATCH = "kernel {} has one tap along an axis"

TRANSFORMER_CASES = (
    ModelCase(
        "DiTTransformer2DModel",
        DENOISERS,
        _HEADS | {"num_layers": 1, "norm_num_groups": 4, "sample_size": 8, "num_embeds_ada_norm": 8},
        lambda: {
            "hidden_states": noise(2, 4, 8, 8),
            "timestep": torch.tensor([3, 700]),
            "class_labels": torch.tensor([1, 2]),
        },
    ),
    ModelCase(
        "PixArtTransformer2DModel",
        DENOISERS,
        _HEADS
        | {"num_layers": 1, "norm_num_groups": 4, "cross_attention_dim": 16, "caption_channels": 8, "sample_size": 8}
        | {"use_additional_conditions": False},
        lambda: _image_tokens(added_cond_kwargs={"resolution": None, "aspect_ratio": None}),
    ),
    ModelCase(
        "SD3Transformer2DModel",
        DENOISERS,
        _SD3,
        lambda: _image_tokens(pooled_projections=noise(2, 8, seed=2)),
    ),
    ModelCase(
        "SD3ControlNetModel",
        DENOISERS,
        _SD3,
        lambda: _image_tokens(
            pooled_projections=noise(2, 8, seed=2), controlnet_cond=noise(2, 4, 8, 8, seed=3), conditioning_scale=1.0
        ),
    ),
    ModelCase(
        "HunyuanDiT2DModel",
        DENOISERS,
        _HEADS
        | {
            "in_channels": 4,
            "patch_size": 2,
            "sample_size": 8,
            "hidden_size": 16,
            "num_layers": 2,
            "cross_attention_dim": 8,
            "cross_attention_dim_t5": 8,
            "pooled_projection_dim": 8,
            "text_len": 5,
            "text_len_t5": 6,
        },
        _hunyuan_dit_inputs,
    ),
    ModelCase(
        "SanaTransformer2DModel",
        DENOISERS,
        _SANA,
        _image_tokens,
        note="the depthwise 3x3 convolutions of its feed-forwards; the patch embedding has kernel 1x1",
    ),
    ModelCase(
        "SanaControlNetModel",
        DENOISERS,
        _SANA,
        lambda: _image_tokens(controlnet_cond=noise(2, 4, 8, 8, seed=3)),
    ),
    ModelCase(
        "Transformer2DModel",
        DENOISERS,
        _HEADS
        | {
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 1,
            "cross_attention_dim": 8,
            "sample_size": 8,
            "patch_size": 2,
            "num_embeds_ada_norm": 8,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "use_additional_conditions": False,
        },
        lambda: _image_tokens(added_cond_kwargs={"resolution": None, "aspect_ratio": None}),
        layout="patches",
    ),
    ModelCase(
        "LatteTransformer3DModel",
        DENOISERS,
        _HEADS
        | {
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 1,
            "cross_attention_dim": 16,
            "caption_channels": 8,
            "sample_size": 8,
            "patch_size": 2,
            "video_length": 2,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "num_embeds_ada_norm": 8,
        },
        _video_tokens,
    ),
    ModelCase(
        "CogVideoXTransformer3DModel",
        DENOISERS,
        _HEADS
        | {
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 8,
            "text_embed_dim": 8,
            "num_layers": 1,
            "sample_width": 8,
            "sample_height": 8,
            "sample_frames": 5,
            "max_text_seq_length": 5,
        },
        lambda: _image_tokens(hidden_states=noise(2, 2, 4, 8, 8)),
    ),
    ModelCase(
        "AllegroTransformer3DModel",
        DENOISERS,
        {
            "num_layers": 1,
            "cross_attention_dim": 48,
            "sample_height": 8,
            "sample_width": 8,
            "sample_frames": 2,
            "caption_channels": 8,
            "num_attention_heads": 2,
            "attention_head_dim": 24,
        },
        _allegro_inputs,
    ),
    ModelCase(
        "WanTransformer3DModel",
        DENOISERS,
        _WAN,
        _video_tokens,
        target_modules=("patch_embedding",),
        note="the patch embedding has kernel 1x2x2: name it with target_modules to patch it",
    ),
    ModelCase(
        "WanVACETransformer3DModel",
        DENOISERS,
        _WAN | {"num_layers": 2, "vace_layers": [0, 1], "vace_in_channels": 6},
        lambda: _video_tokens(
            control_hidden_states=noise(2, 6, 2, 8, 8, seed=3), control_hidden_states_scale=torch.tensor([1.0, 1.0])
        ),
        target_modules=("patch_embedding", "vace_patch_embedding"),
    ),
    ModelCase(
        "SkyReelsV2Transformer3DModel",
        DENOISERS,
        _WAN,
        _video_tokens,
        target_modules=("patch_embedding",),
    ),
    ModelCase(
        "HunyuanVideoTransformer3DModel",
        DENOISERS,
        {
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 10,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "patch_size": 2,
            "patch_size_t": 1,
            "guidance_embeds": True,
            "text_embed_dim": 8,
            "pooled_projection_dim": 8,
            "rope_axes_dim": (2, 4, 4),
        },
        lambda: _video_tokens(
            encoder_attention_mask=torch.ones(2, 5),
            pooled_projections=noise(2, 8, seed=2),
            guidance=torch.tensor([6.0, 6.0]),
        ),
        target_modules=("x_embedder.proj",),
        note="the patch embedding has kernel 1x2x2: name it with target_modules to patch it",
    ),
    ModelCase(
        "SanaVideoTransformer3DModel",
        DENOISERS,
        _SANA | {"qk_norm": None, "rope_max_seq_len": 32, "attention_head_dim": 12, "cross_attention_dim": 24},
        _video_tokens,
    ),
    ModelCase(
        "UVit2DModel",
        DENOISERS,
        {
            "hidden_size": 16,
            "cond_embed_dim": 8,
            "micro_cond_encode_dim": 2,
            "micro_cond_embed_dim": 10,
            "encoder_hidden_size": 8,
            "vocab_size": 16,
            "codebook_size": 16,
            "in_channels": 8,
            "block_out_channels": 8,
            "num_res_blocks": 1,
            "block_num_heads": 2,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "sample_size": 4,
            "downsample": True,
            "upsample": True,
        },
        lambda: {
            "input_ids": torch.arange(32).view(2, 4, 4) % 16,
            "encoder_hidden_states": noise(2, 5, 8, seed=1),
            "pooled_text_emb": noise(2, 8, seed=2),
            "micro_conds": torch.arange(10.0).view(2, 5),
        },
        layout="aMUSEd 512",
        note="also the 2x2 transposed convolution",
    ),
    ModelCase(
        "ViTModel",
        ENCODERS,
        _VISION,
        lambda: {"pixel_values": noise(2, 3, 16, 16)},
        library="transformers",
        config_class="ViTConfig",
    ),
    ModelCase(
        "CLIPVisionModelWithProjection",
        ENCODERS,
        _VISION | {"projection_dim": 8},
        lambda: {"pixel_values": noise(2, 3, 16, 16)},
        library="transformers",
        config_class="CLIPVisionConfig",
    ),
    ModelCase(
        "Dinov2Model",
        ENCODERS,
        {key: value for key, value in _VISION.items() if key != "intermediate_size"},
        lambda: {"pixel_values": noise(2, 3, 16, 16)},
        library="transformers",
        config_class="Dinov2Config",
    ),
    ModelCase(
        "SiglipVisionModel",
        ENCODERS,
        _VISION,
        lambda: {"pixel_values": noise(2, 3, 16, 16)},
        library="transformers",
        config_class="SiglipVisionConfig",
    ),
    ModelCase(
        "WanTransformer3DModel",
        NOTHING,
        _WAN,
        layout="without target_modules",
        error=_FLAT_PATCH.format("1x2x2"),
        note="so are all transformers whose patches are one frame deep",
    ),
    ModelCase(
        "FluxTransformer2DModel",
        NOTHING,
        _HEADS
        | {
            "in_channels": 4,
            "num_layers": 1,
            "num_single_layers": 1,
            "joint_attention_dim": 8,
            "pooled_projection_dim": 8,
            "axes_dims_rope": (2, 2, 4),
        },
        error=_NO_CONVOLUTION,
        note="latents enter through a linear layer; its AutoencoderKL can be patched",
    ),
    ModelCase(
        "QwenImageTransformer2DModel",
        NOTHING,
        _HEADS | {"in_channels": 4, "num_layers": 1, "joint_attention_dim": 8, "axes_dims_rope": (2, 2, 4)},
        error=_NO_CONVOLUTION,
    ),
    ModelCase(
        "AuraFlowTransformer2DModel",
        NOTHING,
        _HEADS
        | {
            "sample_size": 8,
            "num_mmdit_layers": 1,
            "num_single_dit_layers": 1,
            "joint_attention_dim": 8,
            "caption_projection_dim": 16,
            "pos_embed_max_size": 16,
        },
        error=_NO_CONVOLUTION,
    ),
    ModelCase(
        "LTXVideoTransformer3DModel",
        NOTHING,
        _HEADS
        | {"in_channels": 4, "out_channels": 4, "num_layers": 1, "cross_attention_dim": 16, "caption_channels": 8},
        error=_NO_CONVOLUTION,
    ),
    ModelCase(
        "PriorTransformer",
        NOTHING,
        _HEADS | {"num_layers": 1, "embedding_dim": 8, "num_embeddings": 5},
        error=_NO_CONVOLUTION,
    ),
    ModelCase(
        "HunyuanImageTransformer2DModel",
        NOTHING,
        _HEADS
        | {
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 1,
            "num_single_layers": 1,
            "num_refiner_layers": 1,
            "text_embed_dim": 8,
            "rope_axes_dim": (4, 4),
        },
        error=_FLAT_PATCH.format("1x1"),
        note="its patch embedding takes one latent pixel at a time",
    ),
    ModelCase(
        "StableAudioDiTModel",
        NOTHING,
        _HEADS
        | {
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 1,
            "num_key_value_attention_heads": 1,
            "cross_attention_dim": 8,
            "time_proj_dim": 8,
            "global_states_input_dim": 8,
            "cross_attention_input_dim": 8,
        },
        error=_FLAT_PATCH.format("1"),
    ),
)
