from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version() -> str:
    """``__version__`` as the package states it, read without importing anything."""
    for line in (HERE / "detectron2" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("detectron2/__init__.py states no __version__.")


setup(
    name="detectron2",
    version=version(),
    description="The part of detectron2's API that LazyConfig projects use, in pure Python",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["detectron2", "detectron2.*"]),
    package_data={"detectron2.model_zoo": ["configs/**/*.py"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.16",
        "numpy>=1.23",
        "Pillow>=9.4",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "omegaconf>=2.3",
        "hydra-core>=1.3",
        "PyYAML>=6.0",
        "cloudpickle>=2.2",
        "pycocotools>=2.0.6",
        "faster-coco-eval>=1.6.5",
        "tensorboard>=2.12",
        "tabulate>=0.9",
        "termcolor>=2.0",
        "contourpy>=1.0.1",
        "matplotlib>=3.7",
    ],
)
