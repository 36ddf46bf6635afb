"""LoRA saved in one file and loaded again, whichever layers have it."""

import pytest
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import tiny_stable_diffusion, tiny_stable_diffusion_xl
from torch import nn

from geopos_diffusers.finetuning.lora import LORA_NAME, add_lora, load_lora, lora_metadata, save_lora
from geopos_diffusers.finetuning.text_encoder_lora import add_text_encoder_lora
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
BUILD = {"sd": tiny_stable_diffusion, "xl": tiny_stable_diffusion_xl}


def arguments(targets: list[str]) -> TextToImageArguments:
    return TextToImageArguments(
        dataset="d", output_dir="o", max_train_steps=1, train="lora", lora_target_modules=targets, lora_alpha=16
    )


def factors(model: nn.Module) -> list[torch.Tensor]:
    """Those of the one LoRA that the model has, whatever it is called."""
    return [parameter for name, parameter in model.named_parameters() if "lora_" in name]


def with_drawn_lora(owner, component: str, targets: list[str]):
    """The owner with LoRA factors of random values in one of its models."""
    add_lora(getattr(owner, component), arguments(targets))
    draw(getattr(owner, component))
    return owner


def draw(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in factors(model):
        parameter.data.normal_(generator=generator)


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("targets", [ATTENTION, ["conv1", *ATTENTION, "ff.net.0.proj"], ["conv1", "conv2"]])
def test_a_pipeline_loads_every_factor_with_its_alpha(tmp_path, name, targets):
    trained = with_drawn_lora(BUILD[name](), "unet", targets)
    add_text_encoder_lora(trained, arguments(targets))
    draw(trained.text_encoder)
    components = [key for key in ("unet", "text_encoder", "text_encoder_2") if hasattr(trained, key)]
    save_lora(trained, components, tmp_path)
    pipe = BUILD[name]()
    pipe.load_lora_weights(tmp_path)
    for key in components:
        expected, found = factors(getattr(trained, key)), factors(getattr(pipe, key))
        assert len(expected) == len(found) > 0
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    layers = [layer for layer in pipe.unet.modules() if hasattr(layer, "lora_A")]
    assert {scale for layer in layers for scale in layer.scaling.values()} == {16 / 8}


@pytest.mark.parametrize("older", [False, True])
def test_a_model_without_a_loader_has_them_by_either_name(tmp_path, older):
    trained = with_drawn_lora(tiny_stable_diffusion(), "vae", ["conv1", *ATTENTION])
    save_lora(trained, ["vae"], tmp_path)
    if older:
        file = tmp_path / LORA_NAME
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
        renamed = convert_state_dict_to_diffusers(load_file(file))
        assert {name.rpartition(".to_q.")[2] for name in renamed if ".to_q." in name} >= {"lora.down.weight"}
        save_file(renamed, file, metadata=metadata)
    owner = tiny_stable_diffusion()
    load_lora(owner, "vae", tmp_path)
    found = factors(owner.vae)
    assert all(torch.equal(one, other) for one, other in zip(factors(trained.vae), found, strict=True))


def test_a_pipeline_loads_attention_by_its_older_names(tmp_path):
    trained = with_drawn_lora(tiny_stable_diffusion(), "unet", ATTENTION)
    save_lora(trained, ["unet"], tmp_path / "new")
    renamed = convert_state_dict_to_diffusers(load_file(tmp_path / "new" / LORA_NAME))
    assert all(".lora." in name for name in renamed)
    metadata = lora_metadata(trained.unet)
    layers = {name.removeprefix("unet."): value for name, value in renamed.items()}
    type(trained).save_lora_weights(tmp_path / "old", unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)
    pipe = tiny_stable_diffusion()
    load_lora(pipe, "unet", tmp_path / "old")
    assert all(torch.equal(one, other) for one, other in zip(factors(trained.unet), factors(pipe.unet), strict=True))
