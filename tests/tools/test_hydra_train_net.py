"""What hydra composes and what becomes of it: a training here, or a job for Slurm."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tools import hydra_train_net as tool

ARGUMENTS = ["num_gpus=8", "config_file=projects/detr/configs/detr_r50_300ep.py"]


@pytest.fixture
def trained(monkeypatch) -> list[list[str]]:
    """The command lines that ``tools/train_net.py`` would get."""
    calls: list[list[str]] = []
    monkeypatch.setattr(tool, "train", calls.append)
    return calls


@pytest.fixture
def slurm(monkeypatch) -> ModuleType:
    """As much of submitit as is used; keeps what it is given."""
    submitit = ModuleType("submitit")
    submitit.made, submitit.jobs = [], []

    class AutoExecutor:
        def __init__(self, **arguments: object) -> None:
            submitit.made.append(arguments)

        def update_parameters(self, **parameters: object) -> None:
            submitit.made.append(parameters)

        def submit(self, job: tool.Job) -> SimpleNamespace:
            submitit.jobs.append(job)
            return SimpleNamespace(job_id="123456")

    submitit.AutoExecutor = AutoExecutor
    submitit.helpers = SimpleNamespace(DelayedSubmission=lambda job: ("again", job))
    monkeypatch.setitem(sys.modules, "submitit", submitit)
    return submitit


def on_machine(submitit: ModuleType, node: int, nodes: int) -> None:
    hosts = [f"host{i}" for i in range(nodes)]
    submitit.JobEnvironment = lambda: SimpleNamespace(
        node=node, num_nodes=nodes, job_id="123456", hostnames=hosts
    )


def test_it_trains_here_with_the_changes_that_begin_with_plus(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tool.main([*ARGUMENTS, "+model.num_queries=50", "++train.note='a b'", "opts=['train.seed=1']"])
    (arguments,) = trained
    assert arguments[:6] == [
        "--config-file",
        ARGUMENTS[1][12:],
        *("--num-gpus", "8"),
        *("--num-machines", "1"),
    ]
    output, *changes = arguments[6:-4]
    folder = output.removeprefix("train.output_dir='").removesuffix("'")
    assert folder.startswith(f"{tmp_path}/outputs/") and "+model.num_queries.50" in folder
    assert changes == ["train.seed=1", "model.num_queries=50", "+train.note='a b'"]
    assert arguments[-4:] == ["--machine-rank", "0", "--dist-url", "auto"]


def test_paths_among_the_arguments_make_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["+train.init_checkpoint=/a/b.pth", f"+train.note={'x' * 300}"]
    cfg, _ = tool.composed(tool.parser().parse_args(given))
    folder = Path(cfg.hydra.run.dir)
    assert folder.parent.parent == tmp_path / "outputs"
    assert folder.parent.name.startswith("+train.init_checkpoint._a_b.pth-+train.note.xxx")
    folder.mkdir(parents=True)  # it is not too long
    cfg, _ = tool.composed(tool.parser().parse_args([]))
    assert Path(cfg.hydra.run.dir).parent == tmp_path / "outputs" / "default"


def test_all_arguments_of_train_net(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.py").touch()
    own = ["pycfg_dir=.", "pycfg_file=config.py", "resume=true", "eval_only=true"]
    processes = ["num_machines=2", "machine_rank=1", "dist_url=tcp://h:1"]
    tool.main([*own, *processes, "auto_output_dir=false"])
    assert trained == [
        ["--resume", "--config-file", str(tmp_path / "config.py"), "--num-gpus", "1"]
        + ["--num-machines", "2", "--eval-only", "--machine-rank", "1", "--dist-url", "tcp://h:1"]
    ]


def test_a_training_runs_with_what_was_composed(tmp_path, monkeypatch):
    """Up to the point where the config turns out to be none: overrides are read and applied."""
    monkeypatch.chdir(tmp_path)
    arguments = ["config_file=common/train.py", "+train.max_iter=1"]
    with pytest.raises(SystemExit, match=r"common/train\.py does not describe a training"):
        tool.main(arguments)


def test_a_job_for_slurm(slurm, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = ["+slurm=research", "slurm.partition=mine", "slurm.quotatype=spot", "slurm.timeout=2"]
    tool.main([*ARGUMENTS, "num_machines=2", "+model.num_queries=50", *job])
    assert not trained
    made, parameters = slurm.made
    assert made["cluster"] == "slurm" and Path(made["folder"]).is_relative_to(tmp_path / "outputs")
    assert parameters == {
        "name": "detrex",
        "nodes": 2,
        "tasks_per_node": 1,
        "gpus_per_node": 8,
        "cpus_per_task": 40,
        "timeout_min": 120,
        "slurm_partition": "mine",
        "slurm_additional_parameters": {"quotatype": "spot"},
    }
    (job,) = slurm.jobs
    on_machine(slurm, node=1, nodes=2)
    job()
    assert "model.num_queries=50" in trained[0] and not any("slurm" in a for a in trained[0][7:-4])
    port = 10000 + 123456 % 20000
    assert trained[0][-4:] == ["--machine-rank", "1", "--dist-url", f"tcp://host0:{port}"]
    again, resumed = job.checkpoint()
    assert again == "again"
    resumed()
    assert trained[1] == ["--resume", *trained[0]]


def test_how_processes_of_a_job_meet(slurm, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [*ARGUMENTS, "+slurm=research", "num_machines=2"]
    tool.main([*arguments, "slurm.master_port=4321", "slurm.job_dir=logs"])
    assert slurm.made[0]["folder"] == str(tmp_path / "logs")
    tool.main([*arguments, "slurm.ddp_comm_mode=file", f"slurm.share_root={tmp_path}"])
    on_machine(slurm, node=0, nodes=2)
    for job in slurm.jobs:
        job()
    assert trained[0][-1] == "tcp://host0:4321"
    assert trained[1][-1].startswith(f"file://{tmp_path}/meeting_")
    on_machine(slurm, node=0, nodes=1)
    slurm.jobs[1]()
    assert trained[2][-1] == "auto"


def test_a_dry_run_prints_the_command(trained, slurm, capsys):
    tool.main([*ARGUMENTS, "+model.num_queries=50", "+slurm=research", "--dry-run"])
    assert not trained and not slurm.jobs
    out = capsys.readouterr().out
    assert (
        out.startswith("tools/train_net.py --config-file projects/detr/configs/") and "=50" in out
    )


def test_yaml_files_are_data(tmp_path, trained, capsys):
    """Neither tags nor targets, hydra's callbacks among them, are called."""
    trace = tmp_path / "trace"
    target = f"{{_target_: pathlib.Path.touch, self: {trace}}}"
    own = (tool.FOLDER / "train_args.yaml").read_text()
    (tmp_path / "evil.yaml").write_text(
        own.replace("hydra:\n", f"hydra:\n  callbacks:\n    a: {target}\n")
    )
    options = ["--config-dir", str(tmp_path), "--config-name", "evil"]
    tool.main([*options, "auto_output_dir=false"])
    assert len(trained) == 1 and not trace.exists()
    (tmp_path / "evil.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{trace}']\n{own}")
    with pytest.raises(SystemExit) as end:
        tool.main(options)
    assert end.value.code == 2 and not trace.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["num_gpu=8"], "Could not override 'num_gpu'."),
        (["+slurm=nope"], "Could not find 'slurm/nope' Available options in 'slurm': research."),
        (["num_gpus=["], "num_gpus=[ cannot be read"),
        (["--config-dir", "nowhere"], "--config-dir nowhere does not exist."),
        (["+slurm=research", "slurm.ddp_comm_mode=mail"], "it is tcp or file."),
        (["+slurm=research", "slurm.ddp_comm_mode=file"], "slurm.share_root="),
    ],
)
def test_what_is_wrong_is_one_sentence(slurm, capsys, arguments, message):
    with pytest.raises(SystemExit) as end:
        tool.main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_without_submitit_or_slurm(monkeypatch, slurm, capsys):
    def executor(**_: object) -> None:
        raise RuntimeError('Could not detect "srun"')

    monkeypatch.setattr(slurm, "AutoExecutor", executor)
    with pytest.raises(SystemExit):
        tool.main(["+slurm=research"])
    assert 'can\'t be submitted here: Could not detect "srun"' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SystemExit):
        tool.main(["+slurm=research"])
    assert "needs submitit: pip install submitit." in capsys.readouterr().err
