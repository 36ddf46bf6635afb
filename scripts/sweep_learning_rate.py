"""Fine-tune at several learning rates and compare losses on held-out images.

python scripts/sweep_learning_rate.py --validation-dataset validation --rates 1e-2 3e-2 1e-1 --output runs/s \
    --config configs/finetune_hands.yaml --dataset hands --train geoconv
"""

from geopos_diffusers.finetuning.learning_rate_sweep import main
from geopos_diffusers.training.processes import run_script

if __name__ == "__main__":
    run_script(main)
