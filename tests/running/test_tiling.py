"""Autoencoders by tiles and by slices: every tile's geometry channel is its own part of the whole image's."""

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from autoencoder_cases import AUTOENCODER_CASES
from diffusers import AutoencoderKL, AutoencoderTiny
from model_case import noise
from tiny_models import tiny_stable_diffusion
from torch import nn
from trained_models import draw_geometry, relative_error, trained_stable_diffusion

from geopos_diffusers import GeoConvConfig, GeoPosConfig, apply_geoconv, remove_geoconv
from geopos_diffusers.patching.config import BASES
from geopos_diffusers.patching.layers import GeoConv2d, GeoConvTranspose2d
from geopos_diffusers.patching.tiling import TILED_METHODS, CurrentTile, Tile, locate_tile

NORMALIZATIONS = ("unit", "aspect", "pixel")


class TestOneLayer:
    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    @pytest.mark.parametrize(
        "options",
        [
            *({"encoding": name, "basis": "multilinear"} for name in ("product", "cartesian", "constant")),
            *({"encoding": name, "border": "zeros"} for name in ("product", "cartesian_radius")),
            *({"encoding": name, "border": "extrapolate"} for name in ("product", "cartesian_radius")),
        ],
        ids=lambda options: "-".join(options.values()),
    )
    def test_the_term_of_a_tile_is_cut_out_of_the_whole_images(self, normalization, options):
        config = GeoPosConfig(normalization=normalization, **options)
        layer = self.geometry_only(GeoConv2d(2, 3, 3, padding=1, config=config))
        whole = layer(torch.zeros(1, 2, 20, 28))
        layer.geo_tile.tile = Tile(start=(4, 9), size=(8, 10), whole=(20, 28))
        tile = layer(torch.zeros(1, 2, 8, 10))
        torch.testing.assert_close(tile, whole[..., 4:12, 9:19], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
    def test_padding_modes_fold_at_the_edge_of_the_image_only(self, mode):
        layer = self.geometry_only(GeoConv2d(2, 3, 3, padding=1, padding_mode=mode))
        whole = layer(torch.zeros(1, 2, 20, 28))
        layer.geo_tile.tile = Tile(start=(12, 0), size=(8, 10), whole=(20, 28))
        tile = layer(torch.zeros(1, 2, 8, 10))
        torch.testing.assert_close(tile, whole[..., 12:, :10], rtol=0, atol=1e-6)

    def test_at_another_resolution_and_with_padding_around_the_layer(self):
        """A decoder's layer at twice the tile's size, and the strided layer of an encoder that was padded by one."""
        tile = Tile(start=(4, 8), size=(8, 8), whole=(20, 28))
        assert tile.within((16, 16)) == ((8, 16), (40, 56))
        assert tile.within((9, 9)) == ((4, 8), (21, 29))
        assert tile.within((4, 4)) == ((2, 4), (10, 14))
        assert tile.within((3, 8, 8)) == ((0, 4, 8), (3, 20, 28))
        assert tile.within((5,)) == ((0,), (5,))  # along time alone

    def test_a_small_tile_at_the_edge_has_the_resolution_of_the_first(self):
        """Two pixels of 34 with one more at each end are no layer at twice the size."""
        layer, current = nn.Identity(), CurrentTile()
        current.tile = Tile(start=(0,), size=(16,), whole=(34,))
        assert current.place(layer, (18,)) == ((0,), (36,))
        current.tile = Tile(start=(32,), size=(2,), whole=(34,))
        assert current.place(layer, (4,)) == ((32,), (36,))
        assert current.place(nn.Identity(), (4,)) == ((64,), (68,))

    @pytest.mark.parametrize("basis", BASES)
    def test_transposed(self, basis):
        layer = self.geometry_only(GeoConvTranspose2d(2, 3, 4, stride=2, padding=1, basis=basis))
        whole = layer(torch.zeros(1, 2, 20, 28))
        layer.geo_tile.tile = Tile(start=(4, 8), size=(8, 10), whole=(20, 28))
        tile = layer(torch.zeros(1, 2, 8, 10))
        torch.testing.assert_close(tile, whole[..., 8:24, 16:36], rtol=0, atol=1e-6)

    def geometry_only(self, layer: nn.Module) -> nn.Module:
        layer.requires_grad_(False).eval()
        layer.geo_tile = CurrentTile()
        return layer


class TestLocating:
    @pytest.mark.parametrize("prepare", [lambda x: x, lambda x: x.contiguous(memory_format=torch.channels_last)])
    def test_slices_of_an_image(self, prepare):
        image = prepare(torch.randn(2, 3, 20, 28))[1:]
        assert locate_tile(image[:, :, 4:12, 9:19], image) == Tile((4, 9), (8, 10), (20, 28))

    def test_slices_of_video_and_audio(self):
        video, audio = torch.randn(1, 4, 5, 20, 28), torch.randn(1, 2, 100)
        assert locate_tile(video[:, :, 2:3, 4:12, 9:19], video) == Tile((4, 9), (8, 10), (20, 28))
        assert locate_tile(audio[:, :, 60:80], audio) == Tile((60,), (20,), (100,))

    def test_a_copy_is_no_slice(self):
        image = torch.randn(1, 3, 20, 28)
        assert locate_tile(image[:, :, 4:12, 9:19].clone(), image) is None
        assert locate_tile(torch.randn(1, 3, 20, 28), image) is None


def autoencoder_kl() -> AutoencoderKL:
    vae = tiny_stable_diffusion().vae
    vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 16
    return vae


def autoencoder_kl_without_statistics() -> AutoencoderKL:
    """Without normalisation and attention, whose results in a tile depend on what else is in the tile."""
    vae = autoencoder_kl()
    for block in (vae.encoder.mid_block, vae.decoder.mid_block):
        block.attentions[0] = None
    for module in [*vae.modules()]:
        for name, part in [*module.named_children()]:
            if isinstance(part, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return vae


def autoencoder_tiny() -> AutoencoderTiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            num_encoder_blocks=(1,) * 4,
            num_decoder_blocks=(1,) * 4,
        )
    vae.tile_latent_min_size = 16
    return vae.eval()


def listed(name: str, **attributes: int) -> nn.Module:
    """A model of the table of supported ones, with the attributes that set its tiles."""
    model = next(case for case in AUTOENCODER_CASES if case.model == name).build()
    for attribute, value in attributes.items():
        assert hasattr(model, attribute)
        setattr(model, attribute, value)
    return model


def square_tiles(size: int, stride: int) -> dict[str, int]:
    values = {"min": size, "stride": stride}
    return {f"tile_sample_{kind}_{side}": value for kind, value in values.items() for side in ("height", "width")}


def vidtok() -> nn.Module:
    sizes = {"tile_sample_min": 64, "tile_latent_min": 16}
    return listed("AutoencoderVidTok", **{f"{key}_{side}": sizes[key] for key in sizes for side in ("height", "width")})


# Builds the model, tiled method, input; how much worse than the stock model's the patched model's tiles may be, of
# taps and of coefficients. Coefficients reach the mean of a layer's output, as biases do, so that the zero padding at
# inner edges of tiles is further from what lies there in the whole image.
TILED = {
    "AutoencoderKL decode": (autoencoder_kl, "tiled_decode", (1, 4, 40, 56), (1.4, 1.4)),
    "AutoencoderKL encode": (autoencoder_kl, "_tiled_encode", (1, 3, 80, 112), (1.2, 1.25)),
    "AutoencoderKL without norms": (autoencoder_kl_without_statistics, "tiled_decode", (1, 4, 40, 56), (1.05, 1.3)),
    "AutoencoderTiny decode": (autoencoder_tiny, "_tiled_decode", (1, 4, 24, 28), (1.05, 1.1)),
    "AutoencoderDC decode": (
        partial(listed, "AutoencoderDC", **square_tiles(32, 24)),
        "tiled_decode",
        (1, 4, 40, 56),
        (1.2, 1.1),
    ),
    "AutoencoderKLWan decode": (
        partial(listed, "AutoencoderKLWan", **square_tiles(32, 24)),
        "tiled_decode",
        (1, 4, 2, 24, 32),
        (1.4, 1.1),
    ),
    "AutoencoderVidTok decode": (
        vidtok,
        "decode",
        (1, 4, 2, 24, 32),
        (1.2, 1.1),
    ),
    "AutoencoderOobleck decode": (
        partial(listed, "AutoencoderOobleck", tile_latent_min_length=32, tile_latent_overlap=4),
        "_tiled_decode",
        (1, 4, 160),
        (1.1, 1.3),
    ),
}


class TestAgreement:
    """Relative error of tiled against untiled results, of the stock model and of the patched one."""

    @pytest.mark.parametrize("basis", ["taps", "multilinear"])
    @pytest.mark.parametrize("case", TILED)
    def test_patched_tiles_agree_as_well_as_stock_tiles(self, case, basis, caplog):
        build, method, shape, factors = TILED[case]
        factor = dict(zip(("taps", "multilinear"), factors, strict=True))[basis]
        vae = build().requires_grad_(False)
        stock = self.error(vae, method, shape)
        apply_geoconv(vae, GeoConvConfig(basis=basis))
        draw_geometry(vae, size=0.03)
        placed = self.error(vae, method, shape)
        for layer in vae.modules():
            if hasattr(layer, "geo_tile"):
                layer.geo_tile = None
        misplaced = self.error(vae, method, shape)
        assert placed < factor * stock, (stock, placed, misplaced)
        assert misplaced - stock > 1.1 * (placed - stock), (stock, placed, misplaced)
        assert misplaced > 1.02 * placed, (stock, placed, misplaced)
        assert not [record for record in caplog.records if "is no slice" in record.message]

    def error(self, vae, method, shape) -> float:
        vae.use_tiling = True
        tiled = getattr(vae, method)(noise(*shape))
        vae.use_tiling = False
        untiled = vae.decode(noise(*shape)) if "decode" in method else vae._encode(noise(*shape))
        tiled, untiled = getattr(tiled, "sample", tiled), getattr(untiled, "sample", untiled)
        return relative_error(tiled, untiled)


class TestHousekeeping:
    @pytest.fixture
    def vae(self):
        vae = autoencoder_kl().requires_grad_(False)
        apply_geoconv(vae)
        draw_geometry(vae)
        return vae

    def test_one_tile_is_the_untiled_result(self, vae):
        latents = noise(1, 4, 12, 12)
        assert torch.equal(vae.tiled_decode(latents).sample, vae.decode(latents).sample)

    def test_nothing_is_left_behind(self, vae):
        attributes, before = set(vars(vae)), vae.decode(noise(1, 4, 12, 12)).sample
        vae.tiled_decode(noise(1, 4, 24, 24))
        with pytest.raises(RuntimeError):
            vae.tiled_decode(noise(1, 7, 24, 24))
        assert set(vars(vae)) == attributes
        assert torch.equal(vae.decode(noise(1, 4, 12, 12)).sample, before)

    def test_copies_tile_by_themselves(self, vae):
        twin = copy.deepcopy(vae)
        assert twin.tiled_decode.model is twin
        assert twin.decoder.conv_in.geo_tile is twin.tiled_decode.current is not vae.tiled_decode.current
        latents = noise(1, 4, 24, 24)
        assert torch.equal(twin.tiled_decode(latents).sample, vae.tiled_decode(latents).sample)

    def test_threads_share_the_model(self, vae):
        latents = [noise(1, 4, 24, 24, seed=seed) for seed in (0, 1)] + [noise(1, 4, 12, 12)]
        ways = [vae.tiled_decode, vae.tiled_decode, vae.decode]
        run = torch.no_grad()(lambda way, latent: [way(latent).sample for _ in range(3)])
        expected = [run(way, latent)[0] for way, latent in zip(ways, latents, strict=True)]
        attributes = set(vars(vae))
        with ThreadPoolExecutor(3) as threads:
            for outputs, output in zip(threads.map(run, ways, latents), expected, strict=True):
                assert all(torch.equal(other, output) for other in outputs)
        assert set(vars(vae)) == attributes

    def test_remove_puts_the_stock_methods_back(self, vae):
        latents = noise(1, 4, 24, 24)
        expected = autoencoder_kl().tiled_decode(latents).sample
        remove_geoconv(vae)
        assert not set(TILED_METHODS) & set(vars(vae))
        assert torch.equal(vae.tiled_decode(latents).sample, expected)

    def test_a_tile_that_is_a_copy_is_told(self, caplog):
        """AutoencoderDC pads tiles at the edge of an image that its ratio does not divide."""
        vae = listed("AutoencoderDC", **square_tiles(32, 24))
        apply_geoconv(vae)
        vae.tiled_encode(noise(1, 3, 41, 32))
        assert any("a tile of shape (1, 3, 18, 32) is no slice" in record.message for record in caplog.records)

    def test_pipeline_with_tiling_and_slicing(self):
        pipe = trained_stable_diffusion(GeoConvConfig(components=("unet", "vae")))
        latents = noise(2, 4, 24, 24)
        expected = pipe.vae.decode(latents).sample.detach()
        pipe.vae.enable_slicing()
        torch.testing.assert_close(pipe.vae.decode(latents).sample.detach(), expected, rtol=0, atol=1e-5)
        pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 32, 16
        pipe.vae.enable_tiling()
        images = pipe("a hand", height=48, width=48, num_inference_steps=2, output_type="np").images
        assert images.shape == (1, 48, 48, 3)

    def test_compiled_blocks_place_their_tiles_too(self, vae):
        latents = noise(1, 4, 24, 24)
        expected = vae.tiled_decode(latents).sample
        vae.decoder.mid_block.resnets[0].compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(vae.tiled_decode(latents).sample, expected, rtol=0, atol=1e-5)

    @pytest.mark.slow
    def test_a_compiled_decoder_places_its_tiles_too(self, vae):
        latents = noise(1, 4, 24, 24)
        expected = vae.tiled_decode(latents).sample
        vae.decoder = torch.compile(vae.decoder, backend="eager")
        torch.testing.assert_close(vae.tiled_decode(latents).sample, expected, rtol=0, atol=1e-5)
