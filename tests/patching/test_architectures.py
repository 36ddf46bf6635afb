"""What a patch must do for every class of model: one test a concern, over the table of `model_cases.py`."""

import copy
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from model_case import ModelCase, forward, tensors_of
from model_cases import PATCHABLE, TAPS_CASES, UNPATCHABLE
from torch import Tensor, nn
from trained_models import draw_geometry

from geopos_diffusers import (
    apply_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    remove_geoconv,
    save_geoconv_weights,
    set_geoconv_scale,
)
from geopos_diffusers.errors import SurgeryError
from geopos_diffusers.patching.encoding import draw_shift


@dataclass(frozen=True)
class Stock:
    """An unpatched model of the table and what it puts out."""

    case: ModelCase
    model: nn.Module
    output: list[Tensor]


def label(case: ModelCase) -> str:
    return f"{case.name} {case.basis}" if case.basis else case.name


@pytest.fixture(scope="module", params=(*PATCHABLE, *TAPS_CASES), ids=label)
def stock(request: pytest.FixtureRequest) -> Stock:
    model = request.param.build()
    return Stock(request.param, model, run(request.param, model))


def run(case: ModelCase, model: nn.Module) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # for decoders that draw noise
        return tensors_of(case.call(model, case.inputs()))


def loss(case: ModelCase, model: nn.Module) -> Tensor:
    """Mean squares of all outputs in training mode, with random shifts."""
    torch.manual_seed(2)
    return sum(tensor.square().mean() for tensor in tensors_of(case.call(model.train(), case.inputs())))


def equal(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) > 0 and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def patched(case: ModelCase, **options: str) -> nn.Module:
    """A new patched model with geometry weights that are not zero; options of its config."""
    model = case.build()
    apply_geoconv(model, replace(case.geoconv, **options))
    draw_geometry(model)
    return model


def anatomy(model: nn.Module) -> dict[str, tuple[type, set[str], int]]:
    """Class, attributes and number of hooks of every module: what a removed patch must leave as it was."""
    return {
        name: (type(module), {*vars(module)}, len(module._forward_hooks) + len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    }


def test_patching_leaves_the_output_bitwise_equal(stock: Stock):
    model = stock.case.build()
    status = apply_geoconv(model, stock.case.geoconv)
    assert status.patched
    assert status.config.basis == (stock.case.basis or "multilinear")
    assert all(tensor.isfinite().all() for tensor in stock.output)
    assert equal(run(stock.case, model), stock.output)


def test_gradients_reach_every_geometry_weight(stock: Stock):
    model = stock.case.build()
    apply_geoconv(model, stock.case.geoconv)
    loss(stock.case, model).backward()
    gradients = {name.removesuffix(".geo_weight"): weight.grad for name, weight in geoconv_parameters(model).items()}
    unreached = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
    assert unreached == list(stock.case.idle)
    assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)
    for name in unreached:
        assert all(parameter.grad is None for parameter in stock.model.get_submodule(name).parameters())


def test_one_optimiser_step_changes_the_output(stock: Stock):
    model = stock.case.build().requires_grad_(False)
    apply_geoconv(model, stock.case.geoconv)
    weights = [*geoconv_parameters(model).values()]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    loss(stock.case, model).backward()
    optimizer.step()
    output = run(stock.case, model.eval())
    assert not equal(output, stock.output)
    assert all(tensor.isfinite().all() for tensor in output)
    set_geoconv_scale(model, 0)
    model.requires_grad_(True)  # torch chooses some kernels by requires_grad: freezing alone changes last bits
    assert equal(run(stock.case, model), stock.output), "the step moved more than the geometry weights"


def test_saved_weights_load_into_a_fresh_copy(stock: Stock, tmp_path):
    model = patched(stock.case)
    expected = run(stock.case, model)
    assert not equal(expected, stock.output)
    save_geoconv_weights(model, tmp_path)
    fresh = stock.case.build()
    status = load_geoconv_weights(fresh, tmp_path)
    assert status.patched == geoconv_status(model).patched
    assert equal(run(stock.case, fresh), expected)


def test_removing_restores_the_output_and_every_module(stock: Stock):
    model = stock.case.build()
    names = apply_geoconv(model, stock.case.geoconv).patched
    draw_geometry(model)
    run(stock.case, model)
    assert remove_geoconv(model) == names
    assert anatomy(model) == anatomy(stock.model)  # both have run: some classes keep caches as attributes
    assert equal(run(stock.case, model), stock.output)
    assert not geoconv_status(model).patched


def test_state_dict_keys_of_the_base_stay(stock: Stock):
    model = stock.case.build()
    expected = stock.model.state_dict()
    apply_geoconv(model, stock.case.geoconv)
    state = model.state_dict()
    base = {key: tensor for key, tensor in state.items() if not key.endswith(".geo_weight")}
    assert [*base] == [*expected]
    assert all(torch.equal(base[key], expected[key]) for key in expected)
    missing, unexpected = model.load_state_dict(expected, strict=False)
    assert {*missing} == {*state} - {*base}
    assert not unexpected
    remove_geoconv(model)
    assert [*model.state_dict()] == [*expected]


def test_a_deep_copy_is_patched_and_independent(stock: Stock):
    model = patched(stock.case)
    expected = run(stock.case, model)
    twin = copy.deepcopy(model)
    assert equal(run(stock.case, twin), expected)
    remove_geoconv(twin)
    assert equal(run(stock.case, twin), stock.output)
    assert equal(run(stock.case, model), expected)


def test_pickling_keeps_the_patch(stock: Stock):
    model = patched(stock.case)
    twin = pickle.loads(pickle.dumps(model))
    assert geoconv_status(twin).patched == geoconv_status(model).patched
    assert equal(run(stock.case, twin), run(stock.case, model))
    remove_geoconv(twin)
    assert anatomy(twin) == anatomy(stock.model)
    assert equal(run(stock.case, twin), stock.output)


def test_a_call_draws_one_shift_and_none_without_gradients(stock: Stock):
    model = patched(stock.case, shift_scope="model")
    config = geoconv_status(model).config
    losses = [loss(stock.case, model).item() for _ in range(2)]
    state = torch.get_rng_state()
    assert losses[0] == losses[1], "the same seed gave another shift"
    with torch.no_grad():
        assert equal(run(stock.case, model), run(stock.case, model))
    if stock.case.call is forward and config.encoding != "constant":  # autoencoders are called part by part
        loss(stock.case, stock.case.build())
        draw_shift(config, 3, 1, torch.zeros(1))
        assert torch.equal(torch.get_rng_state(), state), "not one draw beside those of the stock model"


@pytest.mark.parametrize("case", UNPATCHABLE, ids=lambda case: case.name)
def test_the_error_says_why_nothing_can_be_patched(case: ModelCase):
    model = case.build()
    before = anatomy(model)
    with pytest.raises(SurgeryError) as caught:
        apply_geoconv(model, case.geoconv)
    assert case.model in str(caught.value)
    assert case.error in str(caught.value)
    assert "\n" not in str(caught.value)
    assert anatomy(model) == before


def test_conversion_from_a_patched_model_is_refused():
    from diffusers import ControlNetModel, MotionAdapter, UNetMotionModel

    case = next(case for case in PATCHABLE if case.layout == "SD 1.5")
    model = case.build()
    apply_geoconv(model)
    sizes = {"block_out_channels": (8, 16), "motion_layers_per_block": 1, "motion_norm_num_groups": 4}
    motion = MotionAdapter(**sizes, motion_num_attention_heads=2)
    for convert in (ControlNetModel.from_unet, lambda unet: UNetMotionModel.from_unet2d(unet, motion)):
        with pytest.raises(RuntimeError, match="geo_weight"):
            convert(model)


def test_an_adapter_of_a_model_loads_into_a_pipeline_that_names_it_otherwise(tmp_path):
    from diffusers import DDIMScheduler, LDMPipeline

    tokeniser, denoiser = (
        next(case for case in PATCHABLE if case.model == name) for name in ("VQModel", "UNet2DModel")
    )
    model = patched(tokeniser)
    save_geoconv_weights(model, tmp_path)
    pipe = LDMPipeline(vqvae=tokeniser.build(), unet=denoiser.build(), scheduler=DDIMScheduler())
    load_geoconv_weights(pipe, tmp_path)
    assert equal(run(tokeniser, pipe.vqvae), run(tokeniser, model))
    assert not geoconv_parameters(pipe.unet)
