"""Command line overrides."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError


def takes_anything(a, **kwargs):
    return a, kwargs


def make_cfg():
    return DictConfig(
        {
            "train": {
                "max_iter": 10,
                "init_checkpoint": "",
                "seed": None,
                "amp": {"enabled": False},
            },
            "model": L(torch.nn.Linear)(in_features=2, out_features="${..train.max_iter}"),
            "any": L(takes_anything)(a=1, number=2),
            "named": L("torch.nn.Conv2d")(in_channels=1, out_channels=1, kernel_size=1),
            "augs": [{"p": 0.5}, {"p": 1.0}],
            "live": torch.nn.Linear(1, 1),
            "missing": "???",
        },
        flags={"allow_objects": True},
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("abc", "abc"),
        ("", ""),
        ("'x y'", "x y"),
        ("x y", "x y"),
        ("[1,2]", [1, 2]),
        ("{x:1}", {"x": 1}),
        ("/a/b=c.pth", "/a/b=c.pth"),
        ("http://host/x?y=1&z=2", "http://host/x?y=1&z=2"),
        ("detectron2://a/R-50.pkl", "detectron2://a/R-50.pkl"),
        ("~/x", "~/x"),
        ("été", "été"),
        ("${model.in_features}", 2),
    ],
)
def test_values(text, value):
    cfg = LazyConfig.apply_overrides(make_cfg(), [f"train.seed={text}"])
    assert cfg.train.seed == value
    assert type(cfg.train.seed) is type(value) or isinstance(value, list | dict)


def test_in_place_and_in_order():
    cfg = make_cfg()
    assert LazyConfig.apply_overrides(cfg, ["train.max_iter=3", "train.max_iter=4"]) is cfg
    assert cfg.train.max_iter == 4
    assert cfg.model.out_features == 4


def test_override_replaces_an_interpolation():
    cfg = LazyConfig.apply_overrides(make_cfg(), ["model.out_features=7"])
    assert (cfg.model.out_features, cfg.train.max_iter) == (7, 10)


def test_list_elements():
    cfg = LazyConfig.apply_overrides(
        make_cfg(), ["augs.1.p=0.25", "augs.0={q: 1, p: 2}".replace("q", "p")]
    )
    assert OmegaConf.to_container(cfg.augs) == [{"p": 2}, {"p": 0.25}]
    with pytest.raises(ConfigKeyError, match=r"augs.2"):
        LazyConfig.apply_overrides(make_cfg(), ["augs.2.p=1"])


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("train.max_itre=3", "train.max_iter"),
        ("max_iter=3", "train.max_iter"),
        ("seed=3", "train.seed"),
        ("trian.max_iter=3", "train.max_iter"),
        ("train.amp.enable=true", "train.amp.enabled"),
        ("model.in_feature=1", "model.in_features"),
        ("model.bais=true", "model.bias"),
        ("named.strid=2", "named.stride"),
        ("train={max_itr: 3}", "train.max_iter"),
        ("~train.amb", "train.amp"),
    ],
)
def test_unknown_keys_are_errors_with_a_suggestion(override, suggestion):
    with pytest.raises(ConfigKeyError, match=rf"Did you mean {suggestion}") as info:
        LazyConfig.apply_overrides(make_cfg(), [override])
    assert isinstance(info.value, KeyError)
    assert ("write +" in str(info.value)) == (not override.startswith("~"))


def test_unknown_key_without_neighbours():
    with pytest.raises(ConfigKeyError, match=r"The key zzz .* To add a new key write \+zzz=1."):
        LazyConfig.apply_overrides(make_cfg(), ["zzz=1"])


@pytest.mark.parametrize("target", ["model", "named"])
def test_arguments_of_the_target_need_no_plus(target):
    cfg = LazyConfig.apply_overrides(make_cfg(), [f"{target}.bias=false"])
    assert cfg[target].bias is False


def test_any_argument_is_one_of_a_target_with_kwargs():
    cfg = LazyConfig.apply_overrides(make_cfg(), ["any.new=3", "+any.numbers=4"])
    assert (cfg.any.new, cfg.any.numbers) == (3, 4)
    # A name so like a known one is rather a mistake.
    with pytest.raises(ConfigKeyError, match=r"Did you mean any\.number\?.* write \+any\.numbr=3"):
        LazyConfig.apply_overrides(make_cfg(), ["any.numbr=3"])


def test_plus_adds():
    cfg = LazyConfig.apply_overrides(make_cfg(), ["+new.deep.key=1", "++train.x={y: 2}", "+top=3"])
    assert cfg.new.deep.key == 1
    assert cfg.train.x.y == 2
    assert cfg.top == 3


def test_tilde_removes():
    cfg = LazyConfig.apply_overrides(make_cfg(), ["~train.amp", "~model.out_features", "~augs.0"])
    assert set(cfg.train) == {"max_iter", "init_checkpoint", "seed"}
    assert "out_features" not in cfg.model
    assert cfg.augs == [{"p": 1.0}]
    with pytest.raises(ValueError, match=r"train\.max_iter is 10"):
        LazyConfig.apply_overrides(make_cfg(), ["~train.max_iter=11"])


def test_dictionaries_merge():
    cfg = LazyConfig.apply_overrides(make_cfg(), ["train={max_iter: 1, amp: {enabled: true}}"])
    assert cfg.train.max_iter == 1
    assert cfg.train.amp.enabled is True
    assert cfg.train.init_checkpoint == ""


def test_new_target_brings_its_arguments():
    cfg = LazyConfig.apply_overrides(
        make_cfg(),
        ["named={kernel_size: 3, output_padding: 1, _target_: torch.nn.ConvTranspose2d}"],
    )
    assert cfg.named._target_ == "torch.nn.ConvTranspose2d"
    assert cfg.named.output_padding == 1


def test_scalar_cannot_replace_a_dictionary():
    with pytest.raises(ValueError, match=r"train, which has the keys max_iter, init_checkpoint"):
        LazyConfig.apply_overrides(make_cfg(), ["train=3"])
    cfg = LazyConfig.apply_overrides(make_cfg(), ["train.amp=null"])
    assert cfg.train.amp is None
    # Once it is null there is nothing to lose.
    assert LazyConfig.apply_overrides(cfg, ["train.amp={enabled: 1}"]).train.amp.enabled == 1


def test_value_has_no_keys():
    with pytest.raises(KeyError, match=r"train.max_iter is not a config with keys"):
        LazyConfig.apply_overrides(make_cfg(), ["train.max_iter.x=3"])


def test_missing_values_can_be_given():
    assert LazyConfig.apply_overrides(make_cfg(), ["missing=3"]).missing == 3


@pytest.mark.parametrize(
    "override", ["novalue", "=3", "a=[1,", "a=(1,2)", "a==1", "train.seed=1,2", "a@b=1"]
)
def test_malformed_overrides(override):
    with pytest.raises(ValueError, match="override"):
        LazyConfig.apply_overrides(make_cfg(), [override])


@pytest.mark.parametrize(
    "bad", ["train.max_itre=1", "train=1", "a=[1,", "~nope", "train={max_iter: 5, nope: 1}"]
)
def test_a_failed_override_changes_nothing(bad):
    cfg = make_cfg()
    live = cfg.live
    before = str(cfg)
    with pytest.raises((KeyError, ValueError)):
        LazyConfig.apply_overrides(cfg, ["train.max_iter=77", "~augs.0", "+x.y=1", bad])
    assert str(cfg) == before
    assert cfg.live is live


def test_objects_that_cannot_be_copied_are_no_obstacle():
    class Uncopyable:
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies")

    cfg = make_cfg()
    cfg.live = Uncopyable()
    assert LazyConfig.apply_overrides(cfg, ["train.max_iter=1"]).train.max_iter == 1


def test_structs_can_be_extended_when_asked_to():
    cfg = make_cfg()
    OmegaConf.set_struct(cfg, True)
    LazyConfig.apply_overrides(cfg, ["+train.new.x=1", "model.bias=false", "~any"])
    assert (cfg.train.new.x, cfg.model.bias) == (1, False)
    assert "any" not in cfg
