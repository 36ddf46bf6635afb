import sqlite3
import threading

import pytest

from geopos_diffusers.metrics.evaluation_cache import EvaluationCache

KEYS = [f"{number:064x}" for number in range(1200)]  # more than one query takes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "cache.sqlite"


def test_values_come_back(path):
    with EvaluationCache(path) as cache:
        cache.write([("hands", key, key.encode()) for key in KEYS])
        cache.write([("crops", KEYS[0], b"")])
    with EvaluationCache(path) as cache:
        assert cache.read("hands", [*KEYS, "unknown"]) == {key: key.encode() for key in KEYS}
        assert cache.read("crops", KEYS) == {KEYS[0]: b""}
        assert cache.read("other", KEYS) == {}


def test_a_later_value_replaces_an_earlier_one(path):
    with EvaluationCache(path) as cache:
        cache.write([("hands", "a", b"1")])
        cache.write([("hands", "a", b"2")])
        assert cache.read("hands", ["a"]) == {"a": b"2"}


def test_a_changed_value_counts_as_missing(path):
    with EvaluationCache(path) as cache:
        cache.write([("hands", "a", b"1"), ("hands", "b", b"2")])
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE entries SET value = ? WHERE key = 'a'", (b"3",))
    connection.close()
    with EvaluationCache(path) as cache:
        assert cache.read("hands", ["a", "b"]) == {"b": b"2"}


def test_a_damaged_file_is_set_aside(path, caplog):
    path.parent.mkdir()
    path.write_bytes(b"no database " * 1000)
    with EvaluationCache(path) as cache:
        cache.write([("hands", "a", b"1")])
        assert cache.read("hands", ["a"]) == {"a": b"1"}
    assert path.with_suffix(".damaged").read_bytes().startswith(b"no database")
    assert "is damaged" in caplog.text


def test_a_file_cut_short_costs_no_more_than_what_it_held(path, caplog):
    with EvaluationCache(path) as cache:
        cache.write([("hands", key, key.encode() * 20) for key in KEYS])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with EvaluationCache(path) as cache:
        found = cache.read("hands", KEYS)
        assert all(found[key] == key.encode() * 20 for key in found)
        cache.write([("hands", "new", b"1")])
        assert cache.read("hands", ["new"]) == {"new": b"1"}


def test_what_cannot_be_written_is_kept_for_the_run(path, caplog):
    with EvaluationCache(path) as cache:
        cache._connection.execute("PRAGMA query_only = ON")  # as on a disk that takes no more
        cache.write([("hands", "a", b"1")])
        cache.write([("hands", "b", b"2")])
        assert cache.read("hands", ["a", "b"]) == {"a": b"1", "b": b"2"}
    assert caplog.text.count("cannot be written") == 1
    with EvaluationCache(path) as cache:
        assert cache.read("hands", ["a", "b"]) == {}


def test_several_at_a_time(path):
    def write(part):
        with EvaluationCache(path) as cache:
            for key in KEYS[part::4]:
                cache.write([("hands", key, key.encode())])

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with EvaluationCache(path) as cache:
        assert len(cache.read("hands", KEYS)) == len(KEYS)


def test_without_a_file():
    with EvaluationCache(None) as cache:
        cache.write([("hands", "a", b"1")])
        assert cache.read("hands", ["a"]) == {"a": b"1"}
