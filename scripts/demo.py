"""Fine-tune the packaged model with GeoConv and two controls, score all, and write a page: runs/demo/index.html.

python scripts/demo.py --output runs/demo
"""

import sys

from experiments.demo.run import main

if __name__ == "__main__":
    sys.exit(main())
