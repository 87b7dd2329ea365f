"""Kinds of objects and where the API serves them."""

from enum import Enum
from typing import Final

from sftjob.errors import SpecError
from sftjob.render import Manifest


class Kind(Enum):
    """An object's kind: group and version, its plural in paths, and whether a namespace holds it."""

    JOB = ("batch/v1", "jobs", "Job", True)
    JOBSET = ("jobset.x-k8s.io/v1alpha2", "jobsets", "JobSet", True)
    POD = ("v1", "pods", "Pod", True)
    CONFIG_MAP = ("v1", "configmaps", "ConfigMap", True)
    SERVICE = ("v1", "services", "Service", True)
    SERVICE_ACCOUNT = ("v1", "serviceaccounts", "ServiceAccount", True)
    ROLE = ("rbac.authorization.k8s.io/v1", "roles", "Role", True)
    ROLE_BINDING = ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", True)
    NETWORK_POLICY = ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", True)
    PVC = ("v1", "persistentvolumeclaims", "PersistentVolumeClaim", True)
    EVENT = ("v1", "events", "Event", True)
    NODE = ("v1", "nodes", "Node", False)
    NAMESPACE = ("v1", "namespaces", "Namespace", False)

    def __init__(self, api_version: str, plural: str, kind: str, namespaced: bool) -> None:
        self.api_version = api_version
        self.plural = plural
        self.kind = kind
        self.namespaced = namespaced

    @property
    def resource(self) -> str:
        """As kubectl takes it without doubt: `jobs`, `jobsets.jobset.x-k8s.io`."""
        group, _, version = self.api_version.partition("/")
        return f"{self.plural}.{group}" if version and group != "batch" else self.plural

    def path(self, namespace: str | None = None, name: str = "") -> str:
        """Path of one object, or of a collection without `name`; over all namespaces without `namespace`."""
        root = "/apis" if "/" in self.api_version else "/api"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}/{self.api_version}{within}/{self.plural}" + (f"/{name}" if name else "")


_KINDS: Final = {(kind.api_version, kind.kind): kind for kind in Kind}


def kind_of(manifest: Manifest) -> Kind:
    """The kind that an object says it is.

    Raises:
        SpecError: one that is not served here.
    """
    named = (str(manifest.get("apiVersion")), str(manifest.get("kind")))
    if named not in _KINDS:
        raise SpecError(f"{named[0]} {named[1]} is no kind that sftjob handles")
    return _KINDS[named]
