"""kubectl as a person uses it, for tests: manifests in, objects out, and waiting by watching."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

Object = dict[str, Any]
"""A Kubernetes object as JSON."""
Objects = Mapping[str, Object]
"""Objects by name."""

_TAIL: Final = 80
"""Lines of a pod's log that a failed test shows."""


class KubectlFailed(AssertionError):
    """kubectl ended with an error; the message is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster, and for one namespace in it where that is set."""

    kubeconfig: Path
    namespace: str | None = None

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 180) -> str:
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
        if done.returncode:
            raise KubectlFailed(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        namespace = [f"--namespace={self.namespace}"] if self.namespace else []
        return ["kubectl", f"--kubeconfig={self.kubeconfig}", *namespace, *arguments]

    def at(self, namespace: str) -> "Kubectl":
        return replace(self, namespace=namespace)

    def get(self, kind: str, name: str) -> Object:
        found: Object = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def list(self, kind: str, selector: str = "") -> list[Object]:
        items: list[Object] = json.loads(self("get", kind, f"--selector={selector}", "-o", "json"))["items"]
        return items

    def until(
        self, kind: str, done: Callable[[Objects], bool], *, what: str, selector: str = "", seconds: float = 300
    ) -> Objects:
        """Watches objects until `done` holds for all of them together, and returns them as they then were.

        Args:
            done: looked at after every change, deletions included.
            what: is waited for, for the message when it does not come in `seconds`.
        """
        watch = ["get", kind, f"--selector={selector}", "--watch", "--output-watch-events", "-o", "json"]
        objects: dict[str, Object] = {}
        end = time.monotonic() + seconds
        # A watch that the server ends, or that has fallen behind, begins anew with a list.
        while (left := end - time.monotonic()) > 0:
            objects = {}
            with subprocess.Popen(self.command(*watch), stdout=subprocess.PIPE, text=True) as process:
                timer = threading.Timer(left, process.kill)
                timer.start()
                try:
                    for line in process.stdout or ():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            break
                        name = event["object"]["metadata"]["name"]
                        if event["type"] == "DELETED":
                            objects.pop(name, None)
                        else:
                            objects[name] = event["object"]
                        if done(objects):
                            return objects
                finally:
                    timer.cancel()
                    process.kill()
        raise AssertionError(f"{what}: not in {seconds:.0f} s; {', '.join(map(_short, objects.values())) or 'nothing'}")

    def diagnosis(self) -> str:
        """Everything in the namespace that says why a test failed."""
        return "\n\n".join(f"--- {title}\n{text}" for title, text in self._diagnosis())

    def _diagnosis(self) -> Iterator[tuple[str, str]]:
        yield "objects", self._told("get", "jobs,pods", "-o", "wide")
        yield "events", self._told("get", "events", "--sort-by=.lastTimestamp")
        for pod in self._told("get", "pods", "-o", "name", "--sort-by=.metadata.creationTimestamp").split():
            yield f"log of {pod}", self._told("logs", pod, "--all-containers", "--timestamps", f"--tail={_TAIL}")

    def _told(self, *arguments: str) -> str:
        """What kubectl says, also when that is an error."""
        try:
            return self(*arguments)
        except (KubectlFailed, subprocess.TimeoutExpired) as error:
            return str(error)


def condition(job: Object, *types: str) -> Object | None:
    """The first condition of one of these types that holds, of a Job, a JobSet or a Pod."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] in types and each["status"] == "True"), None)


def ended(job: Object) -> Object | None:
    """How a Job or JobSet has ended: its terminal condition, or None while it has not."""
    return condition(job, "Complete", "Completed", "Failed")


def exit_code(pod: Object) -> int | None:
    """Of a pod's only container, when it has ended."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        if ended := status["state"].get("terminated"):
            return int(ended["exitCode"])
    return None


def _short(each: Object) -> str:
    status = {key: value for key, value in each.get("status", {}).items() if key in ("phase", "active", "failed")}
    return f"{each['metadata']['name']} {status} {ended(each) or ''}"
