"""--push-to-hub against a server of the Hub's kind on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub
import pytest

from geopos_diffusers.errors import AdapterError, ConfigError
from geopos_diffusers.finetuning.hub_upload import HubUpload, complete_card
from geopos_diffusers.finetuning.text_to_image_arguments import TextToImageArguments


class Hub(BaseHTTPRequestHandler):
    """Knows a user "me" of the organisation "lab", has no repositories, and keeps the files of commits."""

    def do_GET(self):
        if self.path == "/api/whoami-v2":
            known = self.headers["Authorization"] == "Bearer hf_me"
            user = {"name": "me", "type": "user", "orgs": [{"name": "lab"}]}
            return self.answer(200 if known else 401, user if known else {"error": "Invalid username or password."})
        return self.answer(404, {"error": "Repository not found"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if "/preupload/" in self.path:
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            if self.server.refuses:
                return self.answer(403, {"error": "no right to write"})
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            address = f"http://{self.headers['Host']}/me/run/commit/{40 * '1'}"
            return self.answer(200, {"commitUrl": address, "commitOid": 40 * "1", "success": True})
        if self.path == "/api/repos/create":
            self.server.made.append(json.loads(body))
            return self.answer(200, {"url": f"http://{self.headers['Host']}/me/run", "name": "me/run", "id": "me/run"})
        return self.answer(200, {})

    def answer(self, code, value):
        self.send_response(code)
        body = json.dumps(value).encode()
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        if code == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.made, server.refuses = {}, [], False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    yield server
    server.shutdown()
    server.server_close()


def test_a_run_uploads_its_folder_with_a_complete_card(hub, finetune):
    options = {"push_to_hub": True, "hub_private": True, "train": "lora", "max_train_steps": 1}
    options |= {"validation_prompts": ["a hand"], "validation_inference_steps": 1, "validation_split_share": 0.3}
    folder, _ = finetune("run", **options)
    (made,) = hub.made
    assert made["name"] == "run"
    assert made.get("private") is True or made.get("visibility") == "private"
    final = {path.name: path.read_bytes() for path in (folder / "final").iterdir()}
    assert hub.files == final
    assert final.keys() == {"README.md", "pytorch_lora_weights.safetensors", "losses.png", "validation-000001.png"}
    assert final["validation-000001.png"] == (folder / "validation-000001.png").read_bytes()
    card = final["README.md"].decode()
    best = json.loads((folder / "best" / "best.json").read_text())
    assert "![Losses](losses.png)" in card
    assert "![Validation images](validation-000001.png)" in card
    assert f'"value": {best["value"]}' in card
    assert '"trained_parameters"' in card


def test_the_card_of_an_adapter_is_continued(tmp_path):
    (tmp_path / "README.md").write_text("---\ntags: [geoconv]\n---\n# GeoConv adapter\n")
    complete_card(tmp_path, tmp_path, {"train": "geoconv"}, {"step": 3, "measure": "good", "value": 0.5})
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\ntags: [geoconv]\n---\n# GeoConv adapter\n\n## Best weights\n")
    assert card.count("---\n") == 2


class TestRefusals:
    def test_no_login(self, hub, finetune, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_other")
        with pytest.raises(ConfigError, match="push_to_hub cannot work: ") as caught:
            finetune("run", push_to_hub=True, model="never looked at")
        assert "\n" not in str(caught.value)
        assert hub.made == []

    def test_no_network(self, monkeypatch, tmp_path):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("HF_TOKEN", "hf_me")
        with pytest.raises(ConfigError, match="push_to_hub cannot work: ") as caught:
            HubUpload(tmp_path, None, False)
        assert "\n" not in str(caught.value)

    def test_somebody_elses_name(self, hub, tmp_path):
        assert HubUpload(tmp_path / "x", None, False).repo_id == "me/x"
        assert HubUpload(tmp_path, "lab/x", False).repo_id == "lab/x"
        with pytest.raises(ConfigError, match="you/x is not below me or lab, where you may write"):
            HubUpload(tmp_path, "you/x", False)

    def test_a_refused_upload_says_how_to_do_it_later(self, hub, tmp_path):
        (tmp_path / "final").mkdir()
        (tmp_path / "final" / "README.md").write_text("# A card")
        hub.refuses = True
        with pytest.raises(AdapterError, match=r"cannot upload to me/x: .*final is complete: hf upload me/x .*final"):
            HubUpload(tmp_path, "me/x", False).send()

    def test_its_options_need_it(self):
        with pytest.raises(ConfigError, match="hub_model_id is an option of push_to_hub"):
            TextToImageArguments(dataset="d", output_dir="o", max_train_steps=1, hub_model_id="me/x")
