"""The arms: who is told where the hand goes, how, and what is trained."""

from dataclasses import dataclass

from geopos_diffusers.finetuning.text_to_image import TextToImage

from .box_conditions import BoxChannel, BoxCondition, BoxTokens, ChannelTraining, TokenTraining

FULL_RATE = 3e-4


@dataclass(frozen=True)
class Arm:
    """options: of `geopos train text-to-image`, with `{rate}` where the swept rate stands. rates: where a sweep begins.

    framed: whether images are generated in frames. placed_text: whether captions say the place. condition: how else
    the UNet is told of the box; task: what trains it then.
    """

    options: str
    rates: tuple[float, ...]
    framed: bool = False
    placed_text: bool = False
    condition: type[BoxCondition] | None = None
    task: type[TextToImage] = TextToImage


FRAMES = "--frame-column box --shift-range 0"
WHOLE = (1e-4, 3e-4, 1e-3)
COEFFICIENTS = (3e-2, 1e-1, 3e-1)
LORA = "--lora-rank 8 --lora-learning-rate 1e-2"
BESIDE = f"--learning-rate {FULL_RATE:g} --geoconv-learning-rate {{rate}}"
ARMS = {
    "frames, whole": Arm(f"--train geoconv+full {FRAMES} {BESIDE}", COEFFICIENTS, framed=True),
    "image coordinates, whole": Arm(f"--train geoconv+full --shift-range 0 {BESIDE}", COEFFICIENTS),
    "no control": Arm("--train full --learning-rate {rate}", WHOLE),
    "place words, whole": Arm("--train full --learning-rate {rate}", WHOLE, placed_text=True),
    "box channel, whole": Arm("--train full --learning-rate {rate}", WHOLE, condition=BoxChannel, task=ChannelTraining),
    "box tokens, whole": Arm("--train full --learning-rate {rate}", WHOLE, condition=BoxTokens, task=TokenTraining),
    "place words, LoRA": Arm(
        "--train lora --lora-rank 8 --lora-learning-rate {rate}", (3e-3, 1e-2, 3e-2), placed_text=True
    ),
    "frames, LoRA": Arm(
        f"--train geoconv+lora {FRAMES} {LORA} --geoconv-learning-rate {{rate}}", COEFFICIENTS, framed=True
    ),
    "frames alone": Arm(f"--train geoconv {FRAMES} --geoconv-learning-rate {{rate}}", (1e-1, 3e-1, 1.0), framed=True),
    "frames, taps, whole": Arm(f"--train geoconv+full --basis taps {FRAMES} {BESIDE}", COEFFICIENTS, framed=True),
    "frames, CoordConv, whole": Arm(
        f"--train geoconv+full --encoding cartesian {FRAMES} {BESIDE}", COEFFICIENTS, framed=True
    ),
}
