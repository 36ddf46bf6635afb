"""Train a ControlNet, as `geopos train controlnet` does.

accelerate launch scripts/finetune_controlnet.py --config configs/finetune_controlnet_hands.yaml --dataset D --output O
"""

from geopos_diffusers.finetuning.controlnet import main
from geopos_diffusers.training.processes import run_script

if __name__ == "__main__":
    run_script(main)
