"""What NVIDIA's driver says about a GPU, in the original's words (Caffe::DeviceQuery of common.cpp).

Asks the driver itself and not torch: the original says more than torch knows, and a machine whose torch is missing or
too old is where one looks.
"""

from __future__ import annotations

import ctypes
from typing import Any

from pycaffe.errors import DeviceError

__all__ = ["describe_gpu", "gpu_name"]

# CUdevice_attribute of cuda.h.
MAX_THREADS_PER_BLOCK, MAX_BLOCK_DIM, MAX_GRID_DIM, MAX_SHARED_MEMORY_PER_BLOCK, TOTAL_CONSTANT_MEMORY = 1, 2, 5, 8, 9
WARP_SIZE, MAX_PITCH, MAX_REGISTERS_PER_BLOCK, CLOCK_RATE, TEXTURE_ALIGNMENT = 10, 11, 12, 13, 14
GPU_OVERLAP, MULTIPROCESSOR_COUNT, KERNEL_EXEC_TIMEOUT, CAPABILITY_MAJOR, CAPABILITY_MINOR = 15, 16, 17, 75, 76


def gpu_name(index: int) -> str:
    """The name of a GPU, such as "NVIDIA H100 80GB HBM3".

    Raises:
        DeviceError: the driver is missing or refuses.
    """
    driver, device = _open(index)
    name = ctypes.create_string_buffer(256)
    _check(driver.cuDeviceGetName(name, len(name), device))
    return name.value.decode(errors="replace")


def describe_gpu(index: int) -> list[tuple[int, str]]:
    """Lines of common.cpp, each with its number there.

    Raises:
        DeviceError: the driver is missing or refuses.
    """
    driver, device = _open(index)
    total = ctypes.c_size_t()
    _check(driver.cuDeviceTotalMem_v2(ctypes.byref(total), device))

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), number, device))
        return value.value

    def three(number: int) -> str:
        return ", ".join(str(attribute(number + axis)) for axis in range(3))

    return [
        (178, f"Device id:                     {index}"),
        (179, f"Major revision number:         {attribute(CAPABILITY_MAJOR)}"),
        (180, f"Minor revision number:         {attribute(CAPABILITY_MINOR)}"),
        (181, f"Name:                          {gpu_name(index)}"),
        (182, f"Total global memory:           {total.value}"),
        (183, f"Total shared memory per block: {attribute(MAX_SHARED_MEMORY_PER_BLOCK)}"),
        (184, f"Total registers per block:     {attribute(MAX_REGISTERS_PER_BLOCK)}"),
        (185, f"Warp size:                     {attribute(WARP_SIZE)}"),
        (186, f"Maximum memory pitch:          {attribute(MAX_PITCH)}"),
        (187, f"Maximum threads per block:     {attribute(MAX_THREADS_PER_BLOCK)}"),
        (188, f"Maximum dimension of block:    {three(MAX_BLOCK_DIM)}"),
        (191, f"Maximum dimension of grid:     {three(MAX_GRID_DIM)}"),
        (194, f"Clock rate:                    {attribute(CLOCK_RATE)}"),
        (195, f"Total constant memory:         {attribute(TOTAL_CONSTANT_MEMORY)}"),
        (196, f"Texture alignment:             {attribute(TEXTURE_ALIGNMENT)}"),
        (197, f"Concurrent copy and execution: {'Yes' if attribute(GPU_OVERLAP) else 'No'}"),
        (199, f"Number of multiprocessors:     {attribute(MULTIPROCESSOR_COUNT)}"),
        (200, f"Kernel execution timeout:      {'Yes' if attribute(KERNEL_EXEC_TIMEOUT) else 'No'}"),
    ]


def _open(index: int) -> tuple[Any, ctypes.c_int]:
    """The driver, and its handle of a GPU."""
    driver, device = _driver(), ctypes.c_int()
    _check(driver.cuInit(0))
    _check(driver.cuDeviceGet(ctypes.byref(device), index))
    return driver, device


def _driver() -> Any:
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise DeviceError("NVIDIA's driver was not found. Install it, or run on the CPU.")


def _check(status: int) -> None:
    if status != 0:
        raise DeviceError(f"NVIDIA's driver refused, with CUDA error {status!r}. `nvidia-smi` may say more.")
