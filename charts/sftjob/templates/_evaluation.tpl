{{- /* The evaluation, created suspended. Twin of sftjob/render/evaluation.py. Input: the run. */ -}}

{{- define "sftjob.evaluationJob" -}}
{{- $placement := .placement -}}{{- $size := .placement.evaluation -}}
{{- $labels := dict -}}
{{- if $placement.queue -}}
  {{- $labels = set (include "sftjob.queueLabels" . | fromJson) "kueue.x-k8s.io/queue-name" .constants.heldQueue -}}
{{- end -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "eval" "name" "eval" "labels" $labels) | nindent 2 }}
spec:
  suspend: true
  completionMode: Indexed
  completions: 1
  parallelism: 1
  backoffLimit: {{ $placement.retries }}
  podFailurePolicy: {{ toRawJson .constants.podFailurePolicy.eval }}
  podReplacementPolicy: Failed
  ttlSecondsAfterFinished: {{ $placement.ttl_seconds_after_finished }}
  template:
    {{- include "sftjob.pod" (dict
      "run" .
      "component" "eval"
      "container" "evaluator"
      "module" "sftjob.app.evaluation"
      "image" $size.image
      "size" $size
      "graceSeconds" .constants.evaluation.terminationGracePeriodSeconds
      "environment" (include "sftjob.evaluationEnvironment" .)
      "resources" (include "sftjob.resources" (dict "run" . "size" $size))
    ) | nindent 4 }}
{{- end -}}
