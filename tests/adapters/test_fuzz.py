"""Damaged and hostile adapter files: a typed error and an untouched model, or a whole adapter that works."""

import copy
import json
import os
import signal
import struct
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn
from trained_models import draw_geometry

from geopos_diffusers import (
    GeoConvConfig,
    apply_geoconv,
    geoconv_parameters,
    geoconv_status,
    load_geoconv_weights,
    save_geoconv_weights,
)
from geopos_diffusers.errors import ConfigError, GeoPosError
from geopos_diffusers.patching.config import FORMAT_VERSION


class TwoModels(DiffusionPipeline):
    """A pipeline of two small models: an error in the second must not leave the first patched."""

    def __init__(self, unet: nn.Module, vae: nn.Module) -> None:
        super().__init__()
        self.register_modules(unet=unet, vae=vae)


def build() -> TwoModels:
    models = (nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.SiLU(), nn.Conv2d(3, 2, 3)) for _ in range(2))
    return TwoModels(*models)


def trained() -> TwoModels:
    pipe = build()
    apply_geoconv(pipe, GeoConvConfig(components=("unet", "vae")))
    draw_geometry(pipe)
    return pipe


def whole_file(folder: Path) -> bytes:
    return save_geoconv_weights(trained(), folder).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> bytes:
    return whole_file(tmp_path_factory.mktemp("original"))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, in time of the processor: a busy machine must not look like a hang."""

    def interrupt(number: int, frame: Any) -> None:
        raise TimeoutError(f"took over {seconds} s")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def check_load(folder: Path, content: bytes) -> None:
    """The property: all or nothing, with a typed error, and no file written anywhere that we can see."""
    path = folder / "inner" / "geoconv_weights.safetensors"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    pipe = build()
    keys = [*pipe.unet.state_dict(), *pipe.vae.state_dict()]
    error = None
    try:
        with time_limit(2):
            load_geoconv_weights(pipe, path)
    except GeoPosError as raised:
        error = raised
    if error is not None:
        assert "\n" not in str(error)
        assert not geoconv_status(pipe).patched
        assert [*pipe.unet.state_dict(), *pipe.vae.state_dict()] == keys
        assert set(vars(pipe.unet)) == set(vars(nn.Sequential()))
    else:
        assert geoconv_status(pipe).patched
        assert all(torch.isfinite(weight).all() for weight in geoconv_parameters(pipe).values())
        for model in (pipe.unet.train(), pipe.vae.eval()):
            assert model(torch.zeros(1, 2, 5, 6)).shape == (1, 2, 3, 4)
    assert os.listdir(folder) == ["inner"]
    assert os.listdir(path.parent) == [path.name]


def split(content: bytes) -> tuple[dict, bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: dict | str, data: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [
            10**400,
            -(2**63),
            1e400,
            float("nan"),
            "unet",
            "product",
            "squares",
            "taps",
            "../../x",
            "",
            "\ud800",
            "0.geo_weight",
        ]
    )
    | st.floats()
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = sorted(GeoConvConfig().to_dict())
NAMES = st.text(max_size=10) | st.sampled_from(
    [
        *(f"{model}.{layer}.geo_weight" for model in ("unet", "vae") for layer in (0, 2)),
        *("../../etc/passwd", "/abs.geo_weight", "unet...geo_weight", ".0.geo_weight", "unet.0.weight", ""),
        *("unet.__class__.geo_weight", "text_encoder.0.geo_weight", "unet.\x00\n.geo_weight", "__metadata__"),
    ]
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
          torch.float8_e8m0fnu, torch.int8, torch.int64, torch.uint8, torch.bool, torch.complex64)  # fmt: skip
SHAPES = st.sampled_from(
    [(3, 4), (2, 4), (3, 1, 3, 3), (2, 1, 3, 3), (3, 1, 9), (0,), (), (3, 2, 3, 3), (27,), (3, 1, 3, 0)]
)


@st.composite
def damaged_bytes(draw, original: bytes) -> bytes:
    """Bytes changed, cut out, put in or cut off; the header more often than the weights."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        end = len(content) if draw(st.booleans()) else min(len(content), 1500)
        place = draw(st.integers(0, max(end - 1, 0)))
        kind = draw(st.sampled_from(["change", "remove", "insert", "truncate", "length"]))
        if kind == "change" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "remove":
            del content[place : place + draw(st.integers(1, 20))]
        elif kind == "insert":
            content[place:place] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "truncate":
            del content[place:]
        else:
            content[:8] = struct.pack("<Q", draw(st.integers(0, 2**64 - 1) | st.integers(0, 5000)))
    return bytes(content)


@st.composite
def damaged_header(draw, original: bytes) -> bytes:
    """Tensor entries of the header with other types, shapes, places and names; keys given twice."""
    header, data = split(original)
    name = draw(st.sampled_from(sorted(header)))
    kind = draw(
        st.sampled_from(["dtype", "shape", "data_offsets", "rename", "drop", "add", "replace", "twice", "extra"])
    )
    if kind in ("dtype", "shape", "data_offsets") and name != "__metadata__":
        known = {"dtype": st.sampled_from(["F8_E4M3", "F4", "F6_E2M3", "C64", "BOOL", "I64", "F16", "BF16", "X"]),
                 "shape": st.lists(st.integers(-1, 2**63), max_size=4),
                 "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3)}[kind]  # fmt: skip
        header[name][kind] = draw(known | JSON)
    elif kind == "rename":
        header[draw(NAMES)] = header.pop(name)
    elif kind == "drop":
        del header[name]
    elif kind == "twice":
        text = json.dumps(header)
        return join(text[:-1] + "," + json.dumps({name: header[name]})[1:], data)
    else:
        header[draw(NAMES) if kind == "add" else name] = draw(JSON)
    return join(header, data)


@st.composite
def other_config(draw, original: bytes) -> bytes:
    """Whole weights under a config of arbitrary values, or metadata that is no config."""
    header, data = split(original)
    values = json.loads(header["__metadata__"]["geoconv_config"])
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from([*OPTIONS, "base_classes", "geopos_diffusers_version"]) | st.text(max_size=6))
        values[key] = draw(JSON)
        if draw(st.integers(0, 5)) == 0:
            values.pop(draw(st.sampled_from(sorted(values))))
    text = json.dumps(values)
    text = draw(
        st.sampled_from([text, text, text, text[:-3], text * 2, "[" * 50_000, "9" * 5000, json.dumps(draw(JSON))])
    )
    header["__metadata__"]["geoconv_config"] = text
    return join(header, data)


def with_config(original: bytes, **values) -> bytes:
    header, data = split(original)
    text = header["__metadata__"]["geoconv_config"]
    header["__metadata__"]["geoconv_config"] = json.dumps(json.loads(text) | values)
    return join(header, data)


EXPRESSIONS = st.recursive(
    st.sampled_from(["a", ".", "0", "|", r"\.", "[^x]", "(?x: )", "(", "]", "x"]),
    lambda inner: (
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["", "(", "(?:"]),
            inner,
            st.sampled_from(["*", "+", "?", ")*", "){9}", "{2,}"]),
        )
        | st.builds("".join, st.lists(inner, max_size=4))
        | st.builds(lambda text, times: text * times, inner, st.integers(2, 30))
    ),
    max_leaves=8,
)


@st.composite
def other_targets(draw, original: bytes) -> bytes:
    """Whole weights under a config whose targets are expressions, hostile ones too, or lists of names."""
    targets = EXPRESSIONS | st.lists(NAMES, max_size=4) | JSON
    options = draw(st.lists(st.sampled_from(["target_modules", "exclude_modules"]), min_size=1, unique=True))
    return with_config(original, **{option: draw(targets) for option in options})


@st.composite
def other_tensors(draw, original: bytes) -> bytes:
    """A valid file of arbitrary names, shapes and types under the right config."""
    metadata = split(original)[0]["__metadata__"]
    tensors = {}
    for name in draw(st.lists(NAMES.filter(lambda name: name != "__metadata__"), max_size=6, unique=True)):
        tensor = torch.full(draw(SHAPES), draw(st.sampled_from([0.0, 1.0, float("nan"), float("inf"), 1e30])))
        tensors[name] = tensor.to(draw(st.sampled_from(DTYPES)))
    return save(tensors, metadata)


KINDS = (damaged_bytes, damaged_header, other_config, other_targets, other_tensors)
FAST = settings(
    max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
LONG = settings(FAST, max_examples=2000, derandomize=False)  # of each of the five kinds: 10,000


class TestLoading:
    @pytest.mark.parametrize("kind", KINDS)
    def test_all_or_nothing(self, folder, original, kind):
        FAST(given(kind(original))(lambda content: check_load(folder, content)))()

    def test_a_line_break_in_what_the_error_quotes(self, folder, original):
        header, data = split(original)
        header["unet.0.geo_weight"]["dtype"] = "\n"
        check_load(folder, join(header, data))

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    def test_thousands(self, folder, original, kind):
        LONG(given(kind(original))(lambda content: check_load(folder, content)))()

    def test_the_undamaged_file_loads(self, folder, original):
        check_load(folder, original)
        check_load(folder, join(*split(original)))

    @pytest.mark.parametrize("option", ["target_modules", "exclude_modules"])
    @pytest.mark.parametrize(
        "pattern",
        ["(.*)*x", "(a?){30}a{30}", ".?" * 30 + "x", "(.|.)*" * 25 + "x", "(?x: (.* ) * )x", "(", "0|2" * 10**6],
    )
    def test_expressions_of_a_file_are_not_evaluated(self, tmp_path, option, pattern):
        def model() -> nn.Module:
            return nn.Sequential(OrderedDict({"a long name " * 5: nn.Conv2d(1, 1, 3)}))

        source = model()
        expected = apply_geoconv(source).patched
        path = save_geoconv_weights(source, tmp_path)
        path.write_bytes(with_config(path.read_bytes(), **{option: pattern}))
        with time_limit(2):
            assert load_geoconv_weights(model(), path).patched == expected

    def test_any_number_of_foreign_names(self, folder, original):
        tensors = {f"unet.{'x' * 40}{number}.geo_weight": torch.zeros(1) for number in range(20_000)}
        check_load(folder, save(tensors, split(original)[0]["__metadata__"]))


class TestConfig:
    @settings(FAST, max_examples=200)
    @given(st.dictionaries(st.sampled_from(OPTIONS), JSON, max_size=4))
    def test_any_values(self, values):
        try:
            config = GeoConvConfig.from_dict({"format_version": FORMAT_VERSION} | values)
        except ConfigError:
            return
        assert GeoConvConfig.from_json(config.to_json()) == config

    @settings(FAST, max_examples=50)
    @given(st.text(max_size=30) | JSON.map(json.dumps))
    def test_any_text(self, text):
        with pytest.raises(ConfigError):
            GeoConvConfig.from_json(text)


class TestSaving:
    @settings(FAST, max_examples=20)
    @given(name=st.sampled_from(["../up", "/abs", "a/b", "..", "\x00", "x" * 300]) | st.text(min_size=1, max_size=8))
    def test_no_name_of_an_adapter_leads_out_of_the_folder(self, tmp_path_factory, name):
        top = tmp_path_factory.mktemp("save")
        pipe, source = build(), trained()
        save_geoconv_weights(source, top / "source")
        load_geoconv_weights(pipe, top / "source", name)
        save_geoconv_weights(pipe, top / "target", adapter_name=name)
        assert sorted(os.listdir(top)) == ["source", "target"]
        assert sorted(os.listdir(top / "target")) == sorted(os.listdir(top / "source"))

    def test_a_model_whose_layers_are_named_like_paths(self, tmp_path):
        model = nn.Module()
        model.add_module("/escape", nn.Conv2d(1, 1, 3))
        apply_geoconv(model)
        save_geoconv_weights(model, tmp_path / "adapter")
        assert os.listdir(tmp_path) == ["adapter"]
        assert len(os.listdir(tmp_path / "adapter")) == 3


def test_an_error_in_the_second_part_leaves_the_first(tmp_path):
    pipe = build()
    pipe.vae = nn.Sequential(nn.Conv2d(2, 4, 3))
    path = save_geoconv_weights(trained(), tmp_path)
    before = copy.deepcopy(pipe.unet.state_dict())
    with pytest.raises(GeoPosError, match="does not fit Sequential"):
        load_geoconv_weights(pipe, path)
    assert pipe.unet.state_dict().keys() == before.keys()
