"""The arms: who is told where the hand goes, how, and what is trained."""

from dataclasses import dataclass, replace
from typing import Any

from geopos_diffusers.finetuning.text_to_image import TextToImage

from .box_conditions import BoxChannel, BoxCondition, BoxTokens, ChannelTraining, TokenTraining


@dataclass(frozen=True)
class Arm:
    """options: of `geopos train text-to-image`, with `{rate}` where the swept rate stands. rates: where a sweep begins.

    beside: another arm, whose rate stands for `{beside}`. framed: whether images are generated in frames. placed_text:
    whether captions say the place. condition: how else the UNet is told of the box; task: what trains it then.
    guided: whether guidance strengthens the box. guidance_scale: of the drawing; None for what the model recommends.
    weights_of: the arm that was trained, where this one only draws.
    """

    options: str
    rates: tuple[float, ...]
    beside: str | None = None
    framed: bool = False
    placed_text: bool = False
    condition: type[BoxCondition] | None = None
    task: type[TextToImage] = TextToImage
    guided: bool = False
    guidance_scale: float | None = None
    weights_of: str | None = None

    @property
    def told(self) -> bool:
        """Whether it knows where the hand is to be."""
        return self.framed or self.placed_text or self.condition is not None


FRAMES = "--frame-column box --shift-range 0"
WHOLE = (1e-4, 3e-4, 1e-3)
LORA = (3e-3, 1e-2, 3e-2)
COEFFICIENTS = (3e-2, 1e-1, 3e-1)
IN_CHANNEL: dict[str, Any] = {"condition": BoxChannel, "task": ChannelTraining}
BESIDE_WHOLE = "--learning-rate {beside} --geoconv-learning-rate {rate}"
BESIDE_LORA = "--lora-rank 8 --lora-learning-rate {beside} --geoconv-learning-rate {rate}"
ARMS = {
    "frames, whole": Arm(f"--train geoconv+full {FRAMES} {BESIDE_WHOLE}", COEFFICIENTS, "no control", framed=True),
    "image coordinates, whole": Arm(f"--train geoconv+full --shift-range 0 {BESIDE_WHOLE}", COEFFICIENTS, "no control"),
    "no control": Arm("--train full --learning-rate {rate}", WHOLE),
    "place words, whole": Arm("--train full --learning-rate {rate}", WHOLE, placed_text=True),
    "box channel, whole": Arm("--train full --learning-rate {rate}", WHOLE, **IN_CHANNEL),
    "box tokens, whole": Arm("--train full --learning-rate {rate}", WHOLE, condition=BoxTokens, task=TokenTraining),
    "place words, LoRA": Arm("--train lora --lora-rank 8 --lora-learning-rate {rate}", LORA, placed_text=True),
    "no control, LoRA": Arm("--train lora --lora-rank 8 --lora-learning-rate {rate}", LORA),
    "frames, LoRA": Arm(f"--train geoconv+lora {FRAMES} {BESIDE_LORA}", COEFFICIENTS, "no control, LoRA", framed=True),
    "frames alone": Arm(f"--train geoconv {FRAMES} --geoconv-learning-rate {{rate}}", (1e-1, 3e-1, 1.0), framed=True),
    "frames, taps, whole": Arm(
        f"--train geoconv+full --basis taps {FRAMES} {BESIDE_WHOLE}", COEFFICIENTS, "no control", framed=True
    ),
    "frames, CoordConv, whole": Arm(
        f"--train geoconv+full --encoding cartesian {FRAMES} {BESIDE_WHOLE}", COEFFICIENTS, "no control", framed=True
    ),
}
TRAINED = tuple(ARMS)
LIMITED = "frames, whole, limited"
ARMS[LIMITED] = Arm(
    f"--train geoconv+full {FRAMES} --frame-limit 1 {BESIDE_WHOLE}", COEFFICIENTS, "no control", framed=True
)
WINDOWED = "frames, whole, windowed"
ARMS[WINDOWED] = Arm(
    f"--train geoconv+full {FRAMES} --frame-window {BESIDE_WHOLE}", (1e-2, 3e-2, 1e-1), "no control", framed=True
)
ALONE = "frames alone, windowed"
ARMS[ALONE] = Arm(
    f"--train geoconv {FRAMES} --frame-window --geoconv-learning-rate {{rate}}", (3e-2, 1e-1, 3e-1), framed=True
)
BOX_RATES = (3e-3, 1e-2, 3e-2)
OWN_RATE = "box channel at its own rate, whole"
ARMS[OWN_RATE] = Arm(
    "--train full --learning-rate {beside} --box-learning-rate {rate}", BOX_RATES, "no control", **IN_CHANNEL
)
# Controls of frames alone: a box channel beside the biases, which geometry contains, and beside LoRA of its size.
SMALL_PARTS = {
    "biases": ("--train bias --bias-learning-rate {}", (3e-1, 1.0, 3.0)),
    "LoRA r=2": ("--train lora --lora-rank 2 --lora-learning-rate {}", LORA),
}
for part, (options, rates) in SMALL_PARTS.items():
    ARMS[f"no control, {part}"] = Arm(options.format("{rate}"), rates)
    ARMS[f"box channel, {part}"] = Arm(
        f"{options.format('{beside}')} --box-learning-rate {{rate}}", BOX_RATES, f"no control, {part}", **IN_CHANNEL
    )
GUIDED = "{}, guided"  # an arm's weights, drawn with guidance that strengthens the box
ARMS |= {
    GUIDED.format(name): replace(ARMS[name], guided=True, weights_of=name)
    for name in ("frames, whole", LIMITED, WINDOWED, "frames alone", ALONE, "box channel, whole", OWN_RATE)
}
STRONG = f"{GUIDED.format('frames, whole')}, scale 4"
ARMS[STRONG] = replace(ARMS[GUIDED.format("frames, whole")], guidance_scale=4.0)
