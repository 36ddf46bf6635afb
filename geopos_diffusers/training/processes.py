"""How a training script is started: on one process or several, with user errors as one line and exit code 2."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from accelerate import Accelerator

from ..errors import GeoPosError


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main` as a program: exit code 0, or 2 and one line on standard error for bad input."""
    try:
        start_cpu_processes()
        main()
    except (GeoPosError, OSError) as error:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:
            print(f"{os.path.basename(sys.argv[0])}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def end_run(accelerator: Accelerator) -> None:
    """Close the trackers and leave the process group, as the last act of every process of a run.

    The models that `accelerator.prepare` returned must be held no more. torch (2.13) hangs now and then where its
    wrapper for several processes is the last to hold the group: freeing it then waits for a thread of the group with
    Python's lock held, and that thread may need the lock to free the tensors of the last exchange. So the wrapper goes
    first.
    """
    gc.collect()
    accelerator.end_training()


def needs_cpu_group() -> bool:
    """Whether this is one of several processes without a GPU.

    accelerate joins such processes (torchrun, `accelerate launch --multi_gpu`) only when it is told to use the CPU;
    else each would train alone and write the same files.
    """
    several = int(os.environ.get("WORLD_SIZE", 1)) > 1
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return several and (device is None or device.type == "mps")


def start_cpu_processes() -> None:
    """Start the processes that `accelerate launch --cpu --num_processes N` was asked for.

    accelerate (1.4 to 1.15) starts N processes on CPUs only through MPI; without MPI it starts one and says nothing.
    Then this process is replaced by torch's own launcher, which runs the same script N times.
    """
    started = {"WORLD_SIZE", "LOCAL_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"} & set(os.environ)
    if started or os.environ.get("ACCELERATE_USE_CPU", "").lower() not in ("1", "true"):
        return
    import psutil

    count = launched_processes(psutil.Process().parent().cmdline())
    if count > 1:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        spec = sys.modules["__main__"].__spec__  # of a module that was started by `python -m`
        program = sys.argv if spec is None else ["--module", spec.name, *sys.argv[1:]]
        os.execv(sys.executable, [*command, *program])


def launched_processes(command: Sequence[str]) -> int:
    """The number of processes that an `accelerate launch` command line asks for; 1 if it is another command."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    if "launch" in command and any("accelerate" in word for word in command[: command.index("launch")]):
        arguments = list(command[command.index("launch") + 1 :])
    elif any(word.startswith("accelerate.commands.launch") or word.endswith("accelerate-launch") for word in command):
        start = next(index for index, word in enumerate(command) if "accelerate" in word)
        arguments = list(command[start + 1 :])
    else:
        return 1
    options = launch_command_parser().parse_known_args(arguments)[0]
    if options.num_processes is not None:
        return options.num_processes
    if options.config_file is not None or (os.path.isfile(default_config_file) and not options.cpu):
        return load_config_from_file(options.config_file).num_processes or 1
    return 1
