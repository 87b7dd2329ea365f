{{- /* What every object says of itself. Twin of sftjob/render/manifest.py. */ -}}

{{- /* Input: run, component, name (without `<run_id>-<4 hex>-`); labels and annotations, if there are more. */ -}}
{{- define "sftjob.metadata" -}}
name: {{ include "sftjob.stem" .run }}-{{ .name }}
{{- with .run.placement.namespace }}
namespace: {{ toRawJson . }}
{{- end }}
labels: {{ include "sftjob.filled" (list (include "sftjob.labels" . | fromJson) (default dict .labels)) }}
{{- with .annotations }}
annotations: {{ toRawJson . }}
{{- end }}
{{- end -}}

{{- /* Ours and the user's, as JSON. Input: run, component. */ -}}
{{- define "sftjob.labels" -}}
{{- $ours := dict
  "app.kubernetes.io/name" "sftjob"
  "app.kubernetes.io/component" .component
  "app.kubernetes.io/managed-by" "sftjob"
  "sftjob.dev/run-id" .run.runId
  "sftjob.dev/revision" (include "sftjob.stem" .run)
-}}
{{- include "sftjob.filled" (list $ours .run.placement.labels) -}}
{{- end -}}

{{- /* By which Kueue finds a Job that it is to admit, as JSON. Input: the run. */ -}}
{{- define "sftjob.queueLabels" -}}
{{- $labels := dict -}}
{{- with .placement.queue -}}
  {{- $_ := set $labels "kueue.x-k8s.io/queue-name" .name -}}
  {{- with .priority_class }}{{ $_ := set $labels "kueue.x-k8s.io/priority-class" . }}{{ end -}}
{{- end -}}
{{- toRawJson $labels -}}
{{- end -}}

{{- /* Puts what Helm knows on an object. Input: root (the root context), object (it is changed). */ -}}
{{- define "sftjob.claim" -}}
{{- $metadata := .object.metadata -}}
{{- $labels := $metadata.labels -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $labels "app.kubernetes.io/instance" .root.Release.Name -}}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- if .root.Values.keepOnUpgrade -}}
  {{- $annotations := default dict $metadata.annotations -}}
  {{- $_ := set $metadata "annotations" (set $annotations "helm.sh/resource-policy" "keep") -}}
{{- end -}}
{{- end -}}
