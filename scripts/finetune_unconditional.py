"""Fine-tune or train a diffusion model of pixels, as `geopos train unconditional` does.

accelerate launch scripts/finetune_unconditional.py --config configs/finetune_unconditional_hands.yaml \
    --dataset D --output O
"""

from geopos_diffusers.finetuning.unconditional import main
from geopos_diffusers.training.processes import run_script

if __name__ == "__main__":
    run_script(main)
