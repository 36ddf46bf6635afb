"""The table of supported models: one row a class and layout. `docs/supported_models.md` is made from it."""

from autoencoder_cases import AUTOENCODER_CASES
from transformer_cases import TRANSFORMER_CASES
from unet_cases import UNET_CASES

MODEL_CASES = (*UNET_CASES, *AUTOENCODER_CASES, *TRANSFORMER_CASES)
PATCHABLE = tuple(case for case in MODEL_CASES if case.error is None)
UNPATCHABLE = tuple(case for case in MODEL_CASES if case.error is not None)
