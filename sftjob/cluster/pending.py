"""Why nothing runs, in plain words with the next command. Pure: from the pod, its Job and their events.

The scheduler's and the kubelet's sentences have no schema. What is not recognised is passed on as they say it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sftjob.cluster.fields import part, parts, text
from sftjob.cluster.objects import Pod, Waiting, Workload
from sftjob.render import Manifest


@dataclass(frozen=True)
class Why:
    """A reason and the next command."""

    reason: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.reason}; {self.hint}" if self.hint else self.reason


def why_pending(workload: Workload, pods: Sequence[Pod], events: Iterable[Manifest]) -> Why | None:
    """The most telling reason why a Job has pods that have not started; None when all have.

    Args:
        workload: the Job or JobSet.
        pods: of it.
        events: of these pods and of the Job itself, in any order.
    """
    told = sorted(events, key=_event_time)
    if workload.suspended:
        return _suspended(workload, told)
    waiting = [pod for pod in pods if not pod.started and not pod.ended and not pod.deleting]
    if waiting:
        return min((_of_pod(pod, workload.namespace, told) for pod in waiting), key=lambda found: found[0])[1]
    if all(pod.ended for pod in pods):
        return _without_pods(workload, told, again=bool(pods))
    return None


Ranked = tuple[int, Why]
"""A person's mistake comes before a full cluster, and that before what passes by itself."""
_MISTAKE, _FULL, _PASSING = range(3)


def _suspended(workload: Workload, events: Sequence[Manifest]) -> Why:
    kind = "jobset" if workload.jobset else "job"
    if not workload.queue:
        resume = f"kubectl patch {kind} {workload.name} -n {workload.namespace} --type merge"
        return Why(f"{workload.name} is suspended", f'{resume} -p \'{{"spec":{{"suspend":false}}}}\'')
    said = _last(events, "Pending", name=workload.name)
    because = f": {said}" if said else ""
    hint = f"kubectl get workloads.kueue.x-k8s.io -n {workload.namespace}"
    return Why(f"waits in the queue {workload.queue} (Kueue){because}", hint)


def _without_pods(workload: Workload, events: Sequence[Manifest], *, again: bool) -> Why:
    namespace = workload.namespace
    kind = "jobset" if workload.jobset else "job"
    said = _last(events, "FailedCreate") or _last(events, "JobCreationFailed")
    if not said:
        missing = "has not made its next pod yet" if again else "has no pods yet"
        return Why(f"{workload.name} {missing}", f"kubectl describe {kind} {workload.name} -n {namespace}")
    reason = said.removeprefix("Error creating: ").partition(" is forbidden: ")[2] or said
    if "exceeded quota" in reason:
        return Why(f"no pod may be made: {reason}", f"kubectl describe quota -n {namespace}")
    if "violates PodSecurity" in reason:
        return Why(f"no pod may be made: it {reason}", f"kubectl get namespace {namespace} --show-labels")
    return Why(f"no pod can be made: {reason}", f"kubectl describe {kind} {workload.name} -n {namespace}")


def _of_pod(pod: Pod, namespace: str, events: Sequence[Manifest]) -> Ranked:
    describe = f"kubectl describe pod {pod.name} -n {namespace}"
    if pod.scheduling_gated:
        return _FULL, Why(f"{pod.name} is held back by a scheduling gate", describe)
    if pod.unschedulable:
        return _unschedulable(pod, namespace)
    if pod.waiting and pod.waiting.reason in _WAITING:
        return _MISTAKE, _WAITING[pod.waiting.reason](pod, pod.waiting, namespace)
    own = [event for event in events if text(event, "involvedObject", "name") == pod.name]
    if not pod.node:
        return _PASSING, Why(f"{pod.name} waits for the scheduler", describe)
    return _starting(pod, namespace, own)


def _starting(pod: Pod, namespace: str, events: Sequence[Manifest]) -> Ranked:
    """It has a node. What it waits for there only its events tell, of which the newest counts."""
    describe = f"kubectl describe pod {pod.name} -n {namespace}"
    newest = next((event for event in reversed(events) if text(event, "reason") in _STARTING), {})
    said = " ".join(text(newest, "message").split())
    match text(newest, "reason"):
        case "FailedMount" | "FailedAttachVolume":
            if found := _ABSENT.search(said):
                return _MISTAKE, _absent(pod, found[1], found[2], namespace)
            return _MISTAKE, Why(f"{pod.name} cannot mount a volume: {said}", describe)
        case "FailedCreatePodSandBox":
            return _MISTAKE, Why(f"{pod.name} gets no sandbox on {pod.node}: {said}", describe)
        case "Pulling":
            return _PASSING, Why(f"{pod.node} pulls the image of {pod.name}")
        case _:
            return _PASSING, Why(f"{pod.name} starts on {pod.node}")


_STARTING: Final = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Pulling", "Pulled", "Started"}
_ABSENT: Final = re.compile(
    r'(secret|configmap|serviceaccount|persistentvolumeclaim) "([^"]+)" (?:is )?not found', re.I
)
_NO_KEY: Final = re.compile(r"couldn't find key (\S+) in (Secret|ConfigMap) [^/\s]+/(\S+)")


def _absent(pod: Pod, kind: str, name: str, namespace: str) -> Why:
    shown = {"secret": "Secret", "configmap": "ConfigMap", "serviceaccount": "ServiceAccount"}.get(
        kind.lower(), "PersistentVolumeClaim"
    )
    hint = f"kubectl create secret generic {name} -n {namespace} --from-file=…" if shown == "Secret" else ""
    return Why(f"{pod.name} needs {shown} {name}, which is not in namespace {namespace}", hint)


def _no_image(pod: Pod, waiting: Waiting, namespace: str) -> Why:
    image = waiting.image or text(pod.manifest, "spec", "containers", 0, "image")
    said = waiting.message.partition(": ")[2] if waiting.message.startswith("Back-off") else waiting.message
    because = _pull_problem(said)
    hint = f"check images.{pod.component or 'train'} of the profile"
    if because == "access is denied":
        hint = "check image_pull_secrets of the profile, and that the image exists"
    return Why(f"the image {image} of {pod.name} cannot be pulled: {because}", hint)


def _pull_problem(said: str) -> str:
    """The cause in a registry's long chain of sentences."""
    lower = said.lower()
    if any(word in lower for word in ("unauthorized", "denied", "forbidden", "authorization failed")):
        return "access is denied"
    if "not found" in lower or "manifest unknown" in lower:
        return "it is not in the registry"
    if any(word in lower for word in ("no such host", "connection refused", "i/o timeout", "deadline exceeded")):
        return "the registry does not answer"
    if "certificate" in lower or "x509" in lower:
        return "the registry's certificate is not trusted by the node"
    return " ".join(said.split())[:300] or "the kubelet does not say why"


def _bad_image_name(pod: Pod, waiting: Waiting, namespace: str) -> Why:
    image = waiting.image or text(pod.manifest, "spec", "containers", 0, "image")
    return Why(f"{image!r} is no name of an image", f"correct images.{pod.component or 'train'} of the profile")


def _bad_config(pod: Pod, waiting: Waiting, namespace: str) -> Why:
    if found := _ABSENT.search(waiting.message):
        return _absent(pod, found[1], found[2], namespace)
    if found := _NO_KEY.search(waiting.message):
        reason = f"{pod.name} needs the key {found[1]} of {found[2]} {found[3]}, which has none of that name"
        return Why(reason, f"kubectl describe {found[2].lower()} {found[3]} -n {namespace}")
    reason = f"{pod.name} cannot be started: {' '.join(waiting.message.split()) or waiting.reason}"
    return Why(reason, f"kubectl describe pod {pod.name} -n {namespace}")


_WAITING: Final[dict[str, Callable[[Pod, Waiting, str], Why]]] = {
    "ImagePullBackOff": _no_image,
    "ErrImagePull": _no_image,
    "ErrImageNeverPull": _no_image,
    "RegistryUnavailable": _no_image,
    "InvalidImageName": _bad_image_name,
    "CreateContainerConfigError": _bad_config,
    "CreateContainerError": _bad_config,
    "RunContainerError": _bad_config,
    "StartError": _bad_config,
}
"""The kubelet's words for what does not pass by itself."""

_NODES: Final = re.compile(r"0/(\d+) nodes are available: (.*?)(?:\. .*|\.?)$", re.S)
"""What follows the first full stop speaks of preemption and claims."""
_CLAUSE: Final = re.compile(r"(\d+) (.*)", re.S)
_CLAIM: Final = re.compile(r'persistentvolumeclaim "([^"]+)" not found')
_TAINT: Final = re.compile(r"node\(s\) had (?:untolerated )?taint(?:\(s\))?(?: \{([^}]*)\})?")
"""Newer schedulers do not name the taint."""


def _unschedulable(pod: Pod, namespace: str) -> Ranked:
    describe = f"kubectl describe pod {pod.name} -n {namespace}"
    said = " ".join(pod.unschedulable.split())
    if found := _CLAIM.search(said):
        return _MISTAKE, _absent(pod, "persistentvolumeclaim", found[1], namespace)
    if "unbound immediate PersistentVolumeClaims" in said:
        reason = f"{pod.name} waits for a volume: its PersistentVolumeClaim is not bound"
        return _MISTAKE, Why(reason, f"kubectl describe pvc -n {namespace}")
    nodes = _NODES.match(said)
    if not nodes:
        return _FULL, Why(f"{pod.name} cannot be scheduled: {said}", describe)
    clauses = [found for each in nodes[2].split(", ") if (found := _CLAUSE.match(each))]
    told = [(int(clause[1]), _clause(pod, clause[2])) for clause in clauses]
    if len(told) == 1 and told[0][0] == int(nodes[1]):
        count, words = told[0]
        which = f"all {count}" if count > 1 else "the only one"
        return _FULL, Why(f"no node can take {pod.name}: {which} {words}", describe)
    each = "; ".join(f"{count} {words}" for count, words in told)
    return _FULL, Why(f"none of {nodes[1]} nodes can take {pod.name}: {each or nodes[2]}", describe)


def _clause(pod: Pod, said: str) -> str:
    """What is true of some nodes, to go on from `3` or `all`."""
    if said.startswith("Insufficient "):
        resource = said.removeprefix("Insufficient ")
        return f"without {_asked(pod, resource)} {resource} free"
    if found := _TAINT.match(said):
        key, _, value = (found[1] or "").partition(": ")
        named = f"the taint {key}{f'={value}' if value.strip() else ''}" if key else "taints"
        return f"with {named} that the profile's tolerations lack"
    if said.startswith("node(s) didn't match") and ("affinity" in said or "selector" in said):
        return f"not {_selected(pod)}"
    if said == "node(s) were unschedulable":
        return "cordoned"
    return said.removeprefix("node(s) ")


def _asked(pod: Pod, resource: str) -> str:
    """How much of a resource the pod asks for; `enough` where its manifest does not say."""
    containers = parts(pod.manifest, "spec", "containers")
    for kind in ("requests", "limits"):
        for container in containers:
            if amount := part(container, "resources", kind).get(resource):
                return str(amount)
    return "enough"


def _selected(pod: Pod) -> str:
    """What the pod demands of a node's labels."""
    wanted = [f"{key}={value}" for key, value in part(pod.manifest, "spec", "nodeSelector").items()]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    affinity = part(pod.manifest, "spec", "affinity", "nodeAffinity", required)
    for term in parts(affinity, "nodeSelectorTerms"):
        for expression in parts(term, "matchExpressions"):
            values = expression.get("values")
            shown = " or ".join(map(str, values)) if isinstance(values, list) else text(expression, "operator")
            wanted.append(f"{text(expression, 'key')}={shown}")
    return ", ".join(wanted) or "what its affinity asks for"


def _last(events: Sequence[Manifest], reason: str, *, name: str = "") -> str:
    """The newest message of a kind."""
    for event in reversed(events):
        if text(event, "reason") == reason and name in ("", text(event, "involvedObject", "name")):
            return " ".join(text(event, "message").split())
    return ""


def _event_time(event: Manifest) -> str:
    """RFC 3339 in UTC sorts as text. Of the two kinds of events each fills in its own field."""
    series = text(event, "series", "lastObservedTime")
    return series or text(event, "lastTimestamp") or text(event, "eventTime") or text(event, "firstTimestamp")
