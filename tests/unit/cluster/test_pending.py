from typing import Any

import pytest

from sftjob.cluster.objects import read_pod, read_workload
from sftjob.cluster.pending import Why, why_pending
from tests.unit.cluster.made import RUN, event, job, jobset, pod

JOB = f"{RUN}-9f3e-train"
POD = f"{JOB}-0-x7k2p"
DESCRIBE = f"kubectl describe pod {POD} -n ns"


def why(manifest: dict[str, Any], *pods: dict[str, Any], events: list[dict[str, Any]] | None = None) -> Why | None:
    return why_pending(read_workload(manifest), [read_pod(each) for each in pods], events or [])


def test_nothing_waits() -> None:
    assert why(job(), pod()) is None
    assert "has not made its next pod yet" in str(why(job(), pod(exit_code=75)))
    assert why(job(), pod(exit_code=1), pod(suffix="b")) is None


NEW = " no new claims to deallocate, preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling."
OLD = " preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pods"
UNSCHEDULABLE = [
    (
        f"0/5 nodes are available: 2 Insufficient nvidia.com/gpu, 3 node(s) had untolerated taint(s).{NEW}",
        "none of 5 nodes can take POD: 2 without 8 nvidia.com/gpu free; "
        "3 with taints that the profile's tolerations lack",
    ),
    (
        f"0/3 nodes are available: 3 Insufficient nvidia.com/gpu.{OLD}",
        "no node can take POD: all 3 without 8 nvidia.com/gpu free",
    ),
    ("0/1 nodes are available: 1 Insufficient cpu.", "no node can take POD: the only one without enough cpu free"),
    (
        "0/2 nodes are available: 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) were unschedulable.",
        "none of 2 nodes can take POD: 1 with the taint gpu=yes that the profile's tolerations lack; 1 cordoned",
    ),
    (
        "0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
        "no node can take POD: all 2 with the taint node.kubernetes.io/not-ready that the profile's tolerations lack",
    ),
    (
        "0/4 nodes are available: 4 node(s) had volume node affinity conflict.",
        "no node can take POD: all 4 had volume node affinity conflict",
    ),
    ("no nodes available to schedule pods", "POD cannot be scheduled: no nodes available to schedule pods"),
]


@pytest.mark.parametrize(("said", "told"), UNSCHEDULABLE, ids=[each[0][:60] for each in UNSCHEDULABLE])
def test_unschedulable(said: str, told: str) -> None:
    assert why(job(gpus=8), pod(unschedulable=said)) == Why(told.replace("POD", POD), DESCRIBE)


def test_the_product_that_was_asked_for_is_named() -> None:
    said = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."
    expression = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["H100", "H200"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    spec = {
        "nodeSelector": {"pool": "big"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
    }
    found = why(job(), pod(unschedulable=said, spec=spec))

    assert found is not None
    assert found.reason == f"no node can take {POD}: all 2 not pool=big, nvidia.com/gpu.product=H100 or H200"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'persistentvolumeclaim "cache" not found',
            f"{POD} needs PersistentVolumeClaim cache, which is not in namespace ns",
        ),
        (
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            f"{POD} waits for a volume: its PersistentVolumeClaim is not bound; kubectl describe pvc -n ns",
        ),
    ],
)
def test_a_volume_that_is_not_there(said: str, told: str) -> None:
    assert str(why(job(), pod(unschedulable=said))) == told


PULL = "failed to pull and unpack image: failed to resolve reference: "
BACK_OFF = 'Back-off pulling image "x": ErrImagePull: '
CONFIG = "CreateContainerConfigError"
NO_SECRET = "needs Secret hub, which is not in namespace ns; kubectl create secret generic hub -n ns --from-file=…"
NO_KEY = "needs the key token of Secret hub, which has none of that name; kubectl describe secret hub -n ns"
WAITING = [
    ("ErrImagePull", f"{PULL}reg/x: not found", "it is not in the registry; check images.train of the profile"),
    ("ErrImagePull", f"{PULL}401 Unauthorized", "access is denied; check image_pull_secrets of the profile"),
    ("ImagePullBackOff", f"{BACK_OFF}dial tcp: lookup reg: no such host", "the registry does not answer"),
    ("ErrImagePull", f"{PULL}tls: x509: signed by unknown authority", "certificate is not trusted by the node"),
    ("ImagePullBackOff", "Back-off pulling image", "the kubelet does not say why"),
    ("InvalidImageName", "couldn't parse", "'reg/sftjob@sha256:0' is no name of an image; correct images.train"),
    (CONFIG, 'secret "hub" not found', NO_SECRET),
    (CONFIG, 'configmap "c" not found', "needs ConfigMap c, which is not in namespace ns"),
    (CONFIG, "couldn't find key token in Secret ns/hub", NO_KEY),
    ("CreateContainerError", "context\ndeadline", f"cannot be started: context deadline; {DESCRIBE}"),
]


@pytest.mark.parametrize(("reason", "message", "told"), WAITING, ids=[f"{each[0]} {each[1][:30]}" for each in WAITING])
def test_a_container_that_does_not_start(reason: str, message: str, told: str) -> None:
    assert told in str(why(job(), pod(waiting=reason, message=message)))


STARTING = [
    ("FailedMount", 'MountVolume.SetUp failed for volume "aws" : secret "store" not found', "needs Secret store"),
    ("FailedMount", "Unable to attach or mount volumes: timed out", "cannot mount a volume: Unable to attach"),
    ("FailedCreatePodSandBox", "no IP left", "gets no sandbox on worker: no IP left"),
    ("Pulling", 'Pulling image "x"', f"worker pulls the image of {POD}"),
    ("Scheduled", "Successfully assigned", f"{POD} starts on worker"),
]


@pytest.mark.parametrize(("reason", "message", "told"), STARTING, ids=[each[0] + each[1][:9] for each in STARTING])
def test_a_pod_on_its_node(reason: str, message: str, told: str) -> None:
    assert told in str(why(job(), pod(phase="Pending"), events=[event(reason, message, POD)]))


def test_the_newest_event_counts_in_whatever_order_they_come() -> None:
    events = [event("Pulling", "", POD, minute=9), event("FailedMount", "x", POD, minute=3)]

    assert "pulls the image" in str(why(job(), pod(phase="Pending"), events=events))


def test_events_of_other_pods_do_not_count() -> None:
    assert "starts on worker" in str(why(job(), pod(phase="Pending"), events=[event("FailedMount", "x", "other")]))


def test_a_mistake_comes_before_a_full_cluster() -> None:
    full = pod(unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
    found = why(job(pods=2), full, pod(index=1, waiting="CreateContainerConfigError", message='secret "s" not found'))

    assert "needs Secret s" in str(found)


QUOTA = "exceeded quota: gpus, requested: requests.nvidia.com/gpu=8, used: 0, limited: 4"
SECURITY = 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
ACCOUNT = 'error looking up service account ns/a: serviceaccount "a" not found'
NO_PODS = [
    (QUOTA, f"no pod may be made: {QUOTA}; kubectl describe quota -n ns"),
    (SECURITY, f"no pod may be made: it {SECURITY}; kubectl get namespace ns --show-labels"),
    (ACCOUNT, f"no pod can be made: {ACCOUNT}; kubectl describe job {JOB} -n ns"),
]


@pytest.mark.parametrize(("said", "told"), NO_PODS, ids=["quota", "pod security", "service account"])
def test_pods_that_may_not_be_made(said: str, told: str) -> None:
    message = f'Error creating: pods "x" is forbidden: {said}'

    assert str(why(job(), events=[event("FailedCreate", message, JOB)])) == told


def test_a_job_that_has_made_no_pod_yet() -> None:
    assert str(why(job())) == f"{JOB} has no pods yet; kubectl describe job {JOB} -n ns"
    assert "kubectl describe jobset" in str(why(jobset()))


def test_kueue_says_what_is_missing() -> None:
    said = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu"
    found = why(job(suspend=True, queue="team"), events=[event("Pending", said, JOB)])

    assert str(found) == f"waits in the queue team (Kueue): {said}; kubectl get workloads.kueue.x-k8s.io -n ns"


def test_a_suspended_job_comes_with_the_command_that_resumes_it() -> None:
    found = str(why(job(suspend=True)))

    assert found.startswith(f"{JOB} is suspended; kubectl patch job {JOB} -n ns")
    assert found.endswith("""-p '{"spec":{"suspend":false}}'""")


def test_a_gated_pod() -> None:
    assert "held back by a scheduling gate" in str(why(job(), pod(gated=True)))
