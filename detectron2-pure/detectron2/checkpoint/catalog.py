"""Paths of the form ``catalog://ImageNetPretrained/MSRA/R-50``."""

from __future__ import annotations

from typing import Any, ClassVar

from detectron2.utils.file_io import PathHandler, PathManager


class ModelCatalog:
    """Addresses of the ImageNet backbones that configs name without an address."""

    S3_C2_DETECTRON_PREFIX = "https://dl.fbaipublicfiles.com/detectron"
    C2_IMAGENET_MODELS: ClassVar[dict[str, str]] = {
        "MSRA/R-50": "ImageNetPretrained/MSRA/R-50.pkl",
        "MSRA/R-101": "ImageNetPretrained/MSRA/R-101.pkl",
        "FAIR/R-50-GN": "ImageNetPretrained/47261647/R-50-GN.pkl",
        "FAIR/R-101-GN": "ImageNetPretrained/47592356/R-101-GN.pkl",
        "FAIR/X-101-32x8d": "ImageNetPretrained/20171220/X-101-32x8d.pkl",
        "FAIR/X-101-64x4d": "ImageNetPretrained/FBResNeXt/X-101-64x4d.pkl",
        "FAIR/X-152-32x8d-IN5k": "ImageNetPretrained/25093814/X-152-32x8d-IN5k.pkl",
    }

    @classmethod
    def get(cls, name: str) -> str:
        """URL of ``ImageNetPretrained/<name>``; RuntimeError if it is not in the catalog."""
        prefix, _, short_name = name.partition("/")
        if prefix != "ImageNetPretrained" or short_name not in cls.C2_IMAGENET_MODELS:
            known = ", ".join(f"ImageNetPretrained/{m}" for m in cls.C2_IMAGENET_MODELS)
            raise RuntimeError(f"model not present in the catalog: {name}; it has {known}.")
        return f"{cls.S3_C2_DETECTRON_PREFIX}/{cls.C2_IMAGENET_MODELS[short_name]}"


class ModelCatalogHandler(PathHandler):
    """Resolves ``catalog://`` through :class:`ModelCatalog`."""

    PREFIX = "catalog://"

    def _get_supported_prefixes(self) -> list[str]:
        return [self.PREFIX]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        url = ModelCatalog.get(path.removeprefix(self.PREFIX))
        return PathManager.get_local_path(url, **kwargs)

    def _open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        return PathManager.open(self._get_local_path(path), mode, **kwargs)


PathManager.register_handler(ModelCatalogHandler())
