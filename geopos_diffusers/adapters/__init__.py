"""Adapters: the geometry weights of patched models as files, by name, and converted."""

from ..patching.stock_saving import set_adapter_writer
from .files import save_geoconv_weights

set_adapter_writer(save_geoconv_weights)
