"""Autoencoders and image tokenisers: called by parts, since that is how pipelines call them."""

from functools import partial

import torch
from model_case import Inputs, ModelCase, autoencode, noise
from torch import nn

IMAGE, VIDEO, AUDIO = "Autoencoders of images", "Autoencoders of video", "Autoencoders of audio"

_KL = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 16,
}


def _image(channels: int = 3, size: int = 16) -> Inputs:
    return {"sample": noise(2, channels, size, size)}


def _video(frames: int, size: int = 16, channels: int = 3, samples: int = 1) -> Inputs:
    return {"sample": noise(samples, channels, frames, size, size)}


def _autoencode_deterministic(model: nn.Module, inputs: Inputs):
    """Encode and decode where `encode` gives the latent itself."""
    encoded = model.encode(inputs["sample"])
    return model.decode(encoded.latent if hasattr(encoded, "latent") else encoded.latents)


def _decode_frames(model: nn.Module, inputs: Inputs):
    """A temporal decoder takes frames as a batch and must be told how many there are."""
    latent = model.encode(inputs["sample"]).latent_dist.mode()
    return model.decode(latent, num_frames=len(latent))


def _decode_at_timestep(model: nn.Module, inputs: Inputs):
    latent = model.encode(inputs["sample"]).latent_dist.mode()
    return model.decode(latent, torch.tensor([0.05]))


def _decode_consistency(model: nn.Module, inputs: Inputs):
    # Its decoder is a denoiser that starts from noise.
    latent = model.encode(inputs["sample"]).latent_dist.mode()
    return model.decode(latent, generator=torch.Generator().manual_seed(1), num_inference_steps=2)


def _autoencode_tile(model: nn.Module, inputs: Inputs):
    """Allegro's autoencoder works in tiles only; made to fit the input, one is enough."""
    model.enable_tiling()
    model.kernel, model.stride = (8, 16, 16), (4, 8, 8)
    return autoencode(model, inputs)


AUTOENCODER_CASES = (
    ModelCase("AutoencoderKL", IMAGE, _KL, _image, autoencode, layout="SD, SDXL, SD3, Flux"),
    ModelCase(
        "AutoencoderTiny",
        IMAGE,
        {
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
        },
        _image,
        _autoencode_deterministic,
    ),
    ModelCase(
        "AsymmetricAutoencoderKL",
        IMAGE,
        {
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "down_block_out_channels": (8, 16),
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "up_block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "sample_size": 16,
        },
        lambda: _image() | {"mask": noise(2, 1, 16, 16, seed=1).sign().relu()},
        lambda model, inputs: model.decode(
            model.encode(inputs["sample"]).latent_dist.mode(), image=inputs["sample"], mask=inputs["mask"]
        ),
        idle=("decoder.condition_encoder.layers.3", "decoder.condition_encoder.layers.4"),
        note="called with an image and a mask; with two levels the last layers of the mask's encoder are never read",
    ),
    ModelCase(
        "ConsistencyDecoderVAE",
        IMAGE,
        {
            "encoder_block_out_channels": (8, 16),
            "encoder_down_block_types": ("DownEncoderBlock2D",) * 2,
            "encoder_layers_per_block": 1,
            "encoder_norm_num_groups": 4,
            "decoder_block_out_channels": (8, 16),
            "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
            "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
            "decoder_layers_per_block": 1,
            "decoder_norm_num_groups": 4,
        },
        _image,
        _decode_consistency,
    ),
    ModelCase(
        "VQModel",
        IMAGE,
        _KL | {"latent_channels": 3, "num_vq_embeddings": 16},
        _image,
        _autoencode_deterministic,
        note="the codebook passes gradients straight through, so the encoder's layers train",
    ),
    ModelCase(
        "AutoencoderDC",
        IMAGE,
        {
            "latent_channels": 4,
            "attention_head_dim": 4,
            "encoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "decoder_block_types": ("ResBlock", "EfficientViTBlock"),
            "encoder_block_out_channels": (8, 8),
            "decoder_block_out_channels": (8, 8),
            "encoder_layers_per_block": (1, 1),
            "decoder_layers_per_block": (1, 1),
            "encoder_qkv_multiscales": ((), (5,)),
            "decoder_qkv_multiscales": ((), (5,)),
        },
        _image,
        _autoencode_deterministic,
        layout="Sana",
    ),
    ModelCase("AutoencoderKLFlux2", IMAGE, _KL, _image, autoencode),
    ModelCase(
        "AutoencoderKLHunyuanImage",
        IMAGE,
        {
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": 4,
            "block_out_channels": (32, 64),  # the class fixes 32 groups in its norms
            "layers_per_block": 1,
            "spatial_compression_ratio": 2,
            "sample_size": 16,
        },
        _image,
        autoencode,
    ),
    ModelCase(
        "AutoencoderKLKVAE",
        IMAGE,
        {
            "channels": 32,
            "num_enc_blocks": 1,
            "num_dec_blocks": 1,
            "z_channels": 4,
            "ch_mult": (1, 1),
            "sample_size": 16,
        },
        _image,
        autoencode,
        layout="Kandinsky 5",
    ),
    ModelCase(
        "AutoencoderKLQwenImage21",
        IMAGE,
        {
            "base_dim": 4,
            "decoder_base_dim": 4,
            "z_dim": 4,
            "dim_mult": [1, 2],
            "num_res_blocks": 1,
            "temperal_downsample": [True],
            "is_residual": False,
            "scale_factor_temporal": 2,
            "scale_factor_spatial": 2,
        },
        partial(_video, 1, channels=4),
        autoencode,
        note="2-D convolutions that take an image as a clip of one frame",
    ),
    ModelCase(
        "AutoencoderKLTemporalDecoder",
        VIDEO,
        {
            "block_out_channels": (32, 64),  # the class fixes 32 groups in its norms
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "latent_channels": 4,
            "sample_size": 16,
        },
        _image,
        _decode_frames,
        layout="SVD",
    ),
    ModelCase(
        "AutoencoderKLCogVideoX",
        VIDEO,
        {
            "block_out_channels": (8, 16),
            "down_block_types": ("CogVideoXDownBlock3D",) * 2,
            "up_block_types": ("CogVideoXUpBlock3D",) * 2,
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "temporal_compression_ratio": 2,
            "sample_height": 16,
            "sample_width": 16,
        },
        partial(_video, 5),
        autoencode,
    ),
    ModelCase(
        "AutoencoderKLWan",
        VIDEO,
        {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [True]}
        | {"scale_factor_temporal": 2, "scale_factor_spatial": 2},
        partial(_video, 5),
        autoencode,
    ),
    ModelCase(
        "AutoencoderKLQwenImage",
        IMAGE,
        {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [True]},
        partial(_video, 1),
        autoencode,
        note="an image is a clip of one frame",
    ),
    ModelCase(
        "AutoencoderKLLTXVideo",
        VIDEO,
        {
            "latent_channels": 4,
            "block_out_channels": (8, 8),
            "down_block_types": ("LTXVideoDownBlock3D",) * 2,
            "decoder_block_out_channels": (8, 8),
            "layers_per_block": (1, 1, 1),
            "decoder_layers_per_block": (1, 1, 1),
            "spatio_temporal_scaling": (True, False),
            "decoder_spatio_temporal_scaling": (True, False),
            "decoder_inject_noise": (False, False, False),
            "downsample_type": ("conv", "conv"),
            "upsample_residual": (False, False),
            "upsample_factor": (1, 1),
            "timestep_conditioning": True,
            "patch_size": 2,
        },
        partial(_video, 5),
        _decode_at_timestep,
    ),
    ModelCase(
        "AutoencoderKLHunyuanVideo",
        VIDEO,
        {
            "latent_channels": 4,
            "block_out_channels": (8, 16),
            "down_block_types": ("HunyuanVideoDownBlock3D",) * 2,
            "up_block_types": ("HunyuanVideoUpBlock3D",) * 2,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "spatial_compression_ratio": 2,
            "temporal_compression_ratio": 4,
        },
        partial(_video, 5),
        autoencode,
    ),
    ModelCase(
        "AutoencoderKLHunyuanVideo15",
        VIDEO,
        {
            "latent_channels": 4,
            "block_out_channels": (8, 8, 8),
            "layers_per_block": 1,
            "spatial_compression_ratio": 4,
            "temporal_compression_ratio": 2,
        },
        partial(_video, 3),
        autoencode,
    ),
    ModelCase(
        "AutoencoderKLMochi",
        VIDEO,
        {
            # As in diffusers' own tests, where the outputs of convolutions are channels-last.
            "encoder_block_out_channels": (32, 32, 32, 32),
            "decoder_block_out_channels": (32, 32, 32, 32),
            "latent_channels": 4,
            "layers_per_block": (1, 1, 1, 1, 1),
        },
        partial(_video, 7, samples=2),
        autoencode,
    ),
    ModelCase(
        "AutoencoderKLAllegro",
        VIDEO,
        {
            "block_out_channels": (8, 16),
            "down_block_types": ("AllegroDownBlock3D",) * 2,
            "up_block_types": ("AllegroUpBlock3D",) * 2,
            "temporal_downsample_blocks": (True, False),
            "temporal_upsample_blocks": (False, True),
            "latent_channels": 4,
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "temporal_compression_ratio": 2,
            "sample_size": 16,
        },
        partial(_video, 8),
        _autoencode_tile,
        note="works in tiles only, which it copies first: the geometry channel takes each tile for a whole clip",
    ),
    ModelCase(
        "AutoencoderKLMagvit",
        VIDEO,
        {
            "latent_channels": 4,
            "block_out_channels": (8, 16),
            "down_block_types": ("SpatialDownBlock3D", "SpatialTemporalDownBlock3D"),
            "up_block_types": ("SpatialUpBlock3D", "SpatialTemporalUpBlock3D"),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "spatial_group_norm": False,
        },
        partial(_video, 5),
        autoencode,
        layout="EasyAnimate",
    ),
    ModelCase(
        "AutoencoderKLCosmos",
        VIDEO,
        {
            "latent_channels": 4,
            "encoder_block_out_channels": (8, 8, 16),
            "decode_block_out_channels": (8, 8, 16),
            "attention_resolutions": (8,),
            "resolution": 32,
            "num_layers": 1,
            "patch_size": 2,
            "spatial_compression_ratio": 4,
            "temporal_compression_ratio": 4,
        },
        partial(_video, 5),
        autoencode,
        target_modules=r".*conv_s",
        note="factorised kernels 1x3x3 and 3x1x1: name layers with target_modules",
    ),
    ModelCase(
        "AutoencoderVidTok",
        VIDEO,
        {"ch": 8, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "z_channels": 4},
        partial(_video, 5),
        autoencode,
        note="2-D convolutions over each frame and 1-D ones along time, beside 3-D ones",
    ),
    ModelCase(
        "AutoencoderOobleck",
        AUDIO,
        {
            "encoder_hidden_size": 8,
            "downsampling_ratios": [2, 4],
            "channel_multiples": [1, 2],
            "decoder_channels": 8,
            "decoder_input_channels": 4,
            "audio_channels": 2,
        },
        lambda: {"sample": noise(2, 2, 64)},
        autoencode,
        layout="Stable Audio",
        note="1-D, weight norm; also the transposed convolutions",
    ),
    ModelCase(
        "MMAudioVAE",
        AUDIO,
        {
            "mel_bins": 8,
            "latent_channels": 4,
            "hidden_channels": 8,
            "channel_multipliers": (1, 2),
            "layers_per_block": 1,
        },
        error="MMAudioMPConv1d computes its convolution by itself",
        note="its convolutions scale their weights and call torch's function themselves",
    ),
)
