"""Whether the installed libraries still have the private names that the package relies on, and all are listed."""

import ast
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from accelerate.utils import OffloadedWeightsLoader
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from tiny_models import tiny_stable_diffusion
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from geopos_diffusers import apply_geoconv
from geopos_diffusers.patching.private_names import PRIVATE_NAMES, PrivateName

PACKAGE = Path(__file__).parents[2] / "geopos_diffusers"
CPU = torch.device("cpu")


def offloaded() -> nn.Module:
    return cpu_offload(nn.Sequential(nn.Linear(1, 1)), CPU)[0]


def group_offloaded() -> nn.Module:
    unet = tiny_stable_diffusion().unet
    unet.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")
    return unet.conv_in


def hooks_in_a_row() -> object:
    layer = offloaded()
    add_hook_to_module(layer, ModelHook(), append=True)
    return layer._hf_hook


def loaded_config(folder: Path) -> object:
    tiny_stable_diffusion().unet.save_pretrained(folder)
    return UNet2DConditionModel.from_pretrained(folder).config


# Builds what has the names, as the library itself does, from an empty folder.
OWNERS: dict[str, Callable[[Path], object]] = {
    "Conv2d": lambda folder: nn.Conv2d,
    "Module": lambda folder: nn.Module(),
    "_C": lambda folder: torch._C,
    "OptimizedModule": lambda folder: torch.compile(nn.Linear(1, 1)),
    "CheckpointWrapper": lambda folder: checkpoint_wrapper(nn.Linear(1, 1)),
    "offloaded module": lambda folder: offloaded(),
    "SequentialHook": lambda folder: hooks_in_a_row(),
    "AlignDevicesHook": lambda folder: offloaded()._hf_hook,
    "PrefixedDataset": lambda folder: offloaded()._hf_hook.weights_map,
    "OffloadedWeightsLoader": lambda folder: OffloadedWeightsLoader(state_dict={"weight": torch.zeros(1)}),
    "group-offloaded module": lambda folder: group_offloaded(),
    "HookRegistry": lambda folder: group_offloaded()._diffusers_hook,
    "HookRegistry.hooks": lambda folder: group_offloaded()._diffusers_hook.hooks,
    "GroupOffloadingHook": lambda folder: group_offloaded()._diffusers_hook.hooks["group_offloading"],
    "ModuleGroup": lambda folder: group_offloaded()._diffusers_hook.hooks["group_offloading"].group,
    "AutoencoderKL": lambda folder: AutoencoderKL,
    "AutoencoderDC": lambda folder: AutoencoderDC,
    "AutoencoderTiny": lambda folder: AutoencoderTiny,
    "config of a loaded model": loaded_config,
}


@pytest.mark.parametrize("entry", PRIVATE_NAMES, ids=lambda entry: f"{entry.library} {entry.owner}.{entry.name}")
def test_the_installed_release_has_the_name(entry: PrivateName, tmp_path):
    try:
        owner = OWNERS[entry.owner](tmp_path)
    except (AttributeError, KeyError) as error:
        pytest.fail(f"{entry.library} {version(entry.library)} builds no {entry.owner} as before: {error}")
    if not (entry.name in owner if isinstance(owner, dict) else hasattr(owner, entry.name)):
        pytest.fail(
            f"{entry.library} {version(entry.library)} no longer has {entry.owner}.{entry.name}, "
            f"on which {entry.purpose} relies"
        )


def test_a_name_that_is_gone_is_told_in_words(tmp_path):
    gone = PrivateName("torch", "Conv2d", "_conv_backward", "nothing")
    with pytest.raises(pytest.fail.Exception, match=r"torch .* no longer has Conv2d\._conv_backward, on which nothing"):
        test_the_installed_release_has_the_name(gone, tmp_path)


def test_every_private_name_of_another_library_is_listed():
    """All names with an underscore that patching and adapters use and that the package itself does not define."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    defined |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    defined |= {"_C", "_geoconv_config", "_geoconv_adapters", "_geoconv_hooks"}  # torch._C is in the table as an owner
    used = set()
    for room in ("patching", "adapters"):
        for path in (PACKAGE / room).glob("*.py"):
            if path.name == "private_names.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                text = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
                if isinstance(text, str) and text.startswith("_") and not text.startswith("__") and text.isidentifier():
                    used.add(text)
    assert used - defined <= {entry.name for entry in PRIVATE_NAMES}
    assert len(used - defined) > 5


def test_layers_keep_their_names_in_wrappers():
    """What the names of torch's wrappers are relied on for."""
    model = nn.Sequential(checkpoint_wrapper(nn.Sequential(nn.Conv2d(1, 1, 3))), nn.Conv2d(1, 1, 3))
    assert apply_geoconv(torch.compile(model, backend="eager")).patched == ["0.0", "1"]
