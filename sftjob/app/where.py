"""What a command's options say of cluster and store."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Where:
    """None: as the environment and the profile have it."""

    profile: str | None = None
    """File or name."""
    namespace: str | None = None
    context: str | None = None
    """Of the kubeconfig."""
    endpoint_url: str | None = None
    """Of the store as this machine reaches it."""
