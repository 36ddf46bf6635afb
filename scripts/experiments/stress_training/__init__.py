"""Trainings that are killed and disturbed; `scripts/stress_training.py` runs them."""
