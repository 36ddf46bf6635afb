"""Fine-tune a text-to-image pipeline, as `geopos train` does.

accelerate launch scripts/finetune_text_to_image.py --config configs/finetune_hands.yaml --dataset D --output O
"""

from geopos_diffusers.finetuning.text_to_image import main
from geopos_diffusers.training.processes import run_script

if __name__ == "__main__":
    run_script(main)
