"""The files that come with the project, and files that are written completely or not at all."""

import os
import stat

import pytest

from pipnet import files
from pipnet.errors import printable


def test_no_link_at_a_temporary_name_is_written_through(tmp_path, monkeypatch):
    victim, link = tmp_path / "victim", tmp_path / f".a.txt.partial-{os.getpid()}"
    victim.write_text("mine")
    link.symlink_to(victim)
    files.write_text(tmp_path / "a.txt", "new")
    assert victim.read_text() == "mine" and link.is_symlink() and (tmp_path / "a.txt").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~(mask := os.umask(0)) and os.umask(mask) == 0
    names = iter(("01", "02"))  # even if the name is foreseen
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: next(names))
    (tmp_path / ".a.txt.partial-01").symlink_to(victim)
    files.write_text(tmp_path / "a.txt", "newer")
    assert victim.read_text() == "mine" and (tmp_path / "a.txt").read_text() == "newer"


def test_what_is_no_plain_file_is_not_opened_to_be_written(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for name in ("pipe", "link", "."):
        with pytest.raises(OSError):
            files.open_regular(tmp_path / name, os.O_RDWR | os.O_CREAT)
    assert not (tmp_path / "new").exists()


def test_names_of_temporary_files_are_recognised(tmp_path):
    for name in (files.partial_name(tmp_path / "a.mp4", ".mp4"), tmp_path / ".a.partial-12"):
        assert files.is_partial(name)
    for name in (".a.partial-me", "a.partial-12", ".partial-12", ".a.partial-"):
        assert not files.is_partial(tmp_path / name)


def test_text_of_others_stays_on_its_line():
    assert printable("a\nb\r\x1b[31m\x9b\u2028\u202e\udc9b\t") == r"a\nb\r\x1b[31m\x9b\u2028\u202e\x9b\t"
    assert (
        printable("rtsp://admin:Secret99@[::1]:9/x?a=1&pwd=Secret99&b=2 is back")
        == "rtsp://***@[::1]:9/x?a=1&pwd=***&b=2 is back"
    )
    assert "ecret" not in printable("rtsp://admin:a/Secret@b@host/x, https://Secret@host")
    assert printable("https://a.org/@me/b.jpg?token=") == "https://a.org/@me/b.jpg?token="
    assert printable("Zoë/脸 \udce9") == "Zoë/脸 \udce9"  # a name in Latin-1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "key 'b' is there twice"),
        ("[" * 200_000, "nested too deeply"),
        ("{", "Expecting"),
    ],
)
def test_json_that_means_two_things_is_refused(text, fault):
    """Python would take the last value of a key, and end in a RecursionError."""
    with pytest.raises(ValueError, match=fault):
        files.parse_json(text)
