{{- /* The gate, which lets the evaluation start, and its rights. Twin of sftjob/render/gate.py. Input of all: the run. */ -}}

{{- define "sftjob.gateServiceAccount" -}}
{{- $annotations := .placement.service_accounts.annotations -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "gate" "name" "gate" "annotations" $annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{- define "sftjob.gateRole" -}}
{{- $stem := include "sftjob.stem" . -}}{{- $gang := eq .placement.engine "jobset" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "gate" "name" "gate") | nindent 2 }}
rules:
- apiGroups: [{{ ternary "jobset.x-k8s.io" "batch" $gang }}]
  resources: [{{ ternary "jobsets" "jobs" $gang }}]
  resourceNames: [{{ $stem }}-train]
  verbs: [get]
- apiGroups: [batch]
  resources: [jobs]
  resourceNames: [{{ $stem }}-eval]
  verbs: [get, patch, delete]
{{- end -}}

{{- define "sftjob.gateRoleBinding" -}}
{{- $name := printf "%s-gate" (include "sftjob.stem" .) -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "gate" "name" "gate") | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
- kind: ServiceAccount
  name: {{ default $name .placement.service_accounts.gate | toRawJson }}
  {{- with .placement.namespace }}
  namespace: {{ toRawJson . }}
  {{- end }}
{{- end -}}

{{- define "sftjob.gateJob" -}}
{{- $gate := .constants.gate -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "gate" "name" "gate") | nindent 2 }}
spec:
  completionMode: Indexed
  completions: 1
  parallelism: 1
  backoffLimit: {{ $gate.backoffLimit }}
  podFailurePolicy: {{ toRawJson .constants.podFailurePolicy.gate }}
  podReplacementPolicy: Failed
  ttlSecondsAfterFinished: {{ .placement.ttl_seconds_after_finished }}
  template:
    {{- include "sftjob.pod" (dict
      "run" .
      "component" "gate"
      "container" "gate"
      "module" "sftjob.gate"
      "image" .placement.gate_image
      "graceSeconds" $gate.terminationGracePeriodSeconds
      "environment" (include "sftjob.gateEnvironment" .)
      "resources" (include "sftjob.gateResources" .)
    ) | nindent 4 }}
{{- end -}}

{{- define "sftjob.gateResources" -}}
{{- $resources := deepCopy .constants.gate.resources -}}
{{- if .placement.cpu_limit }}{{ $_ := set $resources.limits "cpu" .constants.gate.cpuLimit }}{{ end -}}
{{- toRawJson $resources -}}
{{- end -}}
