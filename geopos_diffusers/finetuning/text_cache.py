"""Text embeddings of a data set on the disk: each caption is encoded once, and training needs no text encoder."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from .mirrored_captions import mirrored_caption
from .tensor_shards import Item, TensorShards, make_shards, weights_digest

Encode = Callable[[Sequence[str]], tuple[Tensor, ...]]


def cache_text(
    captions: Sequence[str],
    pipe: Any,
    encode: Encode,
    accelerator: Accelerator,
    folder: Path,
    batch_size: int,
    mirrored: bool = False,
) -> TensorShards:
    """Encode the captions that are not in `folder` yet. All processes must call it.

    Shards are named after the kind of pipeline, the weights of its text encoders, its tokenizers, and the captions. A
    caption that stands in a shard more than once is encoded and stored once there.

    Args:
        encode: captions to tensors, each with a row a caption.
        mirrored: keep the embeddings of `mirrored_caption` too.

    Returns:
        Items {"text0": ..., "text1": ...}, and with `mirrored` {"mirrored0": ...}.
    """
    settings = f"text 1 {type(pipe).__name__} {mirrored} {text_digest(pipe)}"

    def compute(indices: range) -> tuple[Sequence[int], Iterator[Item]]:
        texts = [captions[index] for index in indices]
        distinct = list(dict.fromkeys(texts))
        numbers = {text: number for number, text in enumerate(distinct)}
        return [numbers[text] for text in texts], encode_all(distinct)

    def encode_all(texts: Sequence[str]) -> Iterator[Item]:
        kinds = {"text": list(texts)} | ({"mirrored": [mirrored_caption(text) for text in texts]} if mirrored else {})
        for start in range(0, len(texts), batch_size):
            count = len(texts[start : start + batch_size])
            encoded: Item = {}
            for kind, all_texts in kinds.items():
                batch = all_texts[start : start + batch_size]
                # As many as in a training step: the last bits can depend on that.
                tensors = encode(batch + batch[:1] * (batch_size - count))
                encoded |= {f"{kind}{part}": tensor.cpu() for part, tensor in enumerate(tensors)}
            for place in range(count):
                yield {name: tensor[place] for name, tensor in encoded.items()}

    def digest(index: int) -> bytes:
        return hashlib.sha256(captions[index].encode()).digest()

    files = make_shards(folder, "text", len(captions), settings, digest, compute, accelerator)
    kinds = ("text", "mirrored") if mirrored else ("text",)
    parts = len(encode([""]))
    return TensorShards(files, [f"{kind}{part}" for kind in kinds for part in range(parts)])


def text_digest(pipe: Any) -> str:
    """A digest of all that turns captions into embeddings."""
    encoders = [getattr(pipe, name) for name in sorted(pipe.components) if name.startswith("text_encoder")]
    digest = hashlib.sha256(
        weights_digest(*(encoder for encoder in encoders if isinstance(encoder, nn.Module))).encode()
    )
    for name in sorted(name for name in pipe.components if name.startswith("tokenizer")):
        tokenizer = getattr(pipe, name)
        if tokenizer is not None:
            backend = getattr(tokenizer, "backend_tokenizer", None)
            words = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
            digest.update(f"{type(tokenizer).__name__} {tokenizer.model_max_length} {words}".encode())
    return digest.hexdigest()
