"""Keeps what MediaPipe's native code writes on its way off the screen."""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARY_NOISE = re.compile(r"^([IW]\d{4} \d\d:\d\d:|INFO: |WARNING: |$)")
_stderr_lock = threading.Lock()


@contextmanager
def quiet_library() -> Iterator[None]:
    """Drop the information and warning lines that MediaPipe's native code writes to standard error.

    They come from C++ and know no switch, so the file descriptor is redirected; everything else that was written in the
    meantime (errors, other threads' messages) is passed on afterwards.
    """
    with _stderr_lock, tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        original = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            caught.seek(0)
            for line in caught.read().decode("utf-8", "replace").splitlines(keepends=True):
                if not LIBRARY_NOISE.match(line):
                    sys.stderr.write(line)
