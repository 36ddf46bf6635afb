"""The table of supported models: one row a class and layout. `docs/supported_models.md` is made from it."""

from dataclasses import replace

from autoencoder_cases import AUTOENCODER_CASES
from transformer_cases import TRANSFORMER_CASES
from unet_cases import UNET_CASES

MODEL_CASES = (*UNET_CASES, *AUTOENCODER_CASES, *TRANSFORMER_CASES)
PATCHABLE = tuple(case for case in MODEL_CASES if case.error is None)
# One or two of each kind once more with kernel taps, the small ones: the default basis is multilinear.
_WITH_TAPS = (
    *("UNet1DModel (audio)", "UNet2DConditionModel (SD 1.5)", "StableCascadeUNet (decoder, stage B)"),
    *("ControlNetModel", "T2IAdapter (light)", "AutoencoderKL (SD, SDXL, SD3, Flux)", "AutoencoderTiny"),
    *("AutoencoderKLWan", "AutoencoderKLCogVideoX", "AutoencoderOobleck (Stable Audio)"),
    *("SD3Transformer2DModel", "WanTransformer3DModel", "UVit2DModel (aMUSEd 512)", "ViTModel"),
)
TAPS_CASES = tuple(replace(case, basis="taps") for case in PATCHABLE if case.name in _WITH_TAPS)
UNPATCHABLE = tuple(case for case in MODEL_CASES if case.error is not None)
