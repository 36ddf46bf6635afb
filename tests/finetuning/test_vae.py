"""`geopos train vae` on tiny autoencoders of several classes and drawn images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from autoencoder_cases import AUTOENCODER_CASES
from PIL import Image
from safetensors.torch import load_file
from tiny_models import tiny_stable_diffusion
from two_processes import PARALLEL, check_continued

from geopos_diffusers import geoconv_status, load_geoconv_weights, remove_geoconv
from geopos_diffusers.errors import ConfigError, DataError, GeoPosError
from geopos_diffusers.finetuning.autoencoders import Autoencoding, decode, encode, load_autoencoder
from geopos_diffusers.finetuning.trained_parts import add_trained_parts, load_trained_parts
from geopos_diffusers.finetuning.vae import Vae, main
from geopos_diffusers.finetuning.vae_arguments import VaeArguments

CASES = {case.model: case for case in AUTOENCODER_CASES}
CLASSES = (
    "AutoencoderKL",
    "AutoencoderTiny",
    "AutoencoderDC",
    "VQModel",
    "AutoencoderKLFlux2",
    "AutoencoderKLQwenImage",
)
SIZE, IMAGES = 16, 10
GAN = {"gan_weight": 0.1, "gan_channels": 8, "gan_layers": 2}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Ten smooth images of 24 x 20 pixels, half of them in a folder below, without metadata."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "more").mkdir()
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        small = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
        small.resize((24, 20), Image.Resampling.BICUBIC).save(folder / ("more" if index % 2 else ".") / f"{index}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """models(class) -> the folder of a tiny autoencoder."""
    root = tmp_path_factory.mktemp("models")

    def saved(name: str) -> Path:
        if not (root / name).is_dir():
            CASES[name].build().save_pretrained(root / name)
        return root / name

    return saved


@pytest.fixture
def train(tmp_path, images, models):
    """train(name, model=class, option=value, ...) -> (folder of the run, the lines of its losses.jsonl)."""

    def run(name: str, model: str | Path = "AutoencoderKL", **options) -> tuple[Path, list[dict]]:
        AcceleratorState._reset_state(reset_partial_state=True)
        options = {
            "model": models(model) if model in CASES else model,
            "dataset": images,
            "output_dir": tmp_path / name,
            "report_to": "none",
            "train_batch_size": 2,
            "max_train_steps": 2,
            "size": SIZE,
            "lpips_network": "none",
            "learning_rate": 1e-2,
            **options,
        }
        options = {key: value for key, value in options.items() if value is not None}
        main([word for key, value in options.items() for word in (f"--{key}", *map(str, np.atleast_1d(value)))])
        log = tmp_path / name / "losses.jsonl"
        return tmp_path / name, [json.loads(line) for line in log.read_text().splitlines()]

    return run


def arguments(**options) -> VaeArguments:
    return VaeArguments(**{"dataset": "d", "output_dir": "o", "max_train_steps": 1, **options})


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}:{key}": value for file in files for key, value in load_file(file).items()}


@torch.no_grad()
def reconstruct(vae) -> torch.Tensor:
    pixels = torch.linspace(-1, 1, 2 * 3 * SIZE * SIZE).view(2, 3, SIZE, SIZE)
    return decode(vae.eval(), encode(vae, pixels)[0])[0]


class TestParts:
    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            *(("AutoencoderKL", parts) for parts in ("bias", "full", "geoconv+lora", "geoconv+full")),
            *((name, "geoconv+lora") for name in CLASSES[1:4]),
            *((name, "geoconv") for name in CLASSES[4:]),
            ("AutoencoderDC", "full"),
        ],
    )
    def test_the_decoder_alone_is_trained_and_loads_again(self, train, models, name, parts):
        rank = {"lora_rank": 2} if "lora" in parts else {}
        folder, _ = train("run", name, train=parts, **rank)
        owner = load_autoencoder(str(models(name)))
        before = {key: value.clone() for key, value in owner.vae.state_dict().items()}
        base = reconstruct(owner.vae)
        parameters = add_trained_parts(owner, "vae", arguments(train=parts, **rank))
        assert parameters
        assert {key.partition(".")[0] for key in parameters} <= {"decoder", "post_quant_conv"}
        assert torch.equal(reconstruct(owner.vae), base)  # new parts change nothing yet
        weights = load_file(folder / "checkpoint-2" / "training_state" / "weights.safetensors")
        assert weights.keys() == parameters.keys()
        for key, parameter in parameters.items():
            parameter.data.copy_(weights[key])
        expected = reconstruct(owner.vae)
        assert (expected - base).abs().max() > 1e-4

        fresh = load_autoencoder(str(models(name)))
        load_trained_parts(fresh, folder / "final", component="vae")
        torch.testing.assert_close(reconstruct(fresh.vae), expected, rtol=1e-5, atol=1e-6)
        state = fresh.vae.state_dict()
        frozen = [key for key in before if key.partition(".")[0] not in ("decoder", "post_quant_conv")]
        assert frozen
        assert all(torch.equal(state[key], before[key]) for key in frozen)

    @pytest.mark.parametrize("name", CLASSES[:4])
    def test_training_lowers_the_loss(self, train, name):
        latent = "mode" if name == "AutoencoderKL" else None
        _, lines = train("run", name, train="full", max_train_steps=20, train_batch_size=5, latent=latent)
        values = [line["loss"] for line in lines]
        assert np.mean(values[-3:]) < 0.9 * np.mean(values[:3])

    def test_the_vae_of_a_pipeline(self, train, tmp_path):
        tiny_stable_diffusion().save_pretrained(tmp_path / "pipe")
        folder, _ = train("run", tmp_path / "pipe")
        pipe = tiny_stable_diffusion()
        base = reconstruct(pipe.vae)
        load_geoconv_weights(pipe, folder / "final")
        assert {name.partition(".")[0] for name in geoconv_status(pipe).patched} == {"vae"}
        assert (reconstruct(pipe.vae) - base).abs().max() > 1e-4
        remove_geoconv(pipe)
        assert torch.equal(reconstruct(pipe.vae), base)
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["pipeline"], summary["autoencoder"]) == ("StableDiffusionPipeline", "AutoencoderKL")

    def test_lora_is_on_the_layers_that_geometry_would_patch(self, models):
        names = {}
        for parts in ("geoconv", "lora"):
            owner = load_autoencoder(str(models("AutoencoderKL")))
            trained = add_trained_parts(owner, "vae", arguments(train=parts, exclude_modules=["conv_out"]))
            names[parts] = {name.removesuffix(".geo_weight").partition(".lora_")[0] for name in trained}
        assert names["geoconv"] == names["lora"]
        assert not any("conv_out" in name or name.startswith("encoder") for name in names["lora"])

    def test_the_whole_autoencoder(self, train, models):
        folder, lines = train("run", train="full", vae_part="whole", kl_weight=1e-3)
        before, after = (
            load_file(next(path.glob("*.safetensors"))) for path in (models("AutoencoderKL"), folder / "final" / "vae")
        )
        assert not torch.equal(before["encoder.conv_in.weight"], after["encoder.conv_in.weight"])
        for line in lines:
            assert line["loss"] == pytest.approx(line["reconstruction_loss"] + 1e-3 * line["kl_loss"], rel=1e-5)

    def test_the_codebook_is_trained_by_its_own_loss(self, train, models):
        for part, changes in (("whole", True), ("decoder", False)):
            folder, lines = train(part, "VQModel", train="full", vae_part=part)
            files = (next(path.glob("*.safetensors")) for path in (models("VQModel"), folder / "final" / "vae"))
            before, after = (load_file(file)["quantize.embedding.weight"] for file in files)
            assert torch.equal(before, after) is not changes
            assert all(("commitment_loss" in line) is changes for line in lines)


class TestLosses:
    def test_gradients_through_the_encoder_reach_the_decoder_alone(self, models):
        vae = load_autoencoder(str(models("AutoencoderKL"))).vae
        for name, parameter in vae.named_parameters():
            parameter.requires_grad_(name.startswith("decoder"))
        model = Autoencoding(vae, trains_encoder=False, sampled=False, encodes_again=True).train()
        assert vae.decoder.training
        assert not vae.encoder.training
        pixels = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
        found = model(pixels)
        again = vae.encode(found["images"]).latent_dist.mode() - vae.encode(pixels).latent_dist.mode()
        assert found["consistency"].item() == pytest.approx(again.square().mean().item(), rel=1e-5)
        found["consistency"].backward()
        assert vae.decoder.conv_in.weight.grad.abs().max() > 0
        assert vae.encoder.conv_in.weight.grad is None

    def test_latent_consistency_falls_where_it_counts(self, train):
        options = {
            "train": "full",
            "latent": "mode",
            "learning_rate": 3e-3,
            "max_train_steps": 20,
            "train_batch_size": 5,
        }
        _, lines = train("run", **options, latent_consistency_weight=10)
        values = [line["consistency_loss"] for line in lines]
        assert np.mean(values[-3:]) < 0.7 * np.mean(values[:3])

    def test_random_squares_are_cut_out_of_the_images(self, images, tmp_path, models):
        AcceleratorState._reset_state(reset_partial_state=True)
        from geopos_diffusers.training.tracking import build_accelerator

        args = arguments(
            model=str(models("AutoencoderKL")), dataset=str(images), output_dir=str(tmp_path), crop="random"
        )
        args.resolution, args.lpips_network = SIZE, "none"
        task = Vae(args, build_accelerator(str(tmp_path), None, 1, "none"))
        task.build()
        data = task.load_data()
        assert (data.resolution, data[0]["pixels"].shape[-1], len(data)) == (SIZE, 20, IMAGES)
        pixels = torch.stack([data[index]["pixels"] for index in range(IMAGES)])
        corners = set()
        for image, square in zip(pixels, task.squares(pixels), strict=True):
            places = image.unfold(1, SIZE, 1).unfold(2, SIZE, 1)  # [3, 5, 5, S, S]
            found = (places == square[:, None, None]).all(4).all(3).all(0).nonzero()
            corners.add(tuple(found[0].tolist()))
        assert len(corners) > 3


class TestResume:
    @pytest.mark.parametrize(
        "options",
        [
            {"train": "geoconv+lora", **GAN, "gan_start_step": 2},
            {"train": "full", "vae_part": "whole", "kl_weight": 1e-4},
        ],
    )
    def test_continues_bit_for_bit(self, train, tmp_path, images, options):
        options |= {
            "max_train_steps": 5,
            "checkpointing_steps": 3,
            "gradient_accumulation_steps": 2,
            "use_ema": True,
            "crop": "random",
            "random_flip": True,
            "lr_scheduler": "cosine",
        }
        whole, expected = train("whole", **options)
        shutil.copytree(whole, tmp_path / "cut")
        shutil.rmtree(tmp_path / "cut" / "checkpoint-5")
        torch.rand(3)  # a continued run must not depend on the state it starts in
        # Scores leave no trace in the training.
        cut, lines = train("cut", **options, validation_dataset=images, validation_steps=1)
        assert lines == expected
        before, after = tensors(whole / "checkpoint-5"), tensors(cut / "checkpoint-5")
        assert before.keys() == after.keys()
        assert [name for name in before if not torch.equal(before[name], after[name])] == []
        assert any("discriminator." in name for name in before) is ("gan_weight" in options)

    @pytest.mark.parametrize("options", [{"mixed_precision": "bf16"}, {"gradient_checkpointing": True}])
    def test_other_ways_to_compute_give_nearly_the_same(self, train, options):
        _, expected = train("plain", **GAN, train="geoconv+lora")
        _, lines = train("other", **GAN, train="geoconv+lora", **options)
        for line, plain in zip(lines, expected, strict=True):
            assert line["reconstruction_loss"] == pytest.approx(plain["reconstruction_loss"], rel=0.02)
            assert line["discriminator_loss"] == pytest.approx(plain["discriminator_loss"], rel=0.02)

    @pytest.mark.slow
    def test_two_processes(self, models, images, tmp_path):
        options = {"model": models("AutoencoderKL"), "dataset": images, "size": SIZE, "crop": "random"}
        options |= {"gan_weight": 0.1, "gan_channels": 8, "gan_layers": 2, "gan_start_step": 1}
        options |= {"lpips_network": "none", "validation_dataset": images}
        check_continued("vae", tmp_path, PARALLEL, **options)


class TestDiscriminator:
    def test_it_counts_from_its_first_step_on(self, train):
        _, without = train("without", max_train_steps=3)
        folder, lines = train("with", max_train_steps=3, **GAN, gan_start_step=1)
        assert lines[0] == without[0]
        assert lines[2]["loss"] != without[2]["loss"]
        assert "discriminator_loss" not in lines[0]
        for line in lines[1:]:
            assert line["loss"] == pytest.approx(line["reconstruction_loss"] + 0.1 * line["generator_loss"], abs=1e-6)
            assert line["learning_rate_discriminator"] == 2e-4
        assert not list((folder / "final").glob("*discriminator*"))

    def test_it_learns_to_tell_the_reconstructions(self, train):
        options = {**GAN, "gan_weight": 1e-6, "learning_rate": 1e-6, "gan_learning_rate": 3e-3, "train_batch_size": 5}
        _, lines = train("run", max_train_steps=25, **options)
        values = [line["discriminator_loss"] for line in lines]
        assert values[0] == pytest.approx(1, abs=0.3)
        assert np.mean(values[-5:]) < 0.6


class TestValidation:
    def test_scores_beside_the_untouched_autoencoder(self, train, images):
        folder, _ = train("run", validation_dataset=images, validation_images=6, validation_steps=1, train="full")
        scores = json.loads((folder / "summary.json").read_text())["scores"]
        assert (scores["images"], scores["size"], scores["ring_pixels"], scores["lpips_name"]) == (6, SIZE, 1, None)
        for region in ("image", "ring", "centre"):
            values = scores["psnr"][region]
            difference = values["difference"]
            assert values["trained"] - values["untouched"] == pytest.approx(difference["value"], abs=1e-6)
            assert difference["low"] <= difference["value"] <= difference["high"]
        names = sorted(path.name for path in folder.glob("validation-*.png"))
        assert names == ["validation-000000.png", "validation-000001.png", "validation-000002.png"]

    def test_a_continued_run_compares_with_the_untouched_one(self, train, images):
        options = {"validation_dataset": images, "max_train_steps": 3, "checkpointing_steps": 2, "use_ema": True}
        folder, _ = train("run", **options)
        expected = json.loads((folder / "summary.json").read_text())["scores"]
        shutil.rmtree(folder / "checkpoint-3")
        for _ in range(2):  # goes on, and then is finished already
            train("run", **options)
            assert json.loads((folder / "summary.json").read_text())["scores"] == expected


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"kl_weight": 1e-6}, "which vae_part=decoder leaves as it is"),
            ({"latent_consistency_weight": 1, "vae_part": "whole"}, "needs an encoder that stays as it is"),
            ({"lpips_weight": 1, "lpips_network": "none"}, "needs an lpips_network"),
            ({"scaled_size": 20}, "option of crop=random"),
            ({"gan_start_step": 5}, "gan_start_step is an option of gan_weight"),
            ({"gan_weight": 1, "gan_channels": 12}, "multiple of 8; got 12"),
            ({"train": "lora+full"}, "add nothing to a model that is trained whole"),
            ({"components": ["unet"]}, "trains the vae only"),
            ({"reconstruction_loss": "l3"}, "reconstruction_loss must be one of l1, l2"),
        ],
    )
    def test_options_that_cannot_go_together(self, options, message):
        with pytest.raises(ConfigError, match=message):
            arguments(**options)

    @pytest.mark.parametrize(
        ("model", "options", "message"),
        [
            ("AutoencoderTiny", {"vae_part": "whole", "kl_weight": 1}, "kl_weight needs a distribution of latents"),
            ("VQModel", {"latent": "sample"}, "latent sample needs a distribution"),
            ("AutoencoderKL", {"size": 17}, "makes 3 x 16 x 16 of 3 x 17 x 17; give another size"),
            ("AutoencoderKL", {"crop": "random", "scaled_size": 8}, "scaled_size must be at least size, 16; got 8"),
            ("AutoencoderKL", {**GAN, "gan_layers": 3}, "needs images of 24 pixels a side"),
            ("AutoencoderKL", {"train": "lora", "lora_target_modules": ["to_x"]}, "names no layer of what vae_part"),
            ("AutoencoderDC", {"gradient_checkpointing": True}, "has no gradient checkpointing"),
            ("AutoencoderTiny", {"size": None}, "names no size of images; give size"),
        ],
    )
    def test_what_an_autoencoder_cannot_do(self, train, model, options, message):
        with pytest.raises(ConfigError, match=message):
            train("run", model, **{"train": "geoconv", **options})

    def test_models_and_data_that_are_none(self, train, tmp_path):
        pipe = tiny_stable_diffusion()
        pipe.unet.save_pretrained(tmp_path / "unet")
        with pytest.raises(GeoPosError, match="holds no autoencoder: its config names the class UNet2DConditionModel"):
            train("run", tmp_path / "unet")
        with pytest.raises(GeoPosError, match="cannot load an autoencoder"):
            train("run", tmp_path / "nothing")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="holds no images"):
            train("run", dataset=tmp_path / "empty")

    def test_an_autoencoder_of_other_parts(self):
        from geopos_diffusers.finetuning.autoencoders import check_parts_of

        with pytest.raises(ConfigError, match="ConsistencyDecoderVAE cannot be trained here: its parts are"):
            check_parts_of(CASES["ConsistencyDecoderVAE"].build())
