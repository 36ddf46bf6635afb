"""Memory that a training step of Stable Diffusion needs, counted on models without memory (torch's meta device).

    python scripts/estimate_memory.py

Prints the table of docs/large_models.md. For your own model, data and options: `geopos train ... --dry-run`.
"""

import argparse

import torch
from benchmark_overhead import sd15_unet, sd_vae_decoder, sdxl_unet, target_layers
from experiments.page import markdown_table
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from geopos_diffusers import apply_geoconv, geoconv_parameters
from geopos_diffusers.training.memory_estimate import GIB, MemoryEstimate, activation_bytes, estimate_memory

LARGE_TEXT = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
SMALL_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
# model, pixels a side, what is trained, batch of a process, processes that parameters are sharded over
ROWS = (
    ("SD 1.5", 512, "geoconv+lora", 4, 1),
    ("SDXL", 1024, "geoconv+lora", 1, 1),
    ("SDXL", 1024, "geoconv+lora", 4, 1),
    ("SDXL", 1024, "full", 4, 1),
    ("SDXL", 1024, "full", 4, 8),
    ("SDXL", 1024, "full", 4, 16),
)


def others(model: str) -> int:
    """Bytes of the text encoders and the autoencoder in bf16, the latter as two decoders: a little more."""
    encoders: list[nn.Module] = [CLIPTextModel(CLIPTextConfig(**SMALL_TEXT))]
    if model == "SDXL":
        encoders.append(CLIPTextModelWithProjection(CLIPTextConfig(**LARGE_TEXT, projection_dim=1280)))
    decoder, _ = sd_vae_decoder(512)(1)
    return 2 * (
        sum(value.numel() for part in encoders for value in part.parameters())
        + 2 * sum(value.numel() for value in decoder.parameters())
    )


def estimate(model: str, size: int, train: str, batch: int, processes: int, checkpointing: bool) -> MemoryEstimate:
    """With the frozen weights and the activations in bf16, and what is trained in float32."""
    unet, call = (sd15_unet if model == "SD 1.5" else sdxl_unet)(1)
    unet.train().requires_grad_(train == "full")
    if train == "geoconv+lora":
        inject_adapter_in_model(LoraConfig(r=16, target_modules=["to_q", "to_k", "to_v", "to_out.0"]), unet)
        apply_geoconv(unet)
        assert len(geoconv_parameters(unet)) == len(target_layers(unet))
        for weight in geoconv_parameters(unet).values():
            weight.requires_grad_(True)
    trained = {name: value for name, value in unet.named_parameters() if value.requires_grad}
    sizes = {name: torch.empty_like(value, dtype=torch.float32) for name, value in trained.items()}
    unet.to(torch.bfloat16)
    scale = batch * (size / 8 / 32) ** 2  # `call` takes latents of 32 x 32
    activations = round(scale * activation_bytes(unet, lambda: call(bfloat16(unet)), checkpointing))
    if train == "full":
        unet.to(torch.float32)
    return estimate_memory(unet, sizes, activations, average=True, processes=processes)


def bfloat16(unet: nn.Module) -> nn.Module:
    """The model as `call` takes it, with its inputs in bf16."""

    def run(latents, time, text, **more):
        more = {name: {key: value.to(torch.bfloat16) for key, value in values.items()} for name, values in more.items()}
        return unet(latents.to(torch.bfloat16), torch.tensor(time), text.to(torch.bfloat16), **more)

    return run


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    lines = []
    with torch.device("meta"):
        for model, size, train, batch, processes in ROWS:
            rest = others(model)
            both = [estimate(model, size, train, batch, processes, checkpointing) for checkpointing in (False, True)]
            without, found = both
            state = (found.gradients, found.moments, found.average)
            values = [rest, found.frozen, found.trained, sum(state), found.gathered, found.activations]
            figures = [f"{value / GIB:.1f}" for value in [*values, rest + found.total, rest + without.total]]
            lines.append((model, str(size), train, str(batch), str(processes), *figures))
    header = (
        *("model", "pixels", "trained", "batch", "sharded over", "encoders", "frozen", "trained weights"),
        *("gradients, moments, average", "gathered", "activations", "in all", "without checkpointing"),
    )
    print(markdown_table(header, lines))


if __name__ == "__main__":
    main()
