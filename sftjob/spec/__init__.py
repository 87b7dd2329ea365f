"""What people write: JobSpec and Profile, how a file becomes one, and which run a spec is."""

from sftjob.spec.data import (
    Data,
    DataSource,
    FileData,
    HubData,
    HubModel,
    LocalData,
    LocalModel,
    ModelSource,
    PinnedData,
    PinnedModel,
    StoredData,
    StoredModel,
    TemplateFile,
    TemplateText,
)
from sftjob.spec.identity import authored, canonical_json, canonical_spec, run_id, sha256_hex
from sftjob.spec.job import Evaluation, Export, Generation, JobSpec, Kubernetes, Monitoring, Resources, Storage
from sftjob.spec.launch import Launch, Strategy
from sftjob.spec.load import LoadedSpec, load_profile, load_spec, parse_spec_json
from sftjob.spec.method import METHOD_RULES, Full, Lora, Method, MethodRule, Qlora
from sftjob.spec.names import config_map_name, object_name, service_account_name
from sftjob.spec.profile import Profile
from sftjob.spec.schema import job_schema, profile_schema
from sftjob.spec.training import Optimizer, Training

__all__ = [
    "METHOD_RULES",
    "Data",
    "DataSource",
    "Evaluation",
    "Export",
    "FileData",
    "Full",
    "Generation",
    "HubData",
    "HubModel",
    "JobSpec",
    "Kubernetes",
    "Launch",
    "LoadedSpec",
    "LocalData",
    "LocalModel",
    "Lora",
    "Method",
    "MethodRule",
    "ModelSource",
    "Monitoring",
    "Optimizer",
    "PinnedData",
    "PinnedModel",
    "Profile",
    "Qlora",
    "Resources",
    "Storage",
    "StoredData",
    "StoredModel",
    "Strategy",
    "TemplateFile",
    "TemplateText",
    "Training",
    "authored",
    "canonical_json",
    "canonical_spec",
    "config_map_name",
    "job_schema",
    "load_profile",
    "load_spec",
    "object_name",
    "parse_spec_json",
    "profile_schema",
    "run_id",
    "service_account_name",
    "sha256_hex",
]
