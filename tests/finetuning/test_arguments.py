import json

import pytest

from geopos_diffusers.errors import ConfigError
from geopos_diffusers.finetuning.kinds import ARGUMENTS, DEFAULT, arguments_class
from geopos_diffusers.finetuning.part_options import LEARNING_RATES
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments
from geopos_diffusers.training.arguments import fixed_settings, parse_arguments

GIVEN = {"dataset": "d", "output_dir": "o", "max_train_steps": 1}


def parse(tmp_path, text: str, *words: str) -> TextToImageArguments:
    (tmp_path / "c.yaml").write_text(text)
    return parse_arguments(TextToImageArguments, ["--config", str(tmp_path / "c.yaml"), *words])


def test_the_command_line_wins_over_the_file(tmp_path):
    text = "dataset: d\noutput_dir: o\nmax_train_steps: 5\nlearning_rate: 1e-3\nuse_ema: true\n"
    args = parse(tmp_path, text + "validation_prompts: a hand", "--max_train_steps", "7", "--use-ema", "false")
    assert (args.max_train_steps, args.learning_rate, args.use_ema) == (7, 1e-3, False)
    assert args.validation_prompts == ["a hand"]


def test_all_shipped_configs_are_valid():
    from pathlib import Path

    for config in sorted((Path(__file__).parents[2] / "configs").glob("finetune_*.yaml")):
        kind = next((kind for kind in ARGUMENTS if config.stem.startswith(f"finetune_{kind}")), DEFAULT)
        words = ["--config", str(config), "--dataset", "d", "--output_dir", "o"]
        words += ["--model", "m"] if kind == "unconditional" else []  # which has no default
        args = parse_arguments(arguments_class(kind), words)
        assert all(0 < args.peak_learning_rate(part) < 1 for part in args.rated_parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_train_steps: 1.5", "max_train_steps must be a whole number >= 1; got 1.5"),
        ("max_train_steps: true", "max_train_steps must be a whole number >= 1; got True"),
        ("learning_rate: [1]", r"learning_rate must be a number > 0; got \[1\]"),
        ("learning_rate: .nan", "learning_rate must be a number > 0; got nan"),
        ("use_ema: 3", "use_ema must be true or false; got 3"),
        ("validation_prompts: [1, 2]", "validation_prompts must be a list of texts"),
        ("validation_prompts: []", "validation_prompts must be a list of texts"),
        ("dataset: 5", "dataset must be a list of texts that are not empty; got 5"),
        ("dataset: ''", "dataset must be a list of texts that are not empty; got ''"),
        ("resolution: 0", "size must be a whole number >= 1; got 0"),
        ("mixed_precision: fp8", "mixed_precision must be one of no, fp16, bf16; got 'fp8'"),
        ("train: [lora]", r"train must be a text; got \['lora'\]"),
        ("train: geoconv+geoconv", r"joined by \+; got 'geoconv\+geoconv'"),
        ("train: geoconv+bias", "hold each layer's bias as their constant term"),
        ("train: bias+full", "holds its biases"),
        ("train: lora+full", "add nothing to a model that is trained whole"),
        ("lora_learning_rate: 0.1", "lora_learning_rate is given, but train=geoconv trains no lora"),
        ("bias_learning_rate: 0", "bias_learning_rate must be a number > 0; got 0"),
        ("basis: polynomial", "basis must be one of multilinear, taps; got 'polynomial'"),
        ("latents_folder: x", "give cache_latents too"),
        ("components: [unet, vae]", "trains the unet or transformer only"),
        ("target_modules: '('", "not a valid regular expression"),
        ("class_prompt: a hand", "class_prompt is an option of with_prior_preservation; give that too"),
        ("with_prior_preservation: true", "needs class_dataset or class_prompt, and not both"),
        ("with_prior_preservation: true\nclass_dataset: d\nnum_class_images: 3", "num_class_images is how many are"),
        ("logit_mean: 1\ntimestep_weighting: cosmap", "logit_mean is a number of timestep_weighting logit_normal"),
        ("mode_scale: 1", "mode_scale is a number of timestep_weighting mode"),
        ("train_text_encoder: true\ncache_text_embeddings: true", "encodes captions at each step"),
        ("train_text_encoder: true\ncompile: true", "compile cannot go with train_text_encoder"),
        ("text_encoder_lora_rank: 4", "text_encoder_lora_rank is an option of train_text_encoder; give that too"),
        ("mask_floor: 0.5", "mask_floor is an option of mask_column; give that too"),
        ("mask_weight: 2", "mask_weight is an option of mask_column; give that too"),
        ("inpaint_masks: column\nmask_column: m\nmask_floor: 0", "mask_floor is an option of inpaint_masks random"),
        ("crop_margin: 1", "crop_margin is an option of crop_to; give that too"),
        ("crop_box_format: xyxy", "crop_box_format is an option of crop_to; give that too"),
        ("shuffle_buffer: 10", "shuffle_buffer is an option of streaming; give that too"),
        ("lora_rank: 16", "lora_rank is an option of train=lora; give that too"),
        ("lora_alpha: 4", "lora_alpha is an option of train=lora; give that too"),
        ("lora_target_modules: [to_q]", "lora_target_modules is an option of train=lora; give that too"),
        ("train_text_encoder: true\nlora_alpha: 4", "lora_alpha is an option of train=lora; give that too"),
        ("max_train_steps: null", "give max_train_steps or num_train_epochs"),
        ("seed: 4294967296", "seed must be a whole number between 0 and 2147483647; got 4294967296"),
        ("caption_dropout: 1.5", "caption_dropout must be a number between 0 and 1; got 1.5"),
        ("validation_promts: x", "unknown option 'validation_promts'; did you mean validation_prompts?"),
        ("max_train_sample: 1", "unknown option 'max_train_sample'; did you mean max_images?"),
        ("output-dir: p", "output is given twice"),
    ],
)
def test_bad_values_in_a_file(tmp_path, text, message):
    known = {name: f"{name}: {value}" for name, value in GIVEN.items()}
    known[text.partition(":")[0]] = text
    with pytest.raises(ConfigError, match=message):
        parse(tmp_path, "\n".join(known.values()))


def test_options_beside_what_they_are_of():
    options = {"crop_to": "box", "crop_margin": 1.0, "mask_column": "m", "mask_floor": 0.5, "train": "lora"}
    args = TextToImageArguments(**GIVEN, **options, lora_rank=16, lora_target_modules=["to_q"])
    assert (args.crop_margin, args.mask_floor, args.lora_rank) == (1.0, 0.5, 16)
    # The factors of text encoders have this rank by default.
    assert TextToImageArguments(**GIVEN, train_text_encoder=True, lora_rank=16).lora_rank == 16


def test_a_bare_no_of_yaml_is_the_choice_no(tmp_path):
    text = "dataset: d\noutput_dir: o\nmax_train_steps: 5\n"
    assert parse(tmp_path, text + "mixed_precision: no").mixed_precision == "no"
    assert parse(tmp_path, text + "use_ema: no").use_ema is False
    with pytest.raises(ConfigError, match="mixed_precision must be one of no, fp16, bf16; got True"):
        parse(tmp_path, text + "mixed_precision: yes")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["conv1", "conv2"], ("conv1", "conv2")),
        (["conv1"], ("conv1",)),
        (["down_blocks.0.resnets.0.conv1"], ("down_blocks.0.resnets.0.conv1",)),
        ([r"up_blocks\..*conv\d"], r"up_blocks\..*conv\d"),
        (r"up_blocks\..*", r"up_blocks\..*"),
    ],
)
def test_target_modules(given, read):
    assert TextToImageArguments(**GIVEN, target_modules=given).geoconv_config().target_modules == read


def test_settings_of_a_run_are_json():
    args = TextToImageArguments(**GIVEN, validation_prompts=["x"])
    settings = fixed_settings(args)
    assert json.loads(json.dumps(settings)) == settings
    assert {"train", "seed", "shift_range", "resolution", "model"} <= set(settings)
    free = {"dataset", "output_dir", "max_train_steps", "learning_rate", "overwrite", "num_workers", "train_batch_size"}
    assert not set(settings) & free


def test_bias_has_no_coordinates():
    assert TextToImageArguments(**GIVEN, train="bias").geoconv_config().encoding == "constant"
    for options in ({"encoding": "squares"}, {"basis": "taps"}):
        with pytest.raises(ConfigError, match="options of geoconv; train=bias has no coordinates"):
            TextToImageArguments(**GIVEN, train="bias", **options)


def test_a_basis_that_the_encoding_lacks():
    with pytest.raises(ConfigError, match="encoding 'squares' has no multilinear basis"):
        TextToImageArguments(**GIVEN, encoding="squares", basis="multilinear")


def test_each_part_has_its_own_rate_else_that_of_all_else_its_default():
    args = TextToImageArguments(**GIVEN, train="lora+geoconv", geoconv_learning_rate=0.2)
    assert (args.peak_learning_rate("geoconv"), args.peak_learning_rate("lora")) == (0.2, LEARNING_RATES["lora"])
    args = TextToImageArguments(**GIVEN, train="lora+bias", learning_rate=0.5, lora_learning_rate=0.1)
    assert (args.peak_learning_rate("bias"), args.peak_learning_rate("lora")) == (0.5, 0.1)
    args = TextToImageArguments(**GIVEN, basis="taps")
    assert args.peak_learning_rate("geoconv") == LEARNING_RATES["taps"]
