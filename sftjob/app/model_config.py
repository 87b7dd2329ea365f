"""The config.json of the model that a spec names, wherever it is."""

import json
from pathlib import Path

from sftjob.errors import InputMissing, SftjobError
from sftjob.inputs import base_name
from sftjob.model_source import fetch_config
from sftjob.plan import ModelFacts, model_facts
from sftjob.spec import HubModel, LoadedSpec, LocalModel


def read_facts(loaded: LoadedSpec, config: Path | None) -> ModelFacts:
    """What the planner needs to know of a model.

    Args:
        loaded: names the model.
        config: config.json; without it a folder's, the hub's or the store's is read.

    Raises:
        InputMissing, Denied, NotFound, Unavailable: it cannot be had.
        ConfigurationError: it is that of no causal language model.
    """
    model = loaded.spec.model
    if config is None and not isinstance(model, LocalModel):
        return model_facts(_fetched(loaded))
    path = config or loaded.folder / Path(getattr(model, "path", "")).expanduser() / "config.json"
    try:
        read = json.loads(path.read_bytes())
    except OSError as error:
        raise InputMissing(
            f"cannot be read: {error.strerror}", file=str(path), hint="name the model's config.json"
        ) from error
    except ValueError as error:
        raise InputMissing("not JSON", file=str(path), hint="fetch the model's config.json again") from error
    return model_facts(read, file=str(path))


def _fetched(loaded: LoadedSpec) -> dict[str, object]:
    """From the hub or store, where they can be reached."""
    model, storage = loaded.spec.model, loaded.spec.storage
    try:
        return fetch_config(model, store_root=None, inputs={}, endpoint_url=storage.endpoint_url, region=storage.region)
    except SftjobError as error:
        where = "the hub" if isinstance(model, HubModel) else "its store"
        (first, *_) = error.problems
        raise type(error)(
            f"the config of {base_name(model)} cannot be had from {where}: {first.reason}",
            field="model",
            hint="give the model's config.json with --config",
        ) from error
