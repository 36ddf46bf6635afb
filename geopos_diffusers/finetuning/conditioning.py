"""Conditioning images, cut out as their images are."""

from PIL import Image
from torch import Tensor

from ..errors import DataError
from ..images.opening import open_image
from .framing import Frame, cut_out, image_tensor
from .records import Record


def read_conditioning(record: Record, original: tuple[int, int], frame: Frame) -> Tensor:
    """A record's conditioning image [3, H, W] float32 in [0, 1], cut out as its image is.

    Raises:
        DataError: it cannot be read, or is of another shape than the image.
    """
    try:
        image = open_image(record.conditioning)
    except DataError as error:
        raise DataError(f"its conditioning image: {error}") from error
    if not same_shape(image.size, original):
        found = f"{image.width} x {image.height} pixels, the image {original[0]} x {original[1]}"
        raise DataError(f"its conditioning image has another shape: {found}")
    if image.size != original:
        image = image.resize(original, Image.Resampling.BICUBIC)
    return (image_tensor(cut_out(image, frame)) + 1) / 2


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether `one` is a scaled size of `other`, with sides rounded up or down to whole pixels.

    Example:
        >>> same_shape((51, 34), (101, 67)), same_shape((51, 36), (101, 67))
        (True, False)
    """
    (width, height), (wide, high) = one, other
    return (width - 1) * high < (height + 1) * wide and (height - 1) * wide < (width + 1) * high
