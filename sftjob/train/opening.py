"""From a spec to a run that may be worked on: the store answers, the run is not done, and it is resolved once."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sftjob.container import open_root, read_spec
from sftjob.contract import LOCAL_OWNER, Env, keys
from sftjob.errors import ConfigurationError, DiskFull, Exists, Held, NotFound
from sftjob.model_source import fetch_config
from sftjob.plan import model_facts
from sftjob.records import Export, PodClaim, read_record
from sftjob.resolve import ResolvedJob, read_resolved, resolve
from sftjob.spec import JobSpec, run_id
from sftjob.storage import ObjectStore, claim_attempt, join_attempt, probe, record_lost
from sftjob.storage.base import exists
from sftjob.storage.local import local_errors
from sftjob.train.attempt import Attempt, now, say
from sftjob.train.settings import Settings
from sftjob.train.workdir import WorkDir

_FREE_BYTES: Final = 256 * 2**20
"""Below this nothing sensible fits; what a run needs is known, and checked, when its model is there."""
_TAKEOVER_SECONDS: Final = 180.0
"""On top of the grace period, how long another Job's attempt is waited for: a Helm upgrade starts the new one first."""


@dataclass(frozen=True)
class Run:
    """A run as a spec names it."""

    spec: JobSpec
    root: ObjectStore
    """At `<storage.uri>`, where inputs lie."""
    store: ObjectStore
    """At the run itself."""

    @property
    def done(self) -> bool:
        """Its training is durable."""
        return exists(self.store, keys.SUCCESS)

    @property
    def unmerged(self) -> bool:
        """It is done, and has published an adapter alone."""
        return read_record(Export, self.store.get_bytes(keys.SUCCESS), keys.SUCCESS).merged is None


def open_run(settings: Settings) -> Run:
    """Reads the spec and makes sure that the store answers and keeps its promises.

    Raises:
        SpecError: the spec is wrong or no store is named.
        Denied, NotFound, Unavailable: the store refuses, is not there, does not answer.
        ConfigurationError: the store has no conditional writes, or this pod has no place among the spec's nodes.
    """
    spec = read_spec(settings.spec)
    root = open_root(spec, settings.storage_uri)
    _check_place(spec.launch.nodes, settings)
    probe(root, single_writer=spec.storage.single_writer)
    return Run(spec, root, root.at(run_id(spec)))


def resolve_once(run: Run, settings: Settings) -> ResolvedJob:
    """The run's spec.json; the first attempt creates it.

    Raises:
        ConfigurationError: the stored one cannot be read by this version, or is that of another run.
        InputMissing, Denied: of the model's config.json.
    """
    try:
        stored = run.store.get_bytes(keys.SPEC)
    except NotFound:
        job = resolve(run.spec, model_facts(_config(run, settings)))
        try:
            run.store.put_bytes(keys.SPEC, job.to_json(), if_absent=True)
        except Exists:
            stored = run.store.get_bytes(keys.SPEC)  # another first attempt was quicker; it counts
        else:
            return job
    job = read_resolved(stored, f"{run.store.uri}/{keys.SPEC}")
    if job.run_id != run_id(run.spec):
        raise ConfigurationError(
            f"belongs to run {job.run_id}, this is {run_id(run.spec)}",
            file=f"{run.store.uri}/{keys.SPEC}",
            field="run_id",
            hint="the store has been moved or copied; use another storage.uri",
        )
    return job


def take_part(run: Run, job: ResolvedJob, settings: Settings) -> Attempt | None:
    """This pod's place in an attempt: pod 0 claims the run's next one, its peers join that.

    Returns:
        None where the run is done.

    Raises:
        Held: another Job holds the run and does not let go.
        Hang: pod 0 has claimed nothing for too long.
    """
    if settings.index == 0:
        return claim(run, job, settings)
    number = join_attempt(
        run.store,
        _pod(settings),
        owner=settings.owner,
        clock=time.monotonic,
        sleep=time.sleep,
        look_seconds=settings.look_seconds,
        patience_seconds=settings.patience_seconds,
    )
    if number is None:
        return None
    say(f"node {settings.index} of {job.launch.nodes} in attempt {number} of run {job.run_id} in {run.store.uri}")
    return Attempt(number, settings.owner, settings.index, job, run.store, WorkDir(settings.work))


def claim(run: Run, job: ResolvedJob, settings: Settings) -> Attempt:
    """Claims the run's next attempt and this pod's place in it.

    Raises:
        Held: another Job holds the run and does not let go.
    """
    number = claim_attempt(
        run.store,
        owner=settings.owner,
        pod_uid=settings.pod_uid,
        nodes=job.launch.nodes,
        clock=time.monotonic,
        sleep=time.sleep,
        patience_seconds=settings.grace_seconds + _TAKEOVER_SECONDS,
    )
    if job.launch.nodes > 1 and number > 1:
        record_lost(run.store, number - 1, owner=settings.owner, index=settings.index)
    run.store.put_bytes(keys.pod(number, settings.index), _pod(settings).to_json(), if_absent=True)
    run.store.abort_stale_uploads()
    say(f"attempt {number} of run {job.run_id} in {run.store.uri}")
    return Attempt(number, settings.owner, settings.index, job, run.store, WorkDir(settings.work))


@contextmanager
def held_folder(settings: Settings) -> Iterator[None]:
    """Keeps a second run out of the work folder while entered. Only outside a cluster: pods have folders of their own.

    Raises:
        Held: another process works there; its id is named.
        DiskFull: there is no room to begin with.
        Denied: it may not be written.
    """
    with local_errors(settings.work):
        settings.work.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.work).free
        file = (settings.work / "lock").open("a+")
    with file:
        if settings.owner == LOCAL_OWNER:
            _lock(file.fileno(), settings.work)
        if free < _FREE_BYTES:
            raise DiskFull(
                f"only {free / 1e6:.0f} MB are free", file=str(settings.work), hint="free space, or use another folder"
            )
        yield


def _check_place(nodes: int, settings: Settings) -> None:
    if settings.index >= nodes:
        raise ConfigurationError(
            f"this is pod {settings.index}, the spec asks for {nodes} node{'s' if nodes > 1 else ''}",
            field="launch.nodes",
            hint=f"start as many pods as nodes; {Env.POD_INDEX} counts them from 0",
        )
    if nodes > 1 and not settings.master_addr:
        raise ConfigurationError(
            f"the spec asks for {nodes} nodes, and nobody says where pod 0 is",
            field=Env.MASTER_ADDR,
            hint="set it to a name or address under which all pods reach pod 0, for instance <job>-0.<service>",
        )


def _pod(settings: Settings) -> PodClaim:
    """What tells this pod from its successor; outside a cluster that is the process."""
    return PodClaim(index=settings.index, pod_uid=settings.pod_uid or f"process-{os.getpid()}", time=now())


def _config(run: Run, settings: Settings) -> dict[str, object]:
    storage = run.spec.storage
    return fetch_config(
        run.spec.model,
        store_root=run.root,
        inputs=settings.inputs,
        endpoint_url=storage.endpoint_url,
        region=storage.region,
    )


def _lock(descriptor: int, folder: Path) -> None:
    """The kernel lets go of the lock when the process ends, however it ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise Held(
            f"process {holder} is running this already", file=str(folder), hint="wait for it, or stop it first"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
