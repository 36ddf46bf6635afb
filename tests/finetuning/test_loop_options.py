"""Options of the loop that all scripts share, on the text-to-image script."""

import json
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from geopos_diffusers.errors import ConfigError, MissingDependencyError
from geopos_diffusers.finetuning.engine import build_loader, build_run
from geopos_diffusers.finetuning.part_options import LEARNING_RATES
from geopos_diffusers.finetuning.text_to_image import TextToImage
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training.gradient_step import GradientStep

READ = "aten::_local_scalar_dense"
GIVEN = {"dataset": "d", "output_dir": "o", "max_train_steps": 10}


def arguments(**options) -> TextToImageArguments:
    return TextToImageArguments(**GIVEN, **options)


class TestOptimizer:
    def test_adams_numbers(self):
        args = arguments(adam_beta1=0.8, optimizer_arguments=["amsgrad=true"])
        assert args.optimizer_options == {"betas": (0.8, 0.999), "eps": 1e-8, "amsgrad": True}
        assert arguments(optimizer="lion", learning_rate=1e-3).optimizer_options == {}

    @pytest.mark.parametrize(
        ("optimizer", "train", "rates"),
        [
            ("adamw", "geoconv+lora", {"geoconv": LEARNING_RATES["geoconv"], "lora": LEARNING_RATES["lora"]}),
            ("schedule-free-adamw", "lora", {"lora": LEARNING_RATES["lora"]}),
            ("prodigy", "geoconv+lora", {"geoconv": 1.0, "lora": 1.0}),
        ],
    )
    def test_default_rates(self, optimizer, train, rates):
        args = arguments(optimizer=optimizer, train=train)
        assert {part: args.peak_learning_rate(part) for part in args.parts} == rates

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"optimizer": "adamv"}, "optimizer must be one of adamw, .*did you mean adamw?"),
            ({"optimizer": "lion"}, "optimizer lion needs a learning_rate: the defaults are AdamW's"),
            ({"optimizer": "prodigy", "adam_beta1": 0.8}, "adam_beta1 is Adam's; give the numbers of prodigy as opt"),
            ({"optimizer_arguments": ["betas=0.9,0.9"]}, "give the betas and epsilon of Adam as adam_beta1"),
            ({"optimizer_arguments": ["amsgrad"]}, "optimizer_arguments must be key=value"),
            ({"optimizer": "schedule-free-adamw", "use_ema": True}, "keeps a moving average itself"),
            ({"optimizer": "schedule-free-adamw", "lr_scheduler": "cosine"}, "needs no schedule"),
            (
                {"optimizer": "prodigy", "train": "geoconv+lora", "lora_learning_rate": 0.5},
                "prodigy finds one rate for all parts; give learning_rate alone",
            ),
            ({"lr_power": 2}, "lr_power is a number of lr_scheduler polynomial; this run has constant"),
            ({"compile_mode": "default"}, "compile_mode is an option of compile"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_what_is_refused(self, options, message):
        with pytest.raises(ConfigError, match=message):
            arguments(**options)

    def test_a_run_stopped_and_continued(self, finetune):
        options = {"train": "geoconv+lora", "optimizer": "schedule-free-adamw", "checkpointing_steps": 2}
        whole, expected = finetune("whole", max_train_steps=4, **options)
        finetune("parts", max_train_steps=2, **options)
        parts, lines = finetune("parts", max_train_steps=4, **options)
        assert lines == expected
        states = [(folder / "final" / "geoconv_weights.safetensors").read_bytes() for folder in (whole, parts)]
        assert states[0] == states[1]

    def test_a_missing_argument_is_named_before_training(self, finetune, tmp_path):
        with pytest.raises(ConfigError, match=r"optimizer sgd has no argument 'momentun'; .*did you mean momentum?"):
            finetune("bad", optimizer="sgd", learning_rate=1, optimizer_arguments="momentun=0.9")
        assert not (tmp_path / "bad" / "losses.jsonl").exists()


class TestSchedule:
    def test_numbers_reach_it(self):
        args = arguments(lr_scheduler="polynomial", lr_power=2)
        assert args.learning_rate_factor(5, 10) == 0.25
        args = arguments(lr_scheduler="cosine_with_restarts", lr_num_cycles=2, lr_warmup_steps=2)
        assert args.learning_rate_factor(6, 10) == 1.0
        args = arguments(lr_scheduler="warmup_stable_decay", lr_decay_share=0.5, lr_schedule_steps=20)
        assert args.learning_rate_factor(15, 10) == 0.5


class TestLoss:
    def test_input_perturbation_and_weighting_change_the_loss_alone(self, finetune):
        _, plain = finetune("plain")
        _, debiased = finetune("debiased", loss_weighting="debiased")
        _, perturbed = finetune("perturbed", input_perturbation=0.1)
        losses = [[line["loss"] for line in lines] for lines in (plain, debiased, perturbed)]
        assert len({tuple(values) for values in losses}) == 3
        # The further noise is drawn after the timesteps, so the first batch differs by that noise alone.
        assert losses[2][0] == pytest.approx(losses[0][0], rel=0.1)


class TestTrackers:
    def test_several(self, finetune):
        folder, _ = finetune("one", report_to=["tensorboard"], max_train_steps=1)
        assert list((folder / "logs" / "finetune").glob("events*"))
        assert json.loads((folder / "summary.json").read_text())["settings"]["report_to"] == ["tensorboard"]

    def test_what_is_refused(self, finetune):
        with pytest.raises(ConfigError, match="report_to none stands alone; got none tensorboard"):
            finetune("bad", report_to=["none", "tensorboard"])
        with pytest.raises(MissingDependencyError, match="report_to wandb needs the package wandb: pip install wandb"):
            finetune("bad", report_to=["tensorboard", "wandb"])


def test_a_step_reads_no_value(model, images, tmp_path):
    """A step reads no tensor as a number, but for what is on the CPU anyway: data, and the optimizer's counters."""
    AcceleratorState._reset_state(reset_partial_state=True)
    given = {"dataset": str(images), "model": str(model), "output_dir": str(tmp_path), "train": "geoconv+lora"}
    more = {"use_ema": True, "snr_gamma": 5, "noise_offset": 0.1, "input_perturbation": 0.1, "random_flip": True}
    args = TextToImageArguments(**given, **more, train_batch_size=2, max_train_steps=4)
    run = build_run(TextToImage(args, Accelerator(cpu=True)))
    step = GradientStep(
        run.state, run.task.model, run.task.losses, partial(build_loader, run), lambda group, step: 0.1, 1.0
    )
    step(0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step(1)
        step(2)
    readers = [reader(event) for event in profiler.events() if event.name == READ]
    assert "optimizer" in readers
    assert [name for name in readers if name not in ("optimizer", "data")] == []


def reader(event) -> str:
    """What an operation belongs to, or the operations around it."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    known = {"Optimizer.": "optimizer", "enumerate(DataLoader)": "data"}
    return next((known[start] for start in known for name in names if name.startswith(start)), " < ".join(names))


@pytest.mark.slow
class TestCompile:
    @pytest.fixture(autouse=True)
    def _forget_graphs(self):
        yield
        torch._dynamo.reset()

    @pytest.mark.parametrize("precision", ["no", "bf16"])
    def test_losses_are_those_of_the_model_as_it_is(self, finetune, precision):
        options = {"train": "geoconv+lora", "max_train_steps": 3, "mixed_precision": precision, "learning_rate": 1e-2}
        options |= {"validation_split_share": 0.3, "validation_loss_steps": 1}
        _, expected = finetune("eager", **options)
        folder, lines = finetune("compiled", compile=True, **options)
        tolerance = 1e-4 if precision == "no" else 2e-2
        assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=tolerance)
        assert (folder / "best").is_dir()
