"""A run on the cluster: rendered by the command line, applied by kubectl, and looked at from both sides."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from sftjob.contract import Component, ExitCode, JobAction, Label, keys
from sftjob.errors import NotFound
from sftjob.records import Export, Result, read_record
from sftjob.render import Manifest
from sftjob.storage import ObjectStore, list_commits
from tests.e2e.kubectl import Kubectl, Object, Objects, ended, exit_code

_LAST_CODES: Final = frozenset(code for code in ExitCode if code.action is JobAction.FAIL_JOB) | {ExitCode.DONE}
"""Of pods that have no successor."""


@dataclass(frozen=True, kw_only=True)
class ClusterRun:
    """Manifests of a run, the namespace they go to, and the run's own part of the store."""

    text: str
    kubectl: Kubectl
    store: ObjectStore

    @property
    def manifests(self) -> list[Object]:
        return [*yaml.safe_load_all(self.text)]

    @property
    def run_id(self) -> str:
        run_id: str = self.manifests[0]["metadata"]["labels"][Label.RUN_ID.value]
        return run_id

    def name(self, component: Component) -> str:
        """Of the component's Job or JobSet."""
        (name,) = (
            each["metadata"]["name"]
            for each in self.manifests
            if each["kind"] in ("Job", "JobSet") and each["metadata"]["labels"][Label.COMPONENT.value] == component
        )
        return str(name)

    def selector(self, component: Component) -> str:
        return f"{Label.RUN_ID.value}={self.run_id},{Label.COMPONENT.value}={component.value}"

    def apply(self) -> str:
        """By whoever has kubectl, client-side, as it does by default; returns what it says of each object."""
        return self.kubectl("apply", "--filename=-", stdin=self.text)

    def job(self, component: Component = Component.TRAIN, kind: str = "job") -> Object:
        return self.kubectl.get(kind, self.name(component))

    def pods(self, component: Component = Component.TRAIN) -> list[Object]:
        """Oldest first; deleted ones are missing."""
        found = self.kubectl.list("pods", self.selector(component))
        return sorted(found, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def until_ended(self, component: Component = Component.TRAIN, *, kind: str = "job", seconds: float = 600) -> Object:
        """The Job or JobSet when it is terminal, either way."""
        name = self.name(component)
        objects = self.until(kind, component, lambda them: bool(name in them and ended(them[name])), seconds=seconds)
        return objects[name]

    def until(
        self, kind: str, component: Component, done: Callable[[Objects], bool], *, what: str = "", seconds: float = 400
    ) -> Objects:
        """`Kubectl.until` among the component's objects."""
        what = what or f"{kind} {component.value} of {self.run_id} at its end"
        return self.kubectl.until(kind, done, what=what, selector=self.selector(component), seconds=seconds)

    def until_running(self, component: Component = Component.TRAIN, *, count: int = 1) -> list[Object]:
        """The component's live pods, when there are `count` of them."""

        def live(pods: Objects) -> list[Object]:
            _refuse_ends(pods.values())
            return [pod for pod in pods.values() if is_live(pod)]

        pods = self.until(
            "pods", component, lambda them: len(live(them)) == count, what=f"{count} running pods of {component.value}"
        )
        return live(pods)

    def until_committed(self, *, after: int = 0, seconds: float = 400) -> int:
        """The newest committed step, when it is beyond `after`; fails when training ends before."""
        deadline = time.monotonic() + seconds
        while True:
            if (newest := max(list_commits(self.store), default=0)) > after:
                return newest
            assert time.monotonic() < deadline, f"no commit beyond step {after} in {seconds:.0f} s"
            _refuse_ends(self.pods())
            time.sleep(0.5)

    @property
    def export(self) -> Export | None:
        """What the run has published; None while it has not."""
        try:
            return read_record(Export, self.store.get_bytes(keys.SUCCESS), keys.SUCCESS)
        except NotFound:
            return None

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of the exported weights by file name: equal when training went the same way, bit for bit."""
        assert self.export, "the run has no _SUCCESS"
        return {each.path: each.sha256 for each in self.export.files if each.path.endswith(".safetensors")}

    def result(self, attempt: int, index: int = 0) -> Result:
        key = keys.result(attempt, index)
        return read_record(Result, self.store.get_bytes(key), key)


def render_run(
    spec: Path, profile: Path, kubectl: Kubectl, root: ObjectStore, *, overrides: Sequence[str]
) -> ClusterRun:
    """`sftjob render SPEC --profile PROFILE --set …`."""
    sets = [part for each in overrides for part in ("--set", each)]
    command = [sys.executable, "-m", "sftjob.cli", "render", str(spec), "--profile", str(profile), *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first: Manifest = next(yaml.safe_load_all(done.stdout))
    run_id = first["metadata"]["labels"][Label.RUN_ID.value]
    return ClusterRun(text=done.stdout, kubectl=kubectl, store=root.at(str(run_id)))


def is_live(pod: Object) -> bool:
    """It runs, and nobody has asked it to stop."""
    return pod.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]


def _refuse_ends(pods: Iterable[Object]) -> None:
    """Fails where no pod will come any more, instead of waiting for one."""
    for pod in pods:
        code = exit_code(pod)
        assert code not in _LAST_CODES, f"{pod['metadata']['name']} ended with {code}"
