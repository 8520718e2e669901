"""Holds memory on a GPU for a while, with nothing but the driver's own library.

python3 tests/gpu/hold_memory.py MIB SECONDS [GPU]
"""

from __future__ import annotations

import ctypes
import sys
import time


def main(mib: int, seconds: float, gpu: int = 0) -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    check("cuInit", cuda.cuInit(0))
    check("cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(device), gpu))
    check("cuDevicePrimaryCtxRetain", cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    check("cuCtxSetCurrent", cuda.cuCtxSetCurrent(context))
    check("cuMemAlloc", cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(mib << 20)))
    time.sleep(seconds)


def check(call: str, status: int) -> None:
    if status:
        sys.exit(f"{call} failed with CUDA error {status}")


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), *map(int, sys.argv[3:]))
