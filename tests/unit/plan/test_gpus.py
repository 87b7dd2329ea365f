import pytest

from sftjob.plan.gpus import GPUS, find_gpu, is_shared

GIB = 2**30


@pytest.mark.parametrize(
    ("product", "name", "gigabytes"),
    [
        ("Tesla-T4", "T4", 15),
        ("NVIDIA-L4", "L4", 22),
        ("NVIDIA-A10G", "A10G", 22),
        ("NVIDIA-GeForce-RTX-3090", "RTX 3090", 24),
        ("NVIDIA-GeForce-RTX-4090", "RTX 4090", 24),
        ("NVIDIA-GeForce-RTX-5090", "RTX 5090", 31),
        ("NVIDIA-RTX-6000-Ada-Generation", "RTX 6000 Ada", 47),
        ("NVIDIA-L40S", "L40S", 44),
        ("NVIDIA-A100-SXM4-40GB", "A100 40 GB", 39),
        ("NVIDIA-A100-PCIE-40GB", "A100 40 GB", 39),
        ("NVIDIA-A100-SXM4-80GB", "A100 80 GB", 79),
        ("NVIDIA-A100-80GB-PCIe", "A100 80 GB", 79),
        ("NVIDIA-H100-80GB-HBM3", "H100 80 GB", 79),
        ("NVIDIA-H100-PCIe", "H100 PCIe", 79),
        ("NVIDIA-H100-NVL", "H100 NVL", 93),
        ("NVIDIA-H200", "H200", 140),
        ("NVIDIA-B200", "B200", 178),
        ("NVIDIA-GH200-480GB", "GH200 96 GB", 94),
        ("Tesla-V100-SXM2-16GB", "V100 16 GB", 16),
        ("Tesla-V100-SXM2-32GB", "V100 32 GB", 32),
        ("NVIDIA-H100-80GB-HBM3-SHARED", "H100 80 GB", 79),
    ],
)
def test_products(product: str, name: str, gigabytes: float) -> None:
    gpu = find_gpu(product)

    assert gpu is not None
    assert gpu.name == name
    assert gpu.memory / GIB == pytest.approx(gigabytes, abs=0.6)


def test_a_slice_has_its_share() -> None:
    gpu = find_gpu("NVIDIA-A100-SXM4-80GB-MIG-3g.40gb")

    assert gpu is not None
    assert gpu.memory == 38_000_000_000
    assert gpu.bf16_flops == pytest.approx(312e12 * 3 / 7)


@pytest.mark.parametrize("product", [None, "", "NVIDIA-Z9", "AMD-MI300X", "GT400"])
def test_unknown(product: str | None) -> None:
    assert find_gpu(product) is None


def test_old_ones_compute_no_bf16() -> None:
    assert {gpu.name for _, gpu in GPUS if not gpu.bf16_flops} == {"T4", "V100 32 GB", "V100 16 GB"}


def test_shared() -> None:
    assert is_shared("NVIDIA-A10G-SHARED")
    assert not is_shared("NVIDIA-A10G")
    assert not is_shared(None)
