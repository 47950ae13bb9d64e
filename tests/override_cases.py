"""Overrides of a config that have to work, and keys that don't exist.

detrex is strict on whichever detectron2 it has, as the full one is not; detectron2-pure is strict
by itself, for those who use it without detrex. Both are tested with this one table.
"""

from __future__ import annotations

from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf


def takes_anything(**kwargs):
    return kwargs


def takes_two(first, second=2):
    return first, second


def make_cfg() -> DictConfig:
    return OmegaConf.create(
        {
            "train": {"max_iter": 90, "amp": {"enabled": False}, "output_dir": "./output"},
            "model": L(takes_two)(first=[{"a": 1}, {"a": 2}]),
            "open": L(takes_anything)(),
            "by_name": {"_target_": "torch.optim.AdamW", "lr": 1e-4},
            "later": "???",
            "same": "${train.max_iter}",
        },
        flags={"allow_objects": True},
    )


GOOD = [  # override, key, value
    ("train.max_iter=10", "train.max_iter", 10),
    ("train.amp.enabled=true", "train.amp.enabled", True),
    ("model.first.1.a=5", "model.first.1.a", 5),
    ("model.first[1].a=5", "model.first.1.a", 5),
    ("model.first[0]=null", "model.first.0", None),
    ("+model.first={a: 3}", "model.first", [{"a": 1}, {"a": 2}, {"a": 3}]),
    ("+model.first=[{a: 3},4]", "model.first", [{"a": 1}, {"a": 2}, {"a": 3}, 4]),
    ("+model.first[2]=3", "model.first.2", 3),
    ("model.second=7", "model.second", 7),
    ("open.whatever=7", "open.whatever", 7),
    ("by_name.betas=[0.9,0.99]", "by_name.betas", [0.9, 0.99]),
    ("+train.note=hello", "train.note", "hello"),
    ("later=3", "later", 3),
    ("same=4", "same", 4),
    ("train.output_dir=/a/b=c", "train.output_dir", "/a/b=c"),
    ("train.output_dir=it's=c", "train.output_dir", "it's=c"),
    ("train.output_dir='a b=c'", "train.output_dir", "a b=c"),
    ("train.output_dir=", "train.output_dir", ""),
    ("~train.max_iter", "train.max_iter", None),
    ("~model.first.0", "model.first", [{"a": 2}]),
    ("~model.first[1]", "model.first", [{"a": 1}]),
]

UNKNOWN = [  # override, a key that the message has to name
    ("train.max_itre=10", "train.max_iter"),
    ("train.amp.enable=true", "train.amp.enabled"),
    ("max_iter=10", "train.max_iter"),
    ("model.frist=1", "model.first"),
    ("by_name.larning_rate=1", "by_name.lr"),
    ("train.max_iter.value=1", "train.max_iter"),
    ("model.first.2.a=1", "model.first"),
    ("model.first[2].a=1", "model.first"),
    ("+model.first[3]=1", "model.first"),
    ("~train.max_itre", "train.max_iter"),
    ("~model.second", "model.first"),
]
