"""The checkpointer of training scripts."""

from __future__ import annotations

import logging
import os
from typing import Any
from urllib.parse import parse_qs

import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.checkpoint.state_dict_file import load_checkpoint_file
from detectron2.utils import comm
from detectron2.utils.atomic_write import atomic_open
from detectron2.utils.file_io import PathManager
from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import _IncompatibleKeys as IncompatibleKeys
from torch import nn

_PREPROCESSING_BUFFERS = ("pixel_mean", "pixel_std")


class DetectionCheckpointer(Checkpointer):
    """Saves and loads a model with its training state.

    Over :class:`fvcore.common.checkpoint.Checkpointer` it

    - reads every format of :func:`~detectron2.checkpoint.load_checkpoint_file`, without running
      code from the file;
    - matches names by their ends, if the file says so (``matching_heuristics``) or the path ends in
      ``?matching_heuristics=True``: :func:`~detectron2.checkpoint.align_and_update_state_dicts`;
    - saves on the main process only, and never leaves a half-written file;
    - refuses a file of which nothing fits the model.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """
        Args:
            model: the model, in a (distributed) data parallel wrapper or not.
            save_dir: the folder of the checkpoints.
            save_to_disk: whether this process writes; by default if it is the main one.
            checkpointables: further objects with ``state_dict`` and ``load_state_dict``, for
                example ``optimizer=optimizer``.
        """
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.logger = logging.getLogger(__name__)
        self.path_manager = PathManager
        self._match_by_suffix = False

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a checkpoint into the model and the checkpointables.

        Args:
            path: a file, URL or catalog path; may end in ``?matching_heuristics=True``. Nothing is
                loaded if it is empty.
            checkpointables: names of the checkpointables to load; by default all.

        Returns:
            what the file holds beyond that, for example ``{"iteration": 99}``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file is damaged or does not fit the model, or the query is unknown.
        """
        if not path:
            return super().load(path, checkpointables)
        path, self._match_by_suffix = self._split_query(path)
        local_path = self.path_manager.get_local_path(path)
        if not os.path.isfile(local_path):
            raise FileNotFoundError(self._not_found_message(path))
        return super().load(local_path, checkpointables)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Continue from the last checkpoint of ``save_dir``, or load a model to start from.

        Args:
            path: where the model comes from if there is nothing to resume.
            resume: whether to look for a last checkpoint, and to load all checkpointables with it.

        Raises:
            FileNotFoundError: only some processes see the last checkpoint.
        """
        if resume:
            self._require_same_view()
        return super().resume_or_load(path, resume=resume)

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` and note it as the last checkpoint.

        Args:
            name: file name without folder and extension.
            kwargs: further data for the file.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        if os.path.basename(name) != name:
            raise ValueError(f"The name of a checkpoint cannot contain a folder: {name!r}.")
        data = {"model": self.model.state_dict()}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info(f"Saving checkpoint to {path}")
        with atomic_open(path, "wb") as f:
            torch.save(data, f)
        self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note a file of ``save_dir`` as the one to resume from."""
        with atomic_open(os.path.join(self.save_dir, "last_checkpoint"), "w") as f:
            f.write(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = load_checkpoint_file(filename)
        if self._match_by_suffix:
            checkpoint["matching_heuristics"] = True
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> IncompatibleKeys:
        weights = dict(checkpoint["model"])
        self._convert_ndarray_to_tensor(weights)
        model_state = self.model.state_dict()
        if checkpoint.get("matching_heuristics", False):
            is_c2 = checkpoint.get("__author__") == "Caffe2"
            weights = align_and_update_state_dicts(model_state, weights, c2_conversion=is_c2)
        checkpoint["model"] = dict(weights)
        incompatible = super()._load_model(checkpoint)
        num_loaded = len(model_state) - len(incompatible.missing_keys)
        if weights and model_state and num_loaded == 0:
            raise ValueError(_nothing_fits_message(model_state, weights, incompatible))
        for key in _PREPROCESSING_BUFFERS:
            if key in incompatible.missing_keys:
                incompatible.missing_keys.remove(key)
        return incompatible

    @staticmethod
    def _split_query(path: str) -> tuple[str, bool]:
        """Path without query, and whether the query asks for matching by suffix."""
        base, mark, query = path.partition("?")
        if not mark or os.path.isfile(path):
            return path, False
        options = parse_qs(query, keep_blank_values=True)
        value = options.pop("matching_heuristics", ["False"])
        if options or value not in (["True"], ["False"]):
            raise ValueError(
                f"Unsupported query {query!r} in {path}; only ?matching_heuristics=True is known."
            )
        return base, value == ["True"]

    def _not_found_message(self, path: str) -> str:
        message = f"Checkpoint {path} not found."
        folder = os.path.dirname(path)
        if self.save_dir and os.path.normpath(folder) == os.path.normpath(self.save_dir):
            files = sorted(map(os.path.basename, self.get_all_checkpoint_files()))
            message += f" {self.save_dir} has {', '.join(files) if files else 'no checkpoints'};"
            message += " the file last_checkpoint there says which one is resumed."
        return message

    def get_all_checkpoint_files(self) -> list[str]:
        """All ``.pth`` files of ``save_dir``; none if the folder does not exist."""
        return super().get_all_checkpoint_files() if os.path.isdir(self.save_dir) else []

    def _require_same_view(self) -> None:
        if comm.get_world_size() == 1:
            return
        seen = comm.all_gather(self.has_checkpoint())
        if any(seen) and not all(seen):
            blind = [rank for rank, has in enumerate(seen) if not has]
            raise FileNotFoundError(
                f"Cannot resume: processes {blind} do not see {self.save_dir}/last_checkpoint; "
                "put the folder on a shared file system or copy it to every machine."
            )


def _nothing_fits_message(
    model_state: dict[str, Any], weights: dict[str, Any], incompatible: IncompatibleKeys
) -> str:
    if incompatible.incorrect_shapes:
        name, found, wanted = incompatible.incorrect_shapes[0]
        return (
            f"None of the checkpoint's {len(weights)} tensors fits the model: {name}, for "
            f"example, is {found} in the file and {wanted} in the model."
        )
    theirs, ours = (", ".join(list(state)[:3]) for state in (weights, model_state))
    return (
        f"None of the checkpoint's {len(weights)} tensors fits the model: the file has names like "
        f"{theirs}, the model like {ours}. If they differ by a prefix only, append "
        "'?matching_heuristics=True' to the path."
    )
