"""The names that `geopos_diffusers` exports, for type checkers: it imports them on first use."""

from .adapters.files import push_geoconv_to_hub as push_geoconv_to_hub
from .adapters.files import save_geoconv_weights as save_geoconv_weights
from .adapters.loading import load_geoconv_weights as load_geoconv_weights
from .adapters.named_adapters import delete_geoconv_adapters as delete_geoconv_adapters
from .adapters.named_adapters import get_active_geoconv_adapters as get_active_geoconv_adapters
from .adapters.named_adapters import list_geoconv_adapters as list_geoconv_adapters
from .adapters.named_adapters import set_geoconv_adapters as set_geoconv_adapters
from .boxes import mean_frame as mean_frame
from .errors import GeoPosError as GeoPosError
from .patching.config import GeoConvConfig as GeoConvConfig
from .patching.config import GeoPosConfig as GeoPosConfig
from .patching.framing import geoconv_frames as geoconv_frames
from .patching.framing import set_geoconv_frames as set_geoconv_frames
from .patching.layers import GeoConv1d as GeoConv1d
from .patching.layers import GeoConv2d as GeoConv2d
from .patching.layers import GeoConv3d as GeoConv3d
from .patching.layers import GeoConvTranspose1d as GeoConvTranspose1d
from .patching.layers import GeoConvTranspose2d as GeoConvTranspose2d
from .patching.layers import GeoConvTranspose3d as GeoConvTranspose3d
from .patching.patched_model import geoconv_parameters as geoconv_parameters
from .patching.scaling import disable_geoconv as disable_geoconv
from .patching.scaling import set_geoconv_scale as set_geoconv_scale
from .patching.status import GeoConvStatus as GeoConvStatus
from .patching.status import geoconv_status as geoconv_status
from .patching.surgery import apply_geoconv as apply_geoconv
from .patching.surgery import remove_geoconv as remove_geoconv
from .pipelines.loading import load_pipeline as load_pipeline
from .repair.options import RepairOptions as RepairOptions
from .repair.repairing import repair_image as repair_image

__version__: str
__all__: list[str]
