"""The models of the pretraining experiment, untrained, and the pipeline of them."""

from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .arguments import PretrainingArguments

BETA_SCHEDULE = "squaredcos_cap_v2"


def build_vae(args: PretrainingArguments) -> AutoencoderKL:
    """Latents of a quarter of the resolution; few channels where the images are large, since time is spent there."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=tuple(args.vae_channels),
        layers_per_block=1,
        latent_channels=args.vae_latent_channels,
        norm_num_groups=8,
        sample_size=args.resolution,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def build_unet(args: PretrainingArguments) -> UNet2DConditionModel:
    """Attention where it is cheap: at an eighth of the resolution and, in the middle, at a sixteenth.

    The pooled caption is also added to the time embedding, which every block sees. With cross-attention alone, colours
    and finger counts were still ignored after 1,000 steps.
    """
    return UNet2DConditionModel(
        sample_size=args.resolution // 4,
        in_channels=args.vae_latent_channels,
        out_channels=args.vae_latent_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(args.unet_channels),
        layers_per_block=1,
        attention_head_dim=4,  # diffusers takes this as the number of heads
        cross_attention_dim=args.text_width,
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )


def build_text_encoder(args: PretrainingArguments, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=args.text_width,
            intermediate_size=4 * args.text_width,
            projection_dim=args.text_width,
            num_hidden_layers=args.text_layers,
            num_attention_heads=max(1, args.text_width // 32),
            max_position_embeddings=args.text_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_pipeline(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """The whole pipeline, with DPM-Solver++ for sampling in about 20 steps."""
    scheduler = DPMSolverMultistepScheduler(
        beta_schedule=BETA_SCHEDULE,
        prediction_type="v_prediction",
        steps_offset=1,
        timestep_spacing="trailing",  # starts from pure noise, which the cosine schedule reaches
        lambda_min_clipped=-5.1,  # what the solver's authors advise for the cosine schedule
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
