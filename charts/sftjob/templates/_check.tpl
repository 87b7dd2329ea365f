{{- /* `helm test`: a pod that tries the store as the run's own pods do, from where they are. Input: the run. */ -}}

{{- define "sftjob.checkPod" -}}
{{- $template := include "sftjob.parsed" (include "sftjob.pod" (dict
  "run" .
  "component" "check"
  "container" "check"
  "module" "sftjob.app.check_store"
  "image" (default .placement.train.image .placement.gate_image)
  "graceSeconds" 10
  "environment" (include "sftjob.checkEnvironment" .)
  "resources" (include "sftjob.gateResources" .)
)) | fromJson -}}
{{- /* Not `hook-succeeded`: `helm test --logs` asks for the log after the pod would have been deleted. */ -}}
{{- $hook := dict "helm.sh/hook" "test" "helm.sh/hook-delete-policy" "before-hook-creation" -}}
{{- $metadata := dict
  "name" (printf "%s-check" (include "sftjob.stem" .))
  "namespace" .placement.namespace
  "labels" $template.metadata.labels
  "annotations" (merge $hook (default dict $template.metadata.annotations))
-}}
{{- $metadata = include "sftjob.present" $metadata | fromJson -}}
{{- dict "apiVersion" "v1" "kind" "Pod" "metadata" $metadata "spec" $template.spec | toRawJson -}}
{{- end -}}

{{- define "sftjob.checkEnvironment" -}}
{{- $pairs := list
  (list "SFTJOB_SPEC" (printf "%s/%s" .constants.mounts.SPEC .constants.specFile))
  (list "SFTJOB_STORAGE_URI" .placement.storage_uri)
  (list "HOME" "/tmp")
  (list "USER" "sftjob")
  (list "PYTHONUNBUFFERED" "1")
-}}
{{- include "sftjob.variables" (list (concat $pairs (include "sftjob.storagePairs" . | fromJsonArray)) dict) -}}
{{- end -}}
