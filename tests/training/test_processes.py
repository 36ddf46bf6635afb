import subprocess
import sys

import pytest

from geopos_diffusers.training.processes import launched_processes, needs_cpu_group


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("/venv/bin/python /venv/bin/accelerate launch --num_processes 2 --cpu train.py --config c.yaml", 2),
        ("/venv/bin/python /venv/bin/accelerate launch --cpu --num-processes=3 train.py --num_processes 9", 3),
        ("/venv/bin/python -m accelerate.commands.launch --num_processes 4 --cpu train.py", 4),
        ("/venv/bin/python /venv/bin/accelerate-launch --num_processes 4 --cpu train.py", 4),
        ("/venv/bin/python -m accelerate.commands.accelerate_cli launch --cpu --num_processes 5 train.py", 5),
        ("/venv/bin/python /venv/bin/accelerate launch --cpu train.py --num_processes 2", 1),
        ("make launch", 1),
        ("/bin/bash", 1),
    ],
)
def test_launched_processes(command, count):
    assert launched_processes(command.split()) == count


def test_processes_in_a_config_file(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_processes: 2\nuse_cpu: true\n"
    )
    assert launched_processes(f"accelerate launch --config_file {config} train.py".split()) == 2


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert not needs_cpu_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise DataError('no\\n images')", 2, "-c: error: no images"),
        ("raise OSError('disk full')", 2, "-c: error: disk full"),
        ("raise KeyboardInterrupt", 130, ""),
        ("pass", 0, ""),
    ],
)
def test_exit_codes(body, code, message):
    text = "\n".join(
        [
            "from geopos_diffusers.errors import DataError",
            "from geopos_diffusers.training.processes import run_script",
            "def main():",
            f"    {body}",
            "run_script(main)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (code, message)
