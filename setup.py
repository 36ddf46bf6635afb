"""What pyproject.toml cannot say: configs/ is installed inside the package, as geopos_diffusers.configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["geopos_diffusers*"]), "geopos_diffusers.configs"],
    package_dir={"geopos_diffusers.configs": "configs"},
)
