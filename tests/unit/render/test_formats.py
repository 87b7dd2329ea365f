import json
from collections.abc import Callable
from typing import Any

import yaml

from sftjob.place import place
from sftjob.render import manifest_files, manifests_json, render
from sftjob.spec import JobSpec, Profile

MakeSpec = Callable[..., JobSpec]


class TestFormats:
    def test_json_is_a_list_of_the_same_objects(self, make_spec: MakeSpec) -> None:
        objects = render(place(make_spec(), Profile()), make_spec())

        parsed = json.loads(manifests_json(objects))

        assert (parsed["kind"], parsed["apiVersion"]) == ("List", "v1")
        assert tuple(parsed["items"]) == objects

    def test_a_folder_sorts_as_it_is_applied(self, make_spec: MakeSpec) -> None:
        objects = render(place(make_spec(launch={"nodes": 2}), Profile()), make_spec(launch={"nodes": 2}))

        files = manifest_files(objects)

        assert sorted(files) == list(files)
        assert tuple(yaml.safe_load(text) for text in files.values()) == objects
        assert [name[3:] for name in files] == [
            "configmap-spec.yaml",
            "serviceaccount-pods.yaml",
            "serviceaccount-gate.yaml",
            "role-gate.yaml",
            "rolebinding-gate.yaml",
            "job-eval.yaml",
            "service-train.yaml",
            "job-train.yaml",
            "job-gate.yaml",
        ]

    def test_file_names_stay_when_the_revision_changes(self, make_spec: MakeSpec) -> None:
        one, other = make_spec(), make_spec(resources={"memory": "33Gi"})

        assert [*manifest_files(render(place(one, Profile()), one))] == [
            *manifest_files(render(place(other, Profile()), other))
        ]

    def test_a_kustomization_names_every_file(self, make_spec: MakeSpec) -> None:
        files = manifest_files(render(place(make_spec(), Profile()), make_spec()), kustomize=True)
        kustomization: Any = yaml.safe_load(files["kustomization.yaml"])

        assert kustomization["resources"] == [name for name in files if name != "kustomization.yaml"]
