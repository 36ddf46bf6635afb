"""Repairing the hands of images: finding them, inpainting them in variants, keeping the best by the judge."""
