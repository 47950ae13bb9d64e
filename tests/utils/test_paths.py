from __future__ import annotations

from detrex.utils.paths import unused_path


def test_a_file_that_is_there_keeps_its_name(tmp_path):
    path = tmp_path / "a.b.png"
    assert unused_path(path) == path
    path.touch()
    assert unused_path(path) == tmp_path / "a.b_2.png"
    (tmp_path / "a.b_2.png").symlink_to(tmp_path / "nowhere")
    assert unused_path(path) == tmp_path / "a.b_3.png"
