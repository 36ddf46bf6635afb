"""Real diffusers pipelines at tiny size, built offline in well under a second, with weights drawn from a seed.

Tests import them by name (`from tiny_models import tiny_stable_diffusion`): pytest's `pythonpath` holds this folder.
"""

import string

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

TEXT_WIDTH = 16


def tiny_stable_diffusion(seed: int = 0) -> StableDiffusionPipeline:
    """A text-to-image pipeline for 32 px images: 16x16 latents of 4 channels, about 60 thousand parameters in its UNet.

    The global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = StableDiffusionPipeline(
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config()).eval(),
            tokenizer=tiny_tokenizer(),
            unet=UNet2DConditionModel(**_UNET, cross_attention_dim=TEXT_WIDTH).eval(),
            scheduler=_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_stable_diffusion_xl(seed: int = 0) -> StableDiffusionXLPipeline:
    """The same size with two text encoders, a pooled text embedding and the six size numbers of SDXL."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            **_UNET,
            cross_attention_dim=2 * TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
        )
        pipe = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=CLIPTextModel(_text_config()).eval(),
            text_encoder_2=CLIPTextModelWithProjection(_text_config()).eval(),
            tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_tokenizer(),
            unet=unet.eval(),
            scheduler=_scheduler(),
            add_watermarker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_inpainting(seed: int = 0) -> StableDiffusionInpaintPipeline:
    """`tiny_stable_diffusion` with five more channels of input, for a mask and the latents of the rest."""
    return StableDiffusionInpaintPipeline(
        **_with_inpainting_unet(tiny_stable_diffusion(seed).components, seed), requires_safety_checker=False
    )


def tiny_inpainting_xl(seed: int = 0) -> StableDiffusionXLInpaintPipeline:
    """The same of `tiny_stable_diffusion_xl`."""
    components = _with_inpainting_unet(tiny_stable_diffusion_xl(seed).components, seed)
    return StableDiffusionXLInpaintPipeline(**components, add_watermarker=False)


def _with_inpainting_unet(components: dict, seed: int) -> dict:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = {name: value for name, value in components["unet"].config.items() if not name.startswith("_")}
        return {**components, "unet": UNet2DConditionModel(**config | {"in_channels": 9}).eval()}


def tiny_stable_diffusion_3(seed: int = 0, with_t5: bool = True) -> StableDiffusion3Pipeline:
    """SD3 for 32 px images: 16x16 latents of 16 channels with a shift, two CLIP encoders and T5 or none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        t5 = T5Config(vocab_size=128, d_model=4 * TEXT_WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        pipe = StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=16,
                in_channels=16,
                out_channels=16,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=2,
                joint_attention_dim=4 * TEXT_WIDTH,
                caption_projection_dim=16,
                pooled_projection_dim=2 * TEXT_WIDTH,
                pos_embed_max_size=16,
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(latent_channels=16, shift_factor=0.0609, scaling_factor=1.5305),
            text_encoder=CLIPTextModelWithProjection(_text_config()).eval(),
            text_encoder_2=CLIPTextModelWithProjection(_text_config()).eval(),
            text_encoder_3=T5EncoderModel(t5).eval() if with_t5 else None,
            tokenizer=tiny_tokenizer(),
            tokenizer_2=tiny_tokenizer(),
            tokenizer_3=_t5_tokenizer() if with_t5 else None,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_sana(seed: int = 0) -> SanaPipeline:
    """Sana for 32 px images: 16x16 latents of 4 channels from a deterministic autoencoder, and Gemma."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gemma = Gemma2Config(
            vocab_size=128,
            hidden_size=TEXT_WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
        pipe = SanaPipeline(
            tokenizer=_gemma_tokenizer(),
            text_encoder=Gemma2Model(gemma).eval(),
            vae=AutoencoderDC(
                latent_channels=4,
                attention_head_dim=4,
                encoder_block_types=("ResBlock", "EfficientViTBlock"),
                decoder_block_types=("ResBlock", "EfficientViTBlock"),
                encoder_block_out_channels=(8, 8),
                decoder_block_out_channels=(8, 8),
                encoder_layers_per_block=(1, 1),
                decoder_layers_per_block=(1, 1),
                encoder_qkv_multiscales=((), (5,)),
                decoder_qkv_multiscales=((), (5,)),
                scaling_factor=0.41407,
            ).eval(),
            transformer=SanaTransformer2DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=8,
                num_layers=2,
                num_cross_attention_heads=2,
                cross_attention_head_dim=8,
                cross_attention_dim=16,
                caption_channels=TEXT_WIDTH,
                mlp_ratio=2.0,
                sample_size=16,
                patch_size=1,
            ).eval(),
            scheduler=DPMSolverMultistepScheduler(
                use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
            ),
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a vocabulary of single bytes: 256, their 256 word-final forms and two special tokens."""
    letters = sorted(ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _t5_tokenizer() -> T5Tokenizer:
    """T5's tokenizer with a vocabulary of single ASCII characters."""
    pieces = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    pieces += [(token, -2.0) for token in ("\N{LOWER ONE EIGHTH BLOCK}", *_CHARACTERS)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _gemma_tokenizer() -> GemmaTokenizer:
    """Gemma's tokenizer with a vocabulary of single ASCII characters."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\N{LOWER ONE EIGHTH BLOCK}", *_CHARACTERS]
    return GemmaTokenizer(vocab={token: index for index, token in enumerate(tokens)}, merges=[], add_bos_token=True)


_CHARACTERS = string.ascii_letters + string.digits + string.punctuation
_UNET = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def _vae(latent_channels: int = 4, **config: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=32,
        **config,
    ).eval()


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=514,
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
