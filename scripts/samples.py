"""The rendered samples in k8s/samples: what `sftjob render` gives for our examples on our example platforms."""

from pathlib import Path
from typing import Final

from sftjob.app.manifests import manifests

ROOT: Final = Path(__file__).resolve().parent.parent
SAMPLES: Final = ROOT / "k8s" / "samples"
PLATFORMS: Final = {
    "llama-3.1-8b-lora": "eks",
    "llama-3.1-8b-qlora": "gke",
    "llama-3.1-8b-full": "aks",
    "llama-3.1-70b-qlora": "bare-metal",
}
"""Profile by example: each platform once, one node and several, plain Jobs and JobSet."""


def files() -> dict[str, str]:
    """Every sample, by its name below k8s/samples."""
    return {f"{spec}-{platform}.yaml": _sample(spec, platform) for spec, platform in PLATFORMS.items()}


def _sample(spec: str, platform: str) -> str:
    command = f"sftjob render examples/{spec}.yaml --profile examples/profiles/{platform}.yaml"
    text = manifests(ROOT / "examples" / f"{spec}.yaml", str(ROOT / "examples" / "profiles" / f"{platform}.yaml"), ())
    return f"# Generated: {command}\n{text}"
