"""Labels, annotations, taints and variables: what Kubernetes takes, and what sftjob sets itself."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from sftjob.errors import Problem
from sftjob.spec import JobSpec, Profile
from sftjob.spec.profile import Toleration

_RESERVED_PREFIXES: Final = frozenset({"sftjob.dev", "app.kubernetes.io", "batch.kubernetes.io", "jobset.sigs.k8s.io"})
_RESERVED_KEYS: Final = frozenset({"controller-uid", "job-name"})
"""Old names of the Job controller's own labels, which it still sets."""
_QUEUE_PREFIX: Final = "kueue.x-k8s.io"
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RESERVED_VARIABLE: Final = re.compile(
    r"(SFTJOB|AWS|PET)_\w*|JOB_COMPLETION_INDEX|MASTER_(ADDR|PORT)|(LOCAL_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE"
)
"""What pods, the store's client and torchrun go by."""


def pair_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    """Yields keys and values that the cluster would refuse, or that would clash with ours."""
    labels = (
        ("kubernetes.labels", spec.kubernetes.labels),
        ("profile.pod_labels", profile.pod_labels),
    )
    annotations = (
        ("kubernetes.annotations", spec.kubernetes.annotations),
        ("profile.pod_annotations", profile.pod_annotations),
    )
    for field, pairs in (*labels, *annotations):
        yield from _reserved_problems(pairs, field, queued=profile.queue is not None)
    for field, pairs in (*labels, ("profile.node_selector", profile.node_selector)):
        yield from _label_problems(pairs, field)
    for field, keys in (
        *annotations,
        ("profile.service_account.annotations", profile.service_account.annotations),
        ("profile.extra_resources", profile.extra_resources),
    ):
        yield from _key_problems(keys, field)
    yield from _toleration_problems(profile.tolerations)
    for name in profile.env:
        if _RESERVED_VARIABLE.fullmatch(name):
            yield Problem(
                field=f"profile.env.{name}", reason="is set by sftjob, Kubernetes or torchrun itself", hint="remove it"
            )


def _reserved_problems(pairs: Mapping[str, str], field: str, *, queued: bool) -> Iterator[Problem]:
    for key in pairs:
        prefix, _, _ = key.rpartition("/")
        if prefix in _RESERVED_PREFIXES or key in _RESERVED_KEYS or (queued and prefix == _QUEUE_PREFIX):
            yield Problem(field=f"{field}.{key}", reason="is set by sftjob or Kubernetes itself", hint="remove it")


def _label_problems(pairs: Mapping[str, str], field: str) -> Iterator[Problem]:
    yield from _key_problems(pairs, field)
    for key, value in pairs.items():
        if value and not _NAME.fullmatch(value):
            yield Problem(
                field=f"{field}.{key}",
                reason=f"{value!r} is no label value",
                hint="use at most 63 letters, digits and `.-_`, with a letter or digit at both ends",
            )


def _key_problems(pairs: Mapping[str, object], field: str) -> Iterator[Problem]:
    for key in pairs:
        prefix, slash, name = key.rpartition("/")
        valid_prefix = not slash or (len(prefix) <= 253 and _DNS_SUBDOMAIN.fullmatch(prefix))
        if not (valid_prefix and _NAME.fullmatch(name)):
            yield Problem(
                field=f"{field}.{key}",
                reason="is no Kubernetes key",
                hint="write `name` or `domain/name`, the name with at most 63 letters, digits and `.-_`",
            )


def _toleration_problems(tolerations: tuple[Toleration, ...]) -> Iterator[Problem]:
    for index, toleration in enumerate(tolerations):
        field = f"profile.tolerations.{index}"
        if toleration.operator == "Exists" and toleration.value:
            yield Problem(field=field, reason="`operator: Exists` has no `value`", hint="remove one of them")
        if toleration.operator == "Equal" and not toleration.key:
            yield Problem(
                field=field, reason="names no `key`", hint="name one, or write `operator: Exists` for all taints"
            )
