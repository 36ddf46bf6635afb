"""Images, or their latents, with the conditioning image of each."""

from typing import Any

from torch.utils.data import Dataset

from .image_text_data import ImageTextData


class ConditionedData(Dataset):
    """The items of `items` with "conditioning": [3, H, W] float32 in [0, 1], cut out as the image is.

    Args:
        items: images, or what was encoded of them, in their order. images: where conditioning images are read.
    """

    def __init__(self, items: Any, images: ImageTextData) -> None:
        self.items, self.images = items, images
        self.captions, self.resolution, self.skipped = images.captions, images.resolution, images.skipped
        self.buckets, self.parts, self.weights = images.buckets, images.parts, images.weights

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        return self.images.fingerprint()

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        return item | {"conditioning": self.images.conditioning(int(item["row"]), item["sizes"])}
