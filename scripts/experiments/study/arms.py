"""The arms of the study: what is trained. Each has its own learning rate, by a sweep on validation images."""

from ..arms import Arm

GEOMETRY = (3e-2, 1e-1, 3e-1)
BIAS = (1e-1, 3e-1, 1.0)
LORA = (3e-3, 1e-2, 3e-2)
WHOLE = (3e-4, 1e-3, 3e-3)
LORA_4, WHOLE_UNET = "LoRA r=4", "whole UNet"
BESIDE_LORA = (LORA_4, "lora_learning_rate")
BESIDE_WHOLE = (WHOLE_UNET, "learning_rate")

# LoRA r=2 has 18,304 weights beside 14,240 of the geometry and 3,560 biases.
ARMS = {
    "bias": Arm("--train bias", BIAS),
    "geometry": Arm("--train geoconv --shift_range 0", GEOMETRY),
    "LoRA r=2": Arm("--train lora --lora_rank 2", LORA),
    LORA_4: Arm("--train lora --lora_rank 4", LORA),
    "LoRA r=4 + bias": Arm("--train lora+bias --lora_rank 4", BIAS, "bias_learning_rate", *BESIDE_LORA),
    "LoRA r=4 + geometry": Arm(
        "--train lora+geoconv --lora_rank 4 --shift_range 0", GEOMETRY, "geoconv_learning_rate", *BESIDE_LORA
    ),
    WHOLE_UNET: Arm("--train full", WHOLE),
    "whole UNet + geometry": Arm(
        "--train full+geoconv --shift_range 0", GEOMETRY, "geoconv_learning_rate", *BESIDE_WHOLE
    ),
    "geometry, shift 0.25": Arm("--train geoconv --shift_range 0.25", GEOMETRY),
    "geometry, shift 1": Arm("--train geoconv --shift_range 1", GEOMETRY),
    "taps": Arm("--train geoconv --basis taps --shift_range 0", (1e-1, 3e-1, 1.0)),
    "CoordConv terms": Arm("--train geoconv --encoding cartesian --shift_range 0", GEOMETRY),
    "geometry, 1x1 too": Arm("--train geoconv --shift_range 0 --target_modules .*", GEOMETRY),
    "geometry, encoder": Arm(r"--train geoconv --shift_range 0 --target_modules down_blocks\..*conv\d?$", GEOMETRY),
    "geometry, middle": Arm(r"--train geoconv --shift_range 0 --target_modules mid_block\..*conv\d?$", GEOMETRY),
    "geometry, decoder": Arm(r"--train geoconv --shift_range 0 --target_modules up_blocks\..*conv\d?$", GEOMETRY),
}
# What the pilots (`trained_parts`, `text_to_image_photographs`) call arms of other names.
PILOT_NAMES = {
    "LoRA r=2": "LoRA attention r=2",
    LORA_4: "LoRA attention r=4",
    "LoRA r=4 + bias": "LoRA attention r=4 + bias",
    "LoRA r=4 + geometry": "LoRA attention r=4 + geometry",
}
# What the primary analysis compares, whatever else is run: geometry beside the cheapest control that could explain it,
# alone, under LoRA and under the whole UNet.
PRIMARY = (
    ("geometry", "bias"),
    ("geometry", "LoRA r=2"),
    ("LoRA r=4 + geometry", "LoRA r=4 + bias"),
    ("whole UNet + geometry", WHOLE_UNET),
)
