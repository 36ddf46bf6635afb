"""Which layers of an autoencoder encode and which decode, by their names."""

from collections.abc import Sequence

from ..patching.config import exact_names

# The children of the classes that are known here. The codebook belongs to the latents, which the denoiser has learnt.
ENCODING = ("encoder", "quant_conv", "quantize", "bn")
DECODING = ("decoder", "post_quant_conv")


def is_decoding(name: str) -> bool:
    """Whether a layer or parameter of this name belongs to the decoder."""
    return name.partition(".")[0] in DECODING


def outside_the_decoder(excluded: str | Sequence[str] | None) -> str:
    """A regular expression for the encoder's layers, and what is excluded beside them (given as in GeoConvConfig)."""
    patterns = [rf"(?:{exact_names(ENCODING)})(?:\..*)?"]
    if isinstance(excluded, str):
        patterns.append(excluded)
    elif excluded is not None:
        patterns.append(rf"(?:.*\.)?(?:{exact_names(excluded)})")
    return "|".join(f"(?:{pattern})" for pattern in patterns)
