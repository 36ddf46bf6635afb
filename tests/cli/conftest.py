"""A tiny pipeline and an adapter for it, on disk."""

import pytest
from commands import save_random_adapter
from tiny_models import tiny_stable_diffusion


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """A tiny pipeline saved to disk."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_stable_diffusion().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory) -> str:
    return save_random_adapter(tmp_path_factory.mktemp("tiny") / "adapter", seed=0)


@pytest.fixture(scope="session")
def other_adapter(tmp_path_factory) -> str:
    return save_random_adapter(tmp_path_factory.mktemp("tiny") / "adapter", seed=1)
