"""Whole output files or none, and the first look at input files."""

import os
import stat
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError

from moss_audio_tokenizer.errors import AudioFileError, CodesFileError
from moss_audio_tokenizer.files import (
    PartOfFile,
    atomic_path,
    is_machine_failure,
    printable_path,
    require_file,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write_folder(folder: Path, *, of: str) -> None:
    folder.mkdir()
    (folder / "inner").mkdir()
    (folder / "inner" / of).write_text(of)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_new_file_appears_when_it_is_complete(tmp_path):
    with atomic_path(tmp_path / "new") as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert not (tmp_path / "new").exists()
    assert (tmp_path / "new").read_text() == "new"
    assert names(tmp_path) == ["new"]


def test_old_file_is_there_until_the_new_one_is(tmp_path):
    (tmp_path / "file").write_text("old")
    with atomic_path(str(tmp_path / "file")) as temporary:
        temporary.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("problem", [RuntimeError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_errors_leave_the_old_target_and_no_temporary(tmp_path, kind, problem):
    write_folder(tmp_path / "folder", of="old")
    (tmp_path / "file").write_text("old")

    def write_half(temporary):
        write_folder(temporary, of="new") if kind == "folder" else temporary.write_text("new")
        raise problem

    with pytest.raises(problem), atomic_path(tmp_path / kind) as temporary:
        write_half(temporary)
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path / "folder" / "inner") == ["old"]
    assert names(tmp_path) == ["file", "folder"]


def test_block_that_writes_nothing_is_an_error(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "old"


def test_new_folder_appears_with_all_that_is_in_it(tmp_path):
    with atomic_path(tmp_path / "folder") as temporary:
        write_folder(temporary, of="new")
    assert names(tmp_path / "folder" / "inner") == ["new"]
    assert names(tmp_path) == ["folder"]


def test_full_folder_is_replaced_as_a_whole(tmp_path):
    write_folder(tmp_path / "folder", of="old")
    with atomic_path(tmp_path / "folder") as temporary:
        write_folder(temporary, of="new")
    assert names(tmp_path / "folder" / "inner") == ["new"]
    assert names(tmp_path) == ["folder"]


def test_full_folder_can_be_protected(tmp_path):
    write_folder(tmp_path / "full", of="old")
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(FileExistsError, match="not empty"),
        atomic_path(tmp_path / "full", replace_folder=False) as temporary,
    ):
        write_folder(temporary, of="new")
    assert names(tmp_path / "full" / "inner") == ["old"]
    with atomic_path(tmp_path / "empty", replace_folder=False) as temporary:
        write_folder(temporary, of="new")
    assert names(tmp_path) == ["empty", "full"]


def test_old_folder_comes_back_when_the_new_one_cannot_be_moved(tmp_path, monkeypatch):
    write_folder(tmp_path / "folder", of="old")
    replace = Path.replace

    def fail_to_bring_in_the_new(self, target):
        if (self / "inner" / "new").exists():
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_to_bring_in_the_new)
    with (
        pytest.raises(OSError, match="No space left"),
        atomic_path(tmp_path / "folder") as temporary,
    ):
        write_folder(temporary, of="new")
    assert names(tmp_path / "folder" / "inner") == ["old"]
    assert names(tmp_path) == ["folder"]


def test_file_and_folder_do_not_replace_each_other(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotADirectoryError), atomic_path(tmp_path / "file") as temporary:
        temporary.mkdir()
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "folder") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["file", "folder"]


def test_links_stay_links(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to("there/file")
    (tmp_path / "dangling").symlink_to("there/new")
    (tmp_path / "folder").symlink_to("there", target_is_directory=True)
    for target in ("link", "dangling", "folder/third"):
        with atomic_path(tmp_path / target) as temporary:
            assert temporary.resolve().parent == tmp_path / "there"
            temporary.write_text(target)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "link"
    assert names(tmp_path / "there") == ["file", "new", "third"]


def test_link_to_a_folder_stays_while_the_folder_is_replaced(tmp_path):
    write_folder(tmp_path / "there", of="old")
    (tmp_path / "link").symlink_to("there", target_is_directory=True)
    with atomic_path(tmp_path / "link") as temporary:
        write_folder(temporary, of="new")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "there" / "inner") == ["new"]


def test_circle_of_links_is_an_oserror(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic links"), atomic_path(tmp_path / "circle"):
        pytest.fail("there is no place to write to")


def test_missing_parent_is_a_plain_oserror(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="make that first"),
        atomic_path(tmp_path / "none" / "a"),
    ):
        pytest.fail("there is no place to write to")


def test_new_ones_get_the_permissions_of_the_umask(tmp_path, umask):
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
    with atomic_path(tmp_path / "folder") as temporary:
        write_folder(temporary, of="new")
    assert mode_of(tmp_path / "file") == 0o640
    assert mode_of(tmp_path / "folder") == 0o750


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_replaced_file_keeps_its_permissions(tmp_path, umask, mode):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(mode)
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert mode_of(tmp_path / "file") == mode


@pytest.mark.skipif(os.getuid() == 0, reason="root may write to read-only files")
def test_read_only_file_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o400)
    with pytest.raises(PermissionError), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "old"


def test_name_as_long_as_names_can_be(tmp_path):
    with atomic_path(tmp_path / ("a" * 255)) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["a" * 255]


def test_errors_of_the_system_become_the_wanted_error(tmp_path):
    with (
        pytest.raises(AudioFileError, match=r"cannot write '.*none/a': its folder"),
        atomic_path(tmp_path / "none" / "a", error=AudioFileError),
    ):
        pytest.fail("there is no place to write to")
    with (
        pytest.raises(AudioFileError, match=r"cannot write .a.*null character"),
        atomic_path("a\0b", error=AudioFileError),
    ):
        pytest.fail("there is no place to write to")


def test_a_full_disk_that_safetensors_reports_is_an_error_of_the_system(tmp_path):
    message = "Error while serializing: I/O error: No space left on device (os error 28)"
    with (
        pytest.raises(AudioFileError, match=r"cannot write '.*a': No space left") as caught,
        atomic_path(tmp_path / "a", error=AudioFileError),
    ):
        raise SafetensorError(message)
    assert is_machine_failure(caught.value)
    with pytest.raises(SafetensorError), atomic_path(tmp_path / "a", error=AudioFileError):
        raise SafetensorError("the tensors share memory")
    assert names(tmp_path) == []


def test_our_own_errors_pass_as_they_are(tmp_path):
    with (
        pytest.raises(CodesFileError, match=r"^mine$"),
        atomic_path(tmp_path / "a", error=AudioFileError),
    ):
        raise CodesFileError("mine")


def test_pipe_gets_the_bytes_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with atomic_path(tmp_path / "pipe") as temporary:
            temporary.write_bytes(b"new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert names(tmp_path) == ["pipe"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_null_device_swallows_the_bytes():
    with atomic_path(os.devnull) as temporary:
        temporary.write_bytes(b"new")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_size_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert require_file(tmp_path / "file", error=CodesFileError) == 3


def test_what_is_no_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "no\nne", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "empty", "is empty"),
        (tmp_path / "pipe", "is a pipe or device"),
        (tmp_path / "empty" / "a", "Not a directory"),
        ("a\0b", "null"),
    ):
        with pytest.raises(CodesFileError, match=reason) as caught:
            require_file(path, error=CodesFileError)
        assert "\n" not in str(caught.value)


def test_what_killed_programs_left_is_swept_after_a_day(tmp_path):
    for name, age in [("old", 2 * 86_400), ("new", 3600)]:
        folder = tmp_path / f".moss-{name}.partial"
        folder.mkdir()
        (folder / "file").write_text("")
        for path in (folder / "file", folder):
            os.utime(path, (time.time() - age,) * 2)
    with atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".moss-new.partial", "x"]


def test_a_loop_of_links_is_an_error_of_the_system(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with (
        pytest.raises(AudioFileError, match="loop"),
        atomic_path(tmp_path / "loop", error=AudioFileError) as temporary,
    ):
        temporary.write_text("")


def test_parts_of_files_end_where_they_end(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(100)))
    with (tmp_path / "x").open("rb") as file:
        part = PartOfFile(file, 10, 20, "part")
        assert part.read() == bytes(range(10, 30))
        assert part.seek(-5, os.SEEK_END) == 15
        assert part.read(100) == bytes(range(25, 30))
        assert part.read() == b""


def test_paths_that_are_not_text_can_be_printed():
    assert printable_path(os.fsdecode(b"a\xe4/\xc3\xa4")) == "a\\xe4/ä"
