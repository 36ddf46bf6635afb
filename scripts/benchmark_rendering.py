"""Images per second of the renderer on one core, as JSON on standard output.

python scripts/benchmark_rendering.py --subject hands --size 64 --num-images 512

Loading the model is timed apart. CPU time leaves out what other programs took from this one; wall time does not.
"""

import argparse
import io
import json
import os
import platform
import time

from geopos_diffusers.command_line import Parser

os.environ.setdefault("OMP_NUM_THREADS", "1")


def measure(draw, count: int) -> dict[str, float]:
    """Seconds of wall and CPU time to draw `count` images and compress them to PNG."""
    wall, cpu = time.perf_counter(), time.process_time()
    for image, _ in draw(0, count):
        image.save(io.BytesIO(), "png", compress_level=1)
    return {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", choices=("hands", "faces"), default="hands")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--num-images", type=int, default=512, aliases=["--count"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    from geopos_diffusers.data.faces import FaceOptions, make_draw_faces
    from geopos_diffusers.data.hands import HandOptions, make_draw_hands

    start = time.perf_counter()
    if args.subject == "hands":
        draw = make_draw_hands(args.size, args.seed, HandOptions())
    else:
        draw = make_draw_faces(args.size, args.seed, FaceOptions())
    next(iter(draw(0, 1)))
    load_seconds = time.perf_counter() - start
    times = measure(draw, args.num_images)
    result = {
        "subject": args.subject,
        "size": args.size,
        "count": args.num_images,
        "load_seconds": round(load_seconds, 2),
        "images_per_second": round(args.num_images / times["wall_seconds"], 1),
        "images_per_cpu_second": round(args.num_images / times["cpu_seconds"], 1),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "load_average": [round(value, 1) for value in os.getloadavg()],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
