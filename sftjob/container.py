"""What all of our containers do alike: read the spec they were given, open the store, and leave a last message."""

import json
import sys
from pathlib import Path
from typing import Final

from sftjob.contract import Env, ExitCode
from sftjob.errors import InputMissing, SpecError
from sftjob.spec import JobSpec
from sftjob.spec.load import parse_spec_json
from sftjob.storage import ObjectStore, open_store

TERMINATION_LOG: Final = Path("/dev/termination-log")
"""Kubernetes shows its content as the container's message (terminationMessagePath); at most 4096 bytes."""
_REASON_BYTES: Final = 1900
"""Twice as many when all of them are escaped in JSON."""


def read_spec(path: Path) -> JobSpec:
    """The authored spec, as the ConfigMap carries it.

    Raises:
        InputMissing: there is none.
        SpecError: with every problem that it has.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = f"set {Env.SPEC} or --spec, or mount the ConfigMap"
        raise InputMissing(f"the spec cannot be read: {error.strerror}", file=str(path), hint=hint) from error
    return parse_spec_json(data, str(path))


def open_root(spec: JobSpec, storage_uri: str | None) -> ObjectStore:
    """The store at `<storage.uri>`; nothing is asked of it yet.

    Args:
        spec: names it, or leaves it to the platform.
        storage_uri: where runs live when the spec does not say.

    Raises:
        SpecError: no store is named.
    """
    uri = spec.storage.uri or storage_uri
    if uri is None:
        hint = "write s3://bucket/prefix or a folder into spec or profile"
        raise SpecError("no store is named", field="storage.uri", hint=hint)
    return open_store(uri, endpoint_url=spec.storage.endpoint_url, region=spec.storage.region)


def leave_message(code: ExitCode, reason: str, *, step: int | None = None) -> None:
    """Says how the container ended where `kubectl describe` and `sftjob status` look; nothing outside of a pod."""
    if not TERMINATION_LOG.is_file():
        return
    short = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
    message = {"exit_code": code, "reason": short, "step": step}
    try:
        TERMINATION_LOG.write_text(json.dumps(message, ensure_ascii=False))
    except OSError as error:
        print(f"{TERMINATION_LOG} was not written: {error.strerror}", file=sys.stderr)
