"""The private names of torch, diffusers and accelerate that this package relies on, and for what.

`tests/patching/test_private_names.py` looks each one up in what is installed, and finds names that are missing here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PrivateName:
    """A name that a library may change without notice.

    Attributes:
        library: its package. owner: the class, object or module that has the name. purpose: what needs it.
    """

    library: str
    owner: str
    name: str
    purpose: str


_OFFLOADED = "patching, saving and loading while weights are offloaded"
_GROUP_OFFLOADED = "refusing what group offload would not notice"
_TILED = "placing the tiles of an autoencoder"

PRIVATE_NAMES = (
    PrivateName("torch", "Conv2d", "_conv_forward", "adding the geometry term below what a subclass pads"),
    PrivateName("torch", "Module", "_parameters", "reading parameters past offloading and weight normalisation"),
    PrivateName("torch", "_C", "_current_graph_task_id", "one shift a model call under gradient checkpointing"),
    PrivateName("torch", "_C", "_len_torch_dispatch_stack", "keeping no fake tensors in tables"),
    PrivateName("torch", "_C", "_functorch", "keeping no tensors of torch.func in tables"),
    PrivateName("torch", "OptimizedModule", "_orig_mod", "the names of layers in a compiled model"),
    PrivateName("torch", "CheckpointWrapper", "_checkpoint_wrapped_module", "the names of layers in such wrappers"),
    PrivateName("accelerate", "offloaded module", "_hf_hook", _OFFLOADED),
    PrivateName("accelerate", "SequentialHook", "hooks", _OFFLOADED),
    PrivateName("accelerate", "AlignDevicesHook", "offload", _OFFLOADED),
    PrivateName("accelerate", "AlignDevicesHook", "weights_map", _OFFLOADED),
    PrivateName("accelerate", "AlignDevicesHook", "original_devices", _OFFLOADED),
    PrivateName("accelerate", "PrefixedDataset", "dataset", _OFFLOADED),
    PrivateName("accelerate", "PrefixedDataset", "prefix", _OFFLOADED),
    PrivateName("accelerate", "OffloadedWeightsLoader", "state_dict", _OFFLOADED),
    PrivateName("diffusers", "group-offloaded module", "_diffusers_hook", _GROUP_OFFLOADED),
    PrivateName("diffusers", "HookRegistry", "hooks", _GROUP_OFFLOADED),
    PrivateName("diffusers", "HookRegistry.hooks", "group_offloading", _GROUP_OFFLOADED),
    PrivateName("diffusers", "GroupOffloadingHook", "group", _GROUP_OFFLOADED),
    PrivateName("diffusers", "ModuleGroup", "stream", _GROUP_OFFLOADED),
    PrivateName("diffusers", "ModuleGroup", "offload_to_disk_path", _GROUP_OFFLOADED),
    PrivateName("diffusers", "AutoencoderKL", "_tiled_encode", _TILED),
    PrivateName("diffusers", "AutoencoderKL", "tiled_decode", _TILED),
    PrivateName("diffusers", "AutoencoderDC", "tiled_encode", _TILED),
    PrivateName("diffusers", "AutoencoderTiny", "_tiled_decode", _TILED),
    PrivateName("diffusers", "config of a loaded model", "_name_or_path", "the name of an adapter's base"),
)
