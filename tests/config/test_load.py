"""What a config leaves to the user is asked for by name."""

from __future__ import annotations

import sys

import pytest

from detrex.config import find_config_file, load_config, load_sections

PATHS = [
    f"dataloader.{split}.dataset.{key}=x"
    for split in ("train", "test")
    for key in ("json_file", "image_root")
]


def test_values_that_are_not_given():
    with pytest.raises(ValueError, match=r"model\.num_classes=\.\.\.$"):
        load_config("quickstart/own_data.py", PATHS)
    with pytest.raises(ValueError) as e:
        load_config("quickstart/own_data.py", ["model.num_classes=3", *PATHS[1:]])
    assert str(e.value).endswith("key=value: dataloader.train.dataset.json_file=...")
    config = load_config("quickstart/own_data.py", ["model.num_classes=3", *PATHS])
    assert config.model.transformer.decoder.predictor.class_embed.num_classes == 3


def test_evaluation_needs_no_training_data():
    overrides = ["model.num_classes=3", *PATHS[2:]]
    assert load_config("quickstart/own_data.py", overrides, eval_only=True).model.num_classes == 3


@pytest.mark.parametrize(
    "tag", ["object/apply:os.mkdir", "object/new:os.mkdir", "module:antigravity"]
)
def test_a_yaml_file_that_would_run_code_is_refused(tmp_path, tag):
    config, made = tmp_path / "config.yaml", tmp_path / "made"
    config.write_text(f"train: !!python/{tag} ['{made}']\n")
    with pytest.raises(ValueError, match=rf"config\.yaml asks to run code \(python/{tag}"):
        load_config(str(config), [])
    assert not made.exists()


def test_a_yaml_file_that_names_what_is_not_imported_is_refused(tmp_path, monkeypatch):
    """Reading the name would import, and so run, the module."""
    (tmp_path / "never_imported.py").write_text("raise SystemExit('run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("train: !!python/name:never_imported.x\n")
    with pytest.raises(ValueError, match=r"asks to run code \(python/name:never_imported\.x"):
        find_config_file(str(config))
    config.write_text("train: !!python/name:torch.nn.Linear\n")
    assert find_config_file(str(config)) == str(config)


def test_other_yaml_files_are_let_through(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("model: {_target_: torch.nn.Linear, size: !!python/tuple [1, 2]}\n")
    assert find_config_file(str(config)) == str(config)
    config.write_text("model: {\n")
    with pytest.raises(ValueError, match=r"config\.yaml is not valid yaml"):
        find_config_file(str(config))


@pytest.mark.parametrize("path", ["x.pth", "detectron2://ImageNetPretrained/x.pkl", ""])
def test_hints_of_older_configs_behind_a_checkpoint_are_left_out(path):
    hint = "?matching_heuristics=True" if path else ""
    overrides = [*PATHS, "model.num_classes=3", f"train.init_checkpoint='{path}{hint}'"]
    assert load_config("quickstart/own_data.py", overrides).train.init_checkpoint == path


def test_a_checkpoint_whose_name_has_a_question_mark(tmp_path):
    path = tmp_path / "what?.pth"
    path.touch()
    overrides = [*PATHS, "model.num_classes=3", f"train.init_checkpoint='{path}'"]
    assert load_config("quickstart/own_data.py", overrides).train.init_checkpoint == str(path)


def test_a_config_with_some_sections(tmp_path):
    config = tmp_path / "part.py"
    config.write_text(
        "model = {'size': '???', 'width': 2}\ndataloader = {'train': {'path': '???'}}\n"
    )
    cfg = load_sections(str(config), ["model.size=1"], ["model"], "a model")
    assert cfg.model.size == 1 and cfg.train.max_iter == 90000
    with pytest.raises(ValueError, match=r"key=value: model\.size=\.\.\.$"):
        load_sections(str(config), [], ["model"], "a model")
    with pytest.raises(ValueError, match=r"dataloader\.train\.path=\.\.\. model\.size=\.\.\.$"):
        load_sections(str(config), [], ["model", "dataloader.train"], "a model")
    with pytest.raises(KeyError, match=r"does not describe a step: it has no optimizer \(it needs"):
        load_sections(str(config), [], ["model", "optimizer"], "a step")


def test_projects_are_importable_from_anywhere(tmp_path, monkeypatch):
    """As the public detrex's are from the root of its repository."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    folder = tmp_path / "repository/projects/sailing/configs"
    folder.mkdir(parents=True)
    (folder.parent / "hull.py").write_text("class Hull: pass")
    (folder / "boat.py").write_text(
        "from projects.sailing.hull import Hull\nmodel = {'hull': Hull}"
    )
    monkeypatch.chdir(tmp_path)
    cfg = load_sections(str(folder / "boat.py"), [], ["model"], "a boat")
    assert cfg.model.hull.__name__ == "Hull"
    assert sys.path[-2:] == [str(tmp_path), str(tmp_path / "repository")]
    load_sections(str(folder / "boat.py"), [], ["model"], "a boat")
    assert sys.path.count(str(tmp_path)) == 1
