"""A kind cluster and a registry beside it, from the tools on PATH: https://kind.sigs.k8s.io/docs/user/local-registry/."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TOOLS: Final = ("docker", "kind", "kubectl", "helm")
NAME: Final = f"sftjob-smoke-{os.getpid()}"
"""Of this session: another one may have a cluster of its own."""
REGISTRY: Final = "kind-registry"
"""The registry's container, by the name that kind's documentation gives it; one that runs already is used."""
ADDRESS: Final = "localhost:5001"
"""Under which this machine and the nodes call the registry."""
_CONFIG: Final = Path(__file__).parents[2] / "k8s" / "kind.yaml"
_HOSTS: Final = f"/etc/containerd/certs.d/{ADDRESS}"


def missing() -> str:
    """Why no cluster can be made here; empty when one can."""
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent:
        return f"not on PATH: {', '.join(absent)}"
    try:
        run("docker", "version", "--format", "{{.Server.Version}}")
    except subprocess.CalledProcessError as error:
        return f"no Docker engine: {error.stderr.strip()}"
    return ""


@contextmanager
def cluster(kubeconfig: Path) -> Iterator[None]:
    """A new cluster of two nodes, which pull from the registry. What a session that was killed has left is deleted."""
    image = [f"--image={node}"] if (node := os.environ.get("KIND_NODE_IMAGE")) else []
    place = [f"--name={NAME}", f"--kubeconfig={kubeconfig}"]
    for left in run("kind", "get", "clusters").split():
        session = left.removeprefix("sftjob-smoke-")
        if session != left and not Path("/proc", session).exists():
            run("kind", "delete", "cluster", f"--name={left}", f"--kubeconfig={kubeconfig}")
    try:
        run("kind", "create", "cluster", *place, *image, f"--config={_CONFIG}", "--wait=120s")
        for node in run("kind", "get", "nodes", f"--name={NAME}").split():
            run("docker", "exec", node, "mkdir", "-p", _HOSTS)
            hosts = f'[host."http://{REGISTRY}:5000"]'
            run("docker", "exec", "-i", node, "cp", "/dev/stdin", f"{_HOSTS}/hosts.toml", stdin=hosts)
        yield
    finally:
        run("kind", "delete", "cluster", *place)


@contextmanager
def registry() -> Iterator[None]:
    """A registry that the nodes of kind clusters can reach; enter it when a cluster is there."""
    if run("docker", "ps", "--quiet", f"--filter=name=^{REGISTRY}$"):
        yield
        return
    port = ADDRESS.rpartition(":")[2]
    run("docker", "run", "--detach", f"--name={REGISTRY}", f"--publish=127.0.0.1:{port}:5000", "registry:2")
    try:
        run("docker", "network", "connect", "kind", REGISTRY)
        yield
    finally:
        run("docker", "rm", "--force", "--volumes", REGISTRY)


def push(image: str, name: str) -> str:
    """Pushes an image of this machine's engine; returns the reference by digest under which nodes pull it."""
    repository = f"{ADDRESS}/{name}"
    run("docker", "tag", image, f"{repository}:smoke")
    run("docker", "push", f"{repository}:smoke")
    digests = run("docker", "inspect", '--format={{join .RepoDigests "\\n"}}', f"{repository}:smoke").split()
    return next(each for each in digests if each.startswith(f"{repository}@"))


def run(*command: str, stdin: str | None = None) -> str:
    """What a tool prints.

    Raises:
        CalledProcessError: with what it said in `stderr`.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolFailed(done.returncode, command, done.stdout, done.stderr)
    return done.stdout.strip()


class ToolFailed(subprocess.CalledProcessError):
    """Says what the tool said; CalledProcessError keeps it to itself."""

    def __str__(self) -> str:
        return f"{' '.join(self.cmd)}: {self.stderr.strip()}"
