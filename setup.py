"""What pyproject.toml cannot say: scripts/ is installed inside the package, as geopos_diffusers.scripts."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["geopos_diffusers*"]), "geopos_diffusers.scripts"],
    package_dir={"geopos_diffusers.scripts": "scripts"},
)
