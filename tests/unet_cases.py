"""Convolutional denoisers, and the networks that steer them."""

import torch
from model_case import Inputs, ModelCase, noise

UNETS, CONTROLS = "Convolutional denoisers", "Control networks and adapters"

_TEXT = 8
_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": _TEXT,
}
_UNET_2D = {
    **_UNET,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}
_SDXL = {
    **_UNET_2D,
    "attention_head_dim": (1, 2),
    "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 8 + 6 * 4,
}
_SVD = {
    "sample_size": 8,
    "block_out_channels": (32, 64),  # the class fixes 32 groups in its norms
    "layers_per_block": 1,
    "cross_attention_dim": _TEXT,
    "num_attention_heads": (2, 4),
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 12,
    "num_frames": 2,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
}


def _text_conditioned(channels: int = 4, frames: int = 0, **more) -> Inputs:
    size = (frames, 8, 8) if frames else (8, 8)
    text = noise(2, 5, _TEXT, seed=1)
    inputs = {"sample": noise(2, channels, *size), "timestep": torch.tensor([3, 700]), "encoder_hidden_states": text}
    return inputs | more


def _motion_inputs(**more) -> Inputs:
    """Two clips of two frames; the text stands once for each frame, as the pipelines repeat it."""
    inputs = _text_conditioned(frames=2, timestep=3, **more)
    return inputs | {"encoder_hidden_states": noise(2, 5, _TEXT, seed=1).repeat_interleave(2, dim=0)}


def _sdxl_conditions() -> Inputs:
    return {"text_embeds": noise(2, 8, seed=2), "time_ids": torch.arange(12.0).view(2, 6)}


def _kandinsky_inputs() -> Inputs:
    inputs = _text_conditioned(added_cond_kwargs={"image_embeds": noise(2, 6, seed=2)})
    return inputs | {"encoder_hidden_states": None}


def _svd_inputs() -> Inputs:
    return {
        "sample": noise(1, 2, 8, 8, 8),
        "timestep": 3,
        "encoder_hidden_states": noise(1, 1, _TEXT, seed=1),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]),
    }


def _control_inputs(**more) -> Inputs:
    return _text_conditioned(controlnet_cond=noise(2, 3, 16, 16, seed=3).sigmoid(), **more)


_CONTROLNET = {key: value for key, value in _UNET_2D.items() if key not in ("up_block_types", "sample_size")} | {
    "conditioning_embedding_out_channels": (4, 8)
}

UNET_CASES = (
    ModelCase(
        "UNet1DModel",
        UNETS,
        {
            "sample_size": 32,
            "in_channels": 2,
            "out_channels": 2,
            "extra_in_channels": 16,
            "block_out_channels": (8, 32, 32),  # attention heads are 32 wide
        },
        lambda: {"sample": noise(2, 2, 32), "timestep": 3},
        layout="audio",
        note="kernels of 5 along one axis; the skip projections have kernel 1",
    ),
    ModelCase(
        "UNet1DModel",
        UNETS,
        {
            "sample_size": 16,
            "in_channels": 6,
            "out_channels": 6,
            "time_embedding_type": "positional",
            "use_timestep_embedding": True,
            "flip_sin_to_cos": False,
            "down_block_types": ("DownResnetBlock1D", "DownResnetBlock1D"),
            "up_block_types": ("UpResnetBlock1D",),
            "mid_block_type": "MidResTemporalBlock1D",
            "out_block_type": "OutConv1DBlock",
            "block_out_channels": (16, 32),
            "act_fn": "swish",
            "freq_shift": 1.0,
            "downsample_each_block": False,
        },
        lambda: {"sample": noise(2, 6, 16), "timestep": 3},
        layout="trajectories",
    ),
    ModelCase(
        "UNet2DModel",
        UNETS,
        {
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        },
        lambda: {"sample": noise(2, 3, 8, 8), "timestep": 3},
    ),
    ModelCase("UNet2DConditionModel", UNETS, _UNET_2D, _text_conditioned, layout="SD 1.5"),
    ModelCase(
        "UNet2DConditionModel",
        UNETS,
        _UNET_2D | {"attention_head_dim": (2, 4), "use_linear_projection": True, "upcast_attention": True},
        _text_conditioned,
        layout="SD 2",
    ),
    ModelCase(
        "UNet2DConditionModel",
        UNETS,
        _SDXL,
        lambda: _text_conditioned(added_cond_kwargs=_sdxl_conditions()),
        layout="SDXL",
    ),
    ModelCase(
        "UNet2DConditionModel",
        UNETS,
        _UNET_2D | {"in_channels": 9},
        lambda: _text_conditioned(channels=9),
        layout="inpainting",
    ),
    ModelCase(
        "UNet2DConditionModel",
        UNETS,
        _UNET_2D
        | {
            "out_channels": 8,
            "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "resnet_time_scale_shift": "scale_shift",
            "encoder_hid_dim": 6,
            "encoder_hid_dim_type": "image_proj",
            "addition_embed_type": "image",
        },
        _kandinsky_inputs,
        layout="Kandinsky 2.2",
    ),
    ModelCase(
        "UNet3DConditionModel",
        UNETS,
        _UNET
        | {
            "block_out_channels": (32, 64),  # its temporal convolutions fix 32 groups
            "norm_num_groups": 32,
            "attention_head_dim": 8,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        lambda: _text_conditioned(frames=2, timestep=3),
        note="the spatial 3x3 convolutions; temporal ones have kernel 3x1x1",
    ),
    ModelCase(
        "UNetMotionModel",
        UNETS,
        _UNET
        | {
            "num_attention_heads": 2,
            "motion_num_attention_heads": 2,
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
        },
        _motion_inputs,
        layout="AnimateDiff",
    ),
    ModelCase(
        "UNetSpatioTemporalConditionModel",
        UNETS,
        _SVD,
        _svd_inputs,
        layout="SVD",
        note="the spatial 3x3 convolutions; temporal ones have kernel 3x1x1",
    ),
    ModelCase(
        "I2VGenXLUNet",
        UNETS,
        _UNET
        | {
            "block_out_channels": (32, 64),
            "norm_num_groups": 32,
            "attention_head_dim": 8,
            "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
            "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        },
        lambda: {
            "sample": noise(1, 4, 2, 8, 8),
            "timestep": 3,
            "fps": torch.tensor([8]),
            "image_latents": noise(1, 4, 2, 8, 8, seed=2),
            "image_embeddings": noise(1, _TEXT, seed=3),
            "encoder_hidden_states": noise(1, 5, _TEXT, seed=1),
        },
    ),
    ModelCase(
        "StableCascadeUNet",
        UNETS,
        {
            "in_channels": 4,
            "out_channels": 4,
            "conditioning_dim": 16,
            "timestep_ratio_embedding_dim": 16,
            "block_out_channels": (16, 32),
            "num_attention_heads": (2, 4),
            "down_num_layers_per_block": (1, 1),
            "up_num_layers_per_block": (1, 1),
            "clip_text_in_channels": 8,
            "clip_text_pooled_in_channels": 8,
            "clip_image_in_channels": 8,
            "dropout": (0.0, 0.0),
            "switch_level": (False,),
        },
        lambda: {
            "sample": noise(2, 4, 8, 8),
            "timestep_ratio": torch.tensor([0.2, 0.7]),
            "clip_text_pooled": noise(2, 1, 8, seed=1),
            "clip_text": noise(2, 5, 8, seed=2),
            "clip_img": noise(2, 1, 8, seed=3),
        },
        layout="prior, stage C",
        note="its depthwise 3x3 convolutions",
    ),
    ModelCase(
        "StableCascadeUNet",
        UNETS,
        {
            "in_channels": 4,
            "out_channels": 4,
            "patch_size": 2,
            "conditioning_dim": 16,
            "timestep_ratio_embedding_dim": 16,
            "block_out_channels": (16, 32),
            "num_attention_heads": (0, 4),
            "down_num_layers_per_block": (1, 1),
            "up_num_layers_per_block": (1, 1),
            "down_blocks_repeat_mappers": (1, 1),
            "up_blocks_repeat_mappers": (2, 2),
            "block_types_per_layer": (
                ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
                ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
            ),
            "clip_text_pooled_in_channels": 8,
            "effnet_in_channels": 4,
            "pixel_mapper_in_channels": 3,
            "dropout": (0.0, 0.0),
            "timestep_conditioning_type": ("sca",),
        },
        lambda: {
            "sample": noise(2, 4, 16, 16),
            "timestep_ratio": torch.tensor([0.2, 0.7]),
            "clip_text_pooled": noise(2, 1, 8, seed=1),
            "effnet": noise(2, 4, 4, 4, seed=2),
        },
        layout="decoder, stage B",
        note="also the 2x2 down- and transposed up-sampling convolutions",
    ),
    ModelCase(
        "Kandinsky3UNet",
        UNETS,
        {
            "time_embedding_dim": 16,
            "groups": 4,
            "attention_head_dim": 4,
            "layers_per_block": 2,
            "block_out_channels": (8, 8, 16, 16),
            "cross_attention_dim": 8,
            "encoder_hid_dim": 8,
        },
        lambda: _text_conditioned(encoder_attention_mask=torch.ones(2, 5)),
    ),
    ModelCase(
        "ControlNetModel",
        CONTROLS,
        _CONTROLNET,
        _control_inputs,
        note="its zero-initialised 1x1 output convolutions stay as they are",
    ),
    ModelCase(
        "ControlNetUnionModel",
        CONTROLS,
        _CONTROLNET
        | {"num_control_type": 2, "num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8}
        | {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
        | {"projection_class_embeddings_input_dim": 8 + 6 * 4},
        lambda: _text_conditioned(
            controlnet_cond=[noise(2, 3, 16, 16, seed=3).sigmoid()],
            control_type=torch.tensor([[1.0, 0.0], [1.0, 0.0]]),
            control_type_idx=[0],
            conditioning_scale=1.0,
            added_cond_kwargs=_sdxl_conditions() | {"control_type": torch.tensor([[1.0, 0.0], [1.0, 0.0]])},
        ),
    ),
    ModelCase(
        "SparseControlNetModel",
        CONTROLS,
        {key: value for key, value in _UNET.items() if key != "sample_size"}
        | {
            "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
            "attention_head_dim": 2,
            "conditioning_embedding_out_channels": (4, 8),
            "motion_num_attention_heads": 2,
            "conditioning_channels": 4,
            "concat_conditioning_mask": True,
        },
        lambda: _motion_inputs(
            controlnet_cond=noise(2, 4, 2, 8, 8, seed=3), conditioning_mask=torch.ones(2, 1, 2, 8, 8)
        ),
    ),
    ModelCase(
        "UNetControlNetXSModel",
        CONTROLS,
        {key: value for key, value in _UNET.items() if key != "layers_per_block"}
        | {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "num_attention_heads": 2,
            "ctrl_block_out_channels": (4, 8),
            "ctrl_num_attention_heads": 2,
            "ctrl_conditioning_embedding_out_channels": (4, 8),
            "ctrl_max_norm_num_groups": 2,
        },
        _control_inputs,
    ),
    ModelCase(
        "T2IAdapter",
        CONTROLS,
        {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 4},
        lambda: {"x": noise(2, 3, 16, 16)},
        layout="full",
    ),
    ModelCase(
        "T2IAdapter",
        CONTROLS,
        {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 4, "adapter_type": "light_adapter"},
        lambda: {"x": noise(2, 3, 16, 16)},
        layout="light",
    ),
)
