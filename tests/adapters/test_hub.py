"""The Hub without the network: which files are fetched, and what a failed upload leaves."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects
from trained_models import trained_stable_diffusion

from geopos_diffusers import push_geoconv_to_hub
from geopos_diffusers.adapters.files import HUB_FILES, find_adapters
from geopos_diffusers.errors import AdapterError


@pytest.mark.parametrize(
    ("repository", "fetched"),
    [
        (["geoconv_weights.safetensors", "geoconv_config.json", "README.md"], ["geoconv_weights.safetensors"]),
        (
            ["model_index.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json"]
            + [f"{part}/geoconv.adapter/geoconv_weights.safetensors" for part in ("unet", "vae")],
            [f"{part}/geoconv.adapter/geoconv_weights.safetensors" for part in ("unet", "vae")],
        ),
        (
            ["config.json", "diffusion_pytorch_model.safetensors", "geoconv/geoconv_weights.safetensors"],
            ["geoconv/geoconv_weights.safetensors"],
        ),
        (["pytorch_lora_weights.safetensors", "old_geoconv_weights.safetensors"], []),
    ],
    ids=["adapter", "pipeline", "model of an earlier release", "neither"],
)
def test_adapter_files_alone_are_fetched(tmp_path, repository, fetched):
    assert list(filter_repo_objects(repository, allow_patterns=list(HUB_FILES))) == fetched
    for name in fetched:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    if fetched:
        assert sorted(path for path, _ in find_adapters(tmp_path)) == sorted(tmp_path / name for name in fetched)


class Hub(BaseHTTPRequestHandler):
    """A server that makes and deletes repositories, and refuses uploads."""

    def do_GET(self):
        self.answer(404, {"error": "Repository not found"})

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/repos/create":
            self.server.repositories.add(json.loads(self.body)["name"])
            address = f"http://{self.headers['Host']}/me/adapter"
            self.answer(200, {"url": address, "id": "me/adapter", "name": "me/adapter"})
        else:
            self.answer(403, {"error": "no right to write"})

    def do_DELETE(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.repositories.discard(json.loads(self.body)["name"])
        self.answer(200, {})

    def answer(self, code, value):
        self.server.requests.append((self.command, self.path))
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
    server.repositories, server.requests = set(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    yield server
    server.shutdown()
    server.server_close()


def test_a_refused_upload_leaves_no_repository(hub):
    with pytest.raises(AdapterError, match=r"cannot upload the adapter to me/adapter: .*403") as caught:
        push_geoconv_to_hub(trained_stable_diffusion(), "me/adapter")
    assert "\n" not in str(caught.value)
    assert ("POST", "/api/repos/create") in hub.requests
    assert hub.repositories == set()


def test_without_a_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AdapterError, match="cannot upload the adapter to me/adapter: ") as caught:
        push_geoconv_to_hub(trained_stable_diffusion(), "me/adapter")
    assert "\n" not in str(caught.value)
