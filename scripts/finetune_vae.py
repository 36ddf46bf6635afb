"""Fine-tune an autoencoder of images, as `geopos train vae` does.

accelerate launch scripts/finetune_vae.py --config configs/finetune_vae.yaml --dataset D --output O
"""

from geopos_diffusers.finetuning.vae import main
from geopos_diffusers.training.processes import run_script

if __name__ == "__main__":
    run_script(main)
