"""Where the cluster is and who we are to it: a kubeconfig, or a pod's own token. Read by the official client."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from kubernetes import config

from sftjob.errors import ClusterUnavailable, Denied

_IN_CLUSTER_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def load_kubeconfig(configuration: Any, files: str, context: str | None) -> str | None:
    """Fills in the configuration; returns the context's namespace."""
    try:
        with _told_plugin_failures():
            config.load_kube_config(files, context=context, client_configuration=configuration)
        contexts, current = config.list_kube_config_contexts(files)
    except config.ConfigException as error:
        reason = " ".join(str(error).split()).removeprefix("Invalid kube-config file. ")
        raise ClusterUnavailable(reason, file=files, hint="kubectl config get-contexts") from error
    except Denied:
        raise
    except Exception as error:
        # Files that are no YAML, or not of that shape: the official client lets all kinds of errors out.
        reason = f"this is no kubeconfig ({type(error).__name__}: {' '.join(str(error).split())})"
        raise ClusterUnavailable(reason, file=files, hint="kubectl config view") from error
    chosen = next((each for each in contexts if each["name"] == context), current)
    return str(chosen["context"].get("namespace") or "") or None


def load_in_cluster(configuration: Any) -> str | None:
    """Fills in the configuration; returns the pod's namespace."""
    try:
        config.load_incluster_config(client_configuration=configuration)
        return _IN_CLUSTER_NAMESPACE.read_text().strip() or None
    except (config.ConfigException, OSError) as error:
        hint = "give the pod a service account token, or set KUBECONFIG"
        raise ClusterUnavailable(f"no cluster is configured: {error}", hint=hint) from error


@contextmanager
def _told_plugin_failures() -> Iterator[None]:
    """The official client logs a credential plugin's failure and goes on without credentials."""
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    if said:
        raise Denied(f"the kubeconfig's credential plugin failed: {said[0]}", hint="log in again; kubectl auth whoami")
