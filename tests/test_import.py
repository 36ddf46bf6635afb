import subprocess
import sys

HEAVY = ("torch._dynamo", "diffusers", "transformers", "accelerate", "peft", "datasets", "matplotlib", "mediapipe")


def test_importing_the_package_imports_nothing_heavy_beside_torch():
    """All public names, in a fresh process: what takes time is left to those who use it."""
    code = f"""
import sys, torch
before = set(sys.modules)
import geopos_diffusers
for name in geopos_diffusers.__all__:
    getattr(geopos_diffusers, name)
print(sorted(set({HEAVY!r}) & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
