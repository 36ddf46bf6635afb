"""Without an optional package a command stops with one line that names the extra, in a process where it is missing."""

import subprocess
import sys

import pytest
from commands import save_random_adapter
from PIL import Image
from tiny_models import tiny_stable_diffusion

WITHOUT = """
import sys

missing, *words = sys.argv[1:]

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] == missing else self.finder.find_spec(name, *rest)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from geopos_diffusers.cli.main import main
sys.exit(main(words))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_stable_diffusion().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("package", "command", "extra"),
    [
        ("peft", "generate --prompt a --lora missing --output OUT --model MODEL", "train"),
        ("tensorboard", "train --max_train_steps 1 --dataset IMAGES --output_dir OUT --report_to tensorboard", "train"),
        ("mediapipe", "evaluate --images IMAGES --reference IMAGES --output OUT", "eval"),
        ("anny", "data hands --count 1 --output OUT", "data"),
        ("embreex", "data hands --count 1 --output OUT", "data"),
        ("anny", "data faces --count 1 --output OUT", "data"),
        ("peft", "train --train lora --max_train_steps 1 --dataset IMAGES --output_dir OUT", "train"),
    ],
)
def test_the_message_names_the_extra(model, tmp_path, package, command, extra):
    (tmp_path / "images").mkdir()
    words = [{"OUT": "out", "IMAGES": "images", "MODEL": str(model)}.get(word, word) for word in command.split()]
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a"}')
    code = [sys.executable, "-c", WITHOUT, package, *words]
    result = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"geopos {words[0]}: error: ")
    assert last.endswith(f"needs the package {package}: pip install 'geopos-diffusers[{extra}]'")
    assert not list(tmp_path.glob("out/*.*"))


def test_adapters_of_geometry_need_no_peft(model, tmp_path):
    adapter = save_random_adapter(tmp_path / "adapter", seed=0)
    words = ["generate", "--model", str(model), "--geoconv", adapter, "--prompt", "a", "--steps", "1", "--compare"]
    code = [sys.executable, "-c", WITHOUT, "peft", *words, "--output", str(tmp_path / "out")]
    subprocess.run(code, check=True)
    assert (tmp_path / "out" / "contact_sheet.png").is_file()
