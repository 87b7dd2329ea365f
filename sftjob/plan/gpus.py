"""Common GPUs by the name that the node label `nvidia.com/gpu.product` gives them: memory and speed."""

import re
from dataclasses import dataclass, replace
from typing import Final

_GIB: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory: int
    """Bytes that PyTorch can use: less than the label on the box, since ECC and the driver take theirs."""
    bf16_flops: float
    """Dense bf16 FLOP/s of the data sheet, without sparsity; 0 where it computes no bf16."""
    source: str
    """Data sheet of the speed. Memory is what PyTorch reports as a device's total capacity."""


def _gpu(name: str, gib: float, tflops: float, source: str) -> Gpu:
    return Gpu(name=name, memory=int(gib * _GIB), bf16_flops=tflops * 1e12, source=source)


_AMPERE: Final = "NVIDIA A100 Tensor Core GPU data sheet"
_HOPPER: Final = "NVIDIA H100 Tensor Core GPU data sheet"
GPUS: Final[tuple[tuple[str, Gpu], ...]] = (
    (r"b200", _gpu("B200", 178.3, 2250, "NVIDIA DGX B200 data sheet")),
    (r"gh200", _gpu("GH200 96 GB", 94.5, 990, "NVIDIA GH200 Grace Hopper Superchip data sheet")),
    (r"h200", _gpu("H200", 139.7, 989, "NVIDIA H200 Tensor Core GPU data sheet")),
    (r"h100.*nvl", _gpu("H100 NVL", 93.1, 835, _HOPPER)),
    (r"h100.*pcie", _gpu("H100 PCIe", 79.1, 756, _HOPPER)),
    (r"h100", _gpu("H100 80 GB", 79.1, 989, _HOPPER)),
    (r"a100.*80gb", _gpu("A100 80 GB", 79.1, 312, _AMPERE)),
    (r"a100", _gpu("A100 40 GB", 39.4, 312, _AMPERE)),
    (r"l40s", _gpu("L40S", 44.3, 362, "NVIDIA L40S data sheet")),
    (r"l40(?!s)", _gpu("L40", 44.3, 181, "NVIDIA L40 data sheet")),
    (r"rtx-6000-ada", _gpu("RTX 6000 Ada", 47.4, 364, "data sheet: half of the sparse rate, as of the L40S")),
    (r"rtx-5090", _gpu("RTX 5090", 31.3, 209.5, "NVIDIA RTX Blackwell architecture white paper")),
    (r"rtx-4090", _gpu("RTX 4090", 23.6, 165.2, "NVIDIA Ada architecture white paper, float32 sums")),
    (r"rtx-3090", _gpu("RTX 3090", 23.6, 71, "NVIDIA GA102 white paper, float32 sums")),
    (r"a10g", _gpu("A10G", 22.0, 70, "NVIDIA A10G data sheet")),
    (r"\bl4\b", _gpu("L4", 21.9, 121, "NVIDIA L4 data sheet: half of the sparse rate")),
    (r"\bt4\b", _gpu("T4", 14.5, 0, "NVIDIA T4 data sheet; float16 only")),
    (r"v100.*32gb", _gpu("V100 32 GB", 31.7, 0, "NVIDIA V100 data sheet; float16 only")),
    (r"v100", _gpu("V100 16 GB", 15.7, 0, "NVIDIA V100 data sheet; float16 only")),
)
"""Pattern of a product's name in lower case → GPU; the first that is found."""
_MIG_USABLE: Final = 0.95
"""Of the gigabytes in the name of a MIG slice."""
_SLICES: Final = 7


def find_gpu(product: str | None) -> Gpu | None:
    """Looks a product up.

    Args:
        product: for instance `NVIDIA-A100-SXM4-80GB`, also with what the device plugin adds to it: `-SHARED`, or
            `-MIG-2g.20gb` for a slice, which has its share of memory and speed.

    Returns:
        None for what the table does not know.
    """
    if product is None:
        return None
    name = re.sub(r"[\s_]+", "-", product.lower())
    found = next((gpu for pattern, gpu in GPUS if re.search(pattern, name)), None)
    if found is None or (mig := re.search(r"mig-(\d+)g\.(\d+)gb", name)) is None:
        return found
    slices, gigabytes = int(mig[1]), int(mig[2])
    return replace(
        found,
        name=f"{found.name}, MIG {slices}g.{gigabytes}gb",
        memory=int(gigabytes * _MIG_USABLE * 1e9),
        bf16_flops=found.bf16_flops * slices / _SLICES,
    )


def is_shared(product: str | None) -> bool:
    """Whether other pods may take memory of the same GPU."""
    return product is not None and "SHARED" in product.upper()
