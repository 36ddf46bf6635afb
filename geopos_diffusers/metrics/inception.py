"""The InceptionV3 network of 2015 (arXiv 1512.00567) behind the FID of papers, through torch-fidelity.

Images are resized to 299 x 299 by Pillow's bicubic filter with antialiasing, as clean-fid does (Parmar et al., arXiv
2104.11222), here rounded to 8 bits; the original code skips pixels, so that large images alias.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..errors import DataError, MissingDependencyError
from .wheel_files import sha256_of

WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_FILE}"
SHA256_START = "6726825d"
SIDE, FEATURE_COUNT = 299, 2048
NAME, USUAL_IMAGES = "InceptionV3-2015", 50_000  # Heusel et al., arXiv 1706.08500


def load_inception() -> torch.nn.Module:
    """torch-fidelity's network of 2048 features, which takes uint8 [B, 3, 299, 299] and returns a tuple of [B, 2048].

    Raises:
        MissingDependencyError: torch-fidelity, torchvision or the weights are missing.
        DataError: the weights' file is not the known one.
    """
    try:
        import torch_fidelity  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision of another torch
        raise MissingDependencyError(
            "the extractor inception needs torch-fidelity and torchvision "
            f"({' '.join(str(error).split())}): pip install torch-fidelity"
        ) from error
    return build_inception(read_weights(Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name out of torch-fidelity's file, which is fetched to `path` if it is not there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(WEIGHTS_URL, str(path), hash_prefix=SHA256_START, progress=False)
        except (OSError, RuntimeError) as error:
            raise MissingDependencyError(
                f"the weights of the extractor inception could not be fetched ({error}); "
                f"download {WEIGHTS_URL} where there is internet, and put it at {path}"
            ) from error
    content = path.read_bytes()
    if not sha256_of(content).startswith(SHA256_START):
        raise DataError(f"{path} is not the known file: its SHA-256 does not start with {SHA256_START}; not used")
    return torch.load(path, map_location="cpu", weights_only=True)


def build_inception(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The network with these weights. torch-fidelity unpickles the file it is given, so it gets one written here."""
    from torch_fidelity import FeatureExtractorInceptionV3

    with tempfile.TemporaryDirectory(prefix="geopos-inception-") as folder:
        path = Path(folder) / "weights.pth"
        torch.save(weights, path)
        return FeatureExtractorInceptionV3("inception", [str(FEATURE_COUNT)], feature_extractor_weights_path=str(path))


def to_bytes(image: Image.Image) -> torch.Tensor:
    """uint8 [3, 299, 299] of an image of any mode and size."""
    image = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
