{{- /* The training: an Indexed Job with a pod for each node, or a JobSet of one. Twin of sftjob/render/train.py and
       jobset.py. Input of all: the run. */ -}}

{{- define "sftjob.trainJob" -}}
{{- $placement := .placement -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "sftjob.trainMetadata" . | nindent 2 }}
spec:
  completionMode: Indexed
  completions: {{ $placement.nodes }}
  parallelism: {{ $placement.nodes }}
  backoffLimit: {{ $placement.backoff_limit }}
  podFailurePolicy: {{ toRawJson .constants.podFailurePolicy.train }}
  podReplacementPolicy: Failed
  {{- with $placement.active_deadline_seconds }}
  activeDeadlineSeconds: {{ . }}
  {{- end }}
  ttlSecondsAfterFinished: {{ $placement.ttl_seconds_after_finished }}
  template:
    {{- include "sftjob.trainPod" . | nindent 4 }}
{{- end -}}

{{- define "sftjob.trainJobSet" -}}
{{- $placement := .placement -}}
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  {{- include "sftjob.trainMetadata" . | nindent 2 }}
spec:
  network:
    enableDNSHostnames: true
    subdomain: {{ include "sftjob.stem" . }}-train
    publishNotReadyAddresses: true
  failurePolicy: {{ merge (dict "maxRestarts" $placement.retries) .constants.jobsetFailurePolicy | toRawJson }}
  ttlSecondsAfterFinished: {{ $placement.ttl_seconds_after_finished }}
  replicatedJobs:
  - name: {{ .constants.jobsetWorker }}
    template:
      spec:
        completionMode: Indexed
        completions: {{ $placement.nodes }}
        parallelism: {{ $placement.nodes }}
        backoffLimit: 0
        podFailurePolicy: {{ toRawJson .constants.podFailurePolicy.gang }}
        podReplacementPolicy: Failed
        {{- with $placement.active_deadline_seconds }}
        activeDeadlineSeconds: {{ . }}
        {{- end }}
        template:
          {{- include "sftjob.trainPod" . | nindent 10 }}
{{- end -}}

{{- define "sftjob.trainMetadata" -}}
{{- $labels := include "sftjob.queueLabels" . | fromJson -}}
{{- include "sftjob.metadata" (dict
  "run" . "component" "train" "name" "train" "labels" $labels "annotations" .placement.annotations
) -}}
{{- end -}}

{{- define "sftjob.trainPod" -}}
{{- $placement := .placement -}}
{{- $several := gt (int $placement.nodes) 1 -}}
{{- $annotations := include "sftjob.filled" (list (include "sftjob.topology" . | fromJson) $placement.annotations) | fromJson -}}
{{- include "sftjob.pod" (dict
  "run" .
  "component" "train"
  "container" "trainer"
  "module" "sftjob.train"
  "image" $placement.train.image
  "size" $placement.train
  "graceSeconds" $placement.termination_grace_period_seconds
  "annotations" $annotations
  "subdomain" (ternary (printf "%s-train" (include "sftjob.stem" .)) "" (and $several (eq $placement.engine "batch")))
  "affinity" (ternary (include "sftjob.togetherButApart" .) "" $several)
  "environment" (include "sftjob.trainEnvironment" .)
  "resources" (include "sftjob.resources" (dict "run" . "size" $placement.train "extra" $placement.extra_resources))
) -}}
{{- end -}}

{{- /* How close Kueue is to place the pods, as JSON. */ -}}
{{- define "sftjob.topology" -}}
{{- $annotations := dict -}}
{{- with (default dict .placement.queue).topology -}}
  {{- $_ := set $annotations (printf "kueue.x-k8s.io/podset-%s-topology" .mode) (default "true" .level) -}}
{{- end -}}
{{- toRawJson $annotations -}}
{{- end -}}

{{- /* In one zone, since ranks wait for each other at every step, and each on a node of its own. Both are wishes. */ -}}
{{- define "sftjob.togetherButApart" -}}
{{- $peers := dict "matchLabels" (dict "app.kubernetes.io/component" "train" "sftjob.dev/run-id" .runId) -}}
{{- $wishes := dict -}}
{{- range $name, $key := dict "podAffinity" .placement.topology_key "podAntiAffinity" "kubernetes.io/hostname" -}}
  {{- $term := dict "weight" 100 "podAffinityTerm" (dict "labelSelector" $peers "topologyKey" $key) -}}
  {{- $_ := set $wishes $name (dict "preferredDuringSchedulingIgnoredDuringExecution" (list $term)) -}}
{{- end -}}
{{- toRawJson $wishes -}}
{{- end -}}
