"""Which run on which cluster a person means, and where its results are."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sftjob.app.profiles import find_profile
from sftjob.app.stores import open_from_here, open_root
from sftjob.app.where import Where
from sftjob.cluster.api import Cluster, Kind, connect
from sftjob.cluster.fields import part, parts, text
from sftjob.cluster.objects import Workload
from sftjob.cluster.phase import Run
from sftjob.cluster.runs import find_run_id
from sftjob.contract import SPEC_FILE, Env
from sftjob.errors import InputMissing, ObjectMissing, SftjobError
from sftjob.inputs import pin_local, silent
from sftjob.render import Json, Manifest
from sftjob.spec import JobSpec, Profile, Storage, config_map_name, load_spec, run_id
from sftjob.storage import ObjectStore

_SPEC_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One run on one cluster."""

    run_id: str
    cluster: Cluster
    profile: Profile
    endpoint_url: str | None = None
    spec: JobSpec | None = None
    """Where the run was named by its spec."""


def connect_to(where: Where, *, progress: Callable[[str], None] = silent) -> tuple[Cluster, Profile]:
    """The cluster, in the namespace of the option, else of the profile, else of the kubeconfig's context.

    Raises:
        ClusterUnavailable: no cluster is configured.
        SpecError: the profile is wrong.
    """
    profile = find_profile(where.profile, progress=progress)
    return connect(context=where.context, namespace=where.namespace or profile.namespace), profile


def find_target(reference: str, where: Where, *, progress: Callable[[str], None] = silent) -> Target:
    """The run that a person names by its id, by the beginning of one, or by its spec file.

    Raises:
        InputMissing: no such file, or no such run.
        SpecError: several runs begin so; the spec or the profile is wrong.
        ClusterError: the cluster does not answer.
    """
    cluster, profile = connect_to(where, progress=progress)
    path = Path(reference)
    if not reference.endswith(_SPEC_SUFFIXES) and not path.is_file():
        found = find_run_id(cluster, reference)
        return Target(run_id=found, cluster=cluster, profile=profile, endpoint_url=where.endpoint_url)
    loaded = load_spec(path)
    try:
        spec, _ = pin_local(loaded.spec, loaded.folder, progress=progress)
    except SftjobError as error:
        raise loaded.located(error) from error
    named = run_id(spec)
    return Target(run_id=named, cluster=cluster, profile=profile, endpoint_url=where.endpoint_url, spec=spec)


def open_run_store(target: Target, run: Run) -> ObjectStore:
    """The run's own part of the store, which has answered.

    Its address is that which the run's pods have, from the ConfigMap and the Job, unless an option or the profile has
    another one for this machine.

    Raises:
        InputMissing: nothing tells where the run's results are.
        SftjobError: the store does not answer, or refuses.
    """
    if target.spec is not None and not run.revision:
        return open_root(target.spec, target.profile, endpoint_url=target.endpoint_url).at(run.run_id)
    uri, storage = _address(target.cluster, run)
    return open_from_here(uri, storage, target.profile, endpoint_url=target.endpoint_url).at(run.run_id)


def evaluation_is_ours(cluster: Cluster, run: Run) -> bool:
    """Whether `kubernetes.evaluation: cli` leaves it to the client to start the evaluation."""
    return text(_authored(cluster, run), "kubernetes", "evaluation") == "cli"


def _address(cluster: Cluster, run: Run) -> tuple[str, Storage]:
    workload = run.train or run.evaluation
    said = part(_authored(cluster, run), "storage")
    given = _environment(workload) if workload else {}
    uri = text(said, "uri") or given.get(Env.STORAGE_URI.value)
    if not uri:
        reason = f"nothing in namespace {run.namespace} tells where the results of {run.run_id} are"
        raise InputMissing(reason, hint="name the run by its spec file, with --profile where it has one")
    endpoint = text(said, "endpoint_url") or given.get("AWS_ENDPOINT_URL_S3") or None
    region = text(said, "region") or given.get("AWS_REGION") or None
    return uri, Storage(endpoint_url=endpoint, region=region)


def _authored(cluster: Cluster, run: Run) -> Manifest:
    """The spec as the run's pods have it, unchecked: another version of sftjob may have written it."""
    try:
        data = cluster.get(Kind.CONFIG_MAP, config_map_name(run.run_id, run.revision))
    except (ObjectMissing, ValueError):
        return {}
    try:
        spec = json.loads(text(data, "data", SPEC_FILE))
    except ValueError:
        return {}
    return spec if isinstance(spec, dict) else {}


def _environment(workload: Workload) -> dict[str, str]:
    """Plain variables of its first container; dollars stand doubled in manifests."""
    job: Json = workload.manifest
    path = ("spec", "replicatedJobs", 0, "template") if workload.jobset else ()
    variables = parts(job, *path, "spec", "template", "spec", "containers", 0, "env")
    return {text(each, "name"): text(each, "value").replace("$$", "$") for each in variables}
