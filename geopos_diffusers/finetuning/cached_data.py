"""Image data whose latents, text embeddings or both come from the disk."""

from typing import Any

from torch.utils.data import Dataset

from .image_text_data import ImageTextData
from .tensor_shards import TensorShards


class CachedData(Dataset):
    """The items of image data with {"moments"} in the place of {"pixels"}, and with {"text0", ...} beside captions.

    Args:
        images: where captions, masks and conditioning images come from. latents, text: what is cached; see
            `cache_latents`, `cache_text`.
    """

    def __init__(
        self, images: ImageTextData, latents: TensorShards | None = None, text: TensorShards | None = None
    ) -> None:
        self.images, self.latents, self.text = images, latents, text
        self.captions, self.skipped, self.resolution = images.captions, images.skipped, images.resolution
        self.buckets, self.parts, self.weights = images.buckets, images.parts, images.weights

    def fingerprint(self) -> str:
        return self.images.fingerprint()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.latents is None:
            item = self.images[index]
            row = item["row"]
        else:
            item = dict(self.latents[index])
            row = int(item["row"])
            item["caption"] = self.captions[row]
            if self.images.columns.mask:
                item["mask"] = self.images.mask(row, item["sizes"])
            if self.images.columns.conditioning:
                item["conditioning"] = self.images.conditioning(row, item["sizes"])
            if self.images.columns.frame:
                item["box"] = self.images.box(row, item["sizes"])
        return item if self.text is None else item | self.text[row]
