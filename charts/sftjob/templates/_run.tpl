{{- /* Which run this is, and all of its objects. Twin of sftjob/spec/identity.py and sftjob/render/__init__.py. */ -}}

{{- /* What every object is written from, as JSON: constants, authored (the spec as canonical JSON), runId, revision,
       placement. Input: the root context. It stops with what is wrong with the values. */ -}}
{{- define "sftjob.run" -}}
{{- $constants := .Files.Get "files/defaults.json" | fromJson -}}
{{- /* Through JSON once: numbers become what every reader of JSON makes of them, and the bytes are those of RFC 8785. */ -}}
{{- $authored := .Values.spec | toRawJson | fromJson -}}
{{- $input := dict
  "constants" $constants
  "runId" (include "sftjob.runId" $authored)
  "authored" (toRawJson $authored)
  "spec" (include "sftjob.filled" (list $constants.spec $authored) | fromJson)
  "profile" (include "sftjob.filled" (list $constants.profile (.Values.profile | toRawJson | fromJson)) | fromJson)
-}}
{{- include "sftjob.refuse" $input -}}
{{- $placement := include "sftjob.placement" $input | fromJson -}}
{{- $run := dict "constants" $constants "runId" $input.runId "authored" $input.authored "revision" "0000" -}}
{{- /* Names carry a hash over the objects themselves, as they are without namespace and without a revision. */ -}}
{{- $unnamed := include "sftjob.objects" (set $run "placement" (omit $placement "namespace")) -}}
{{- set (set $run "placement" $placement) "revision" ($unnamed | sha256sum | trunc 4) | toRawJson -}}
{{- end -}}

{{- /* `<name>-<8 hex>` over the blocks that change weights. Input: the authored spec. */ -}}
{{- define "sftjob.runId" -}}
{{- $blocks := pick . "model" "data" "method" "training" "launch" "salt" -}}
{{- printf "%s-%s" .name ($blocks | toRawJson | sha256sum | trunc 8) -}}
{{- end -}}

{{- /* `<run_id>-<4 hex>`, with which all names begin. Input: the run. */ -}}
{{- define "sftjob.stem" -}}
{{- printf "%s-%s" .runId .revision -}}
{{- end -}}

{{- /* All objects of a run as the JSON of a `List`, in the order in which they are applied. Input: the run. */ -}}
{{- define "sftjob.objects" -}}
{{- $placement := .placement -}}{{- $accounts := $placement.service_accounts -}}
{{- $names := list "sftjob.configMap" -}}
{{- if not $accounts.pods }}{{ $names = append $names "sftjob.serviceAccount" }}{{ end -}}
{{- if hasKey $placement "network_policy" }}{{ $names = append $names "sftjob.networkPolicy" }}{{ end -}}
{{- if (default dict $placement.model_cache).size }}{{ $names = append $names "sftjob.cacheClaim" }}{{ end -}}
{{- if $placement.gate_image -}}
  {{- if not $accounts.gate }}{{ $names = append $names "sftjob.gateServiceAccount" }}{{ end -}}
  {{- $names = concat $names (list "sftjob.gateRole" "sftjob.gateRoleBinding") -}}
{{- end -}}
{{- if $placement.evaluation }}{{ $names = append $names "sftjob.evaluationJob" }}{{ end -}}
{{- if eq $placement.engine "jobset" -}}
  {{- $names = append $names "sftjob.trainJobSet" -}}
{{- else -}}
  {{- if gt (int $placement.nodes) 1 }}{{ $names = append $names "sftjob.service" }}{{ end -}}
  {{- $names = append $names "sftjob.trainJob" -}}
{{- end -}}
{{- if $placement.gate_image }}{{ $names = append $names "sftjob.gateJob" }}{{ end -}}
{{- $objects := list -}}
{{- range $name := $names }}{{ $objects = append $objects (include "sftjob.parsed" (include $name $) | fromJson) }}{{ end -}}
{{- dict "apiVersion" "v1" "kind" "List" "items" $objects | toRawJson -}}
{{- end -}}

{{- /* YAML as JSON. Input: the text. `fromYaml` hides its errors in a key of the result. */ -}}
{{- define "sftjob.parsed" -}}
{{- $object := fromYaml . -}}
{{- if hasKey $object "Error" }}{{ fail (printf "%s\n%s" $object.Error .) }}{{ end -}}
{{- toRawJson $object -}}
{{- end -}}
