{{- /* The environment of containers. Twin of sftjob/render/env.py, in its order. Input of all but the last: the run. */ -}}

{{- define "sftjob.trainEnvironment" -}}
{{- $placement := .placement -}}{{- $constants := .constants -}}
{{- $grace := int64 $placement.termination_grace_period_seconds -}}
{{- $pairs := include "sftjob.contractPairs" . | fromJsonArray -}}
{{- $pairs = concat $pairs (list
  (list "SFTJOB_OWNER" (dict "valueFrom" (get $constants.owner $placement.engine)))
  (list "SFTJOB_POD_UID" (dict "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.uid"))))
  (list "SFTJOB_GRACE_SECONDS" (toString $grace))
) -}}
{{- if gt (int $placement.nodes) 1 -}}
  {{- $service := printf "%s-train" (include "sftjob.stem" .) -}}
  {{- $child := ternary $constants.jobsetChild "" (eq $placement.engine "jobset") -}}
  {{- $pairs = concat $pairs (list
    (list "MASTER_ADDR" (printf "%s%s-0.%s" $service $child $service))
    (list "MASTER_PORT" (int64 $constants.rendezvousPort | toString))
    (list "NCCL_DEBUG" "WARN")
  ) -}}
{{- end -}}
{{- $pairs = concat $pairs (include "sftjob.workPairs" (list . $placement.train) | fromJsonArray) -}}
{{- $pairs = append $pairs (list "TORCH_ELASTIC_SHUTDOWN_TIMEOUT" (sub $grace $constants.shutdownMarginSeconds | toString)) -}}
{{- with $placement.wandb_secret -}}
  {{- $pairs = append $pairs (list "WANDB_API_KEY" (dict "valueFrom" (dict "secretKeyRef" .))) -}}
{{- end -}}
{{- $pairs = concat $pairs (include "sftjob.storagePairs" . | fromJsonArray) -}}
{{- include "sftjob.variables" (list $pairs $placement.env) -}}
{{- end -}}

{{- define "sftjob.evaluationEnvironment" -}}
{{- $contract := include "sftjob.contractPairs" . | fromJsonArray -}}
{{- $work := include "sftjob.workPairs" (list . .placement.evaluation) | fromJsonArray -}}
{{- $storage := include "sftjob.storagePairs" . | fromJsonArray -}}
{{- include "sftjob.variables" (list (concat $contract $work $storage) .placement.env) -}}
{{- end -}}

{{- define "sftjob.gateEnvironment" -}}
{{- $placement := .placement -}}{{- $stem := include "sftjob.stem" . -}}
{{- $pairs := list
  (list "SFTJOB_SPEC" (printf "%s/%s" .constants.mounts.SPEC .constants.specFile))
  (list "SFTJOB_STORAGE_URI" $placement.storage_uri)
  (list "SFTJOB_NAMESPACE" (dict "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.namespace"))))
  (list "SFTJOB_TRAIN" (printf "%s/%s-train" (ternary "jobset" "job" (eq $placement.engine "jobset")) $stem))
  (list "SFTJOB_EVAL" (printf "%s-eval" $stem))
  (list "SFTJOB_QUEUE" (default dict $placement.queue).name)
  (list "HOME" "/tmp")
  (list "USER" "sftjob")
  (list "PYTHONUNBUFFERED" "1")
-}}
{{- include "sftjob.variables" (list (concat $pairs (include "sftjob.storagePairs" . | fromJsonArray)) dict) -}}
{{- end -}}

{{- /* Pairs of name and value as a JSON list; a value is text, a mapping with `valueFrom`, or null for none. */ -}}
{{- define "sftjob.contractPairs" -}}
{{- $mounts := .constants.mounts -}}
{{- list
  (list "SFTJOB_SPEC" (printf "%s/%s" $mounts.SPEC .constants.specFile))
  (list "SFTJOB_WORK" $mounts.WORK)
  (list "SFTJOB_CACHE" (ternary $mounts.CACHE nil (hasKey .placement "model_cache")))
  (list "SFTJOB_STORAGE_URI" .placement.storage_uri)
| toRawJson -}}
{{- end -}}

{{- /* What the libraries of a container that works listen to. Input: list of run and size. */ -}}
{{- define "sftjob.workPairs" -}}
{{- $run := index . 0 -}}{{- $size := index . 1 -}}
{{- $token := printf "%s/token" $run.constants.mounts.HUB_TOKEN -}}
{{- $pairs := list -}}
{{- range $run.constants.caches }}{{ $pairs = append $pairs (list .name .value) }}{{ end -}}
{{- concat $pairs (list
  (list "USER" "sftjob")
  (list "PYTHONUNBUFFERED" "1")
  (list "HF_HUB_DISABLE_TELEMETRY" "1")
  (list "HF_TOKEN_PATH" (ternary $token nil (hasKey $run.placement "hub_token_secret")))
  (list "OMP_NUM_THREADS" (int64 $size.omp_num_threads | toString))
  (list "NVIDIA_VISIBLE_DEVICES" (ternary nil "void" (gt (int $size.gpus) 0)))
) | toRawJson -}}
{{- end -}}

{{- /* What every AWS SDK reads. Stores other than AWS often refuse the checksums that SDKs send by default. */ -}}
{{- define "sftjob.storagePairs" -}}
{{- $placement := .placement -}}
{{- $credentials := printf "%s/credentials" .constants.mounts.CREDENTIALS -}}
{{- $host := "" -}}
{{- with $placement.endpoint_url }}{{ $host = (urlParse .).hostname | lower }}{{ end -}}
{{- $isAws := or (hasSuffix ".amazonaws.com" $host) (hasSuffix ".amazonaws.com.cn" $host) -}}
{{- $checksums := ternary "when_required" nil (and (hasKey $placement "endpoint_url") (not $isAws)) -}}
{{- list
  (list "AWS_SHARED_CREDENTIALS_FILE" (ternary $credentials nil (hasKey $placement "credentials_secret")))
  (list "AWS_ENDPOINT_URL_S3" $placement.endpoint_url)
  (list "AWS_REGION" $placement.region)
  (list "AWS_DEFAULT_REGION" $placement.region)
  (list "AWS_REQUEST_CHECKSUM_CALCULATION" $checksums)
  (list "AWS_RESPONSE_CHECKSUM_VALIDATION" $checksums)
| toRawJson -}}
{{- end -}}

{{- /* A container's `env` as JSON; the platform's own variables win, each in its place. Input: list of pairs and env.
       Dollars are doubled: Kubernetes would replace `$(NAME)` in a value. */ -}}
{{- define "sftjob.variables" -}}
{{- $env := index . 1 -}}{{- $known := list -}}
{{- $pairs := list -}}
{{- range index . 0 -}}
  {{- $name := index . 0 -}}
  {{- $known = append $known $name -}}
  {{- $pairs = append $pairs (list $name (ternary (get $env $name) (index . 1) (hasKey $env $name))) -}}
{{- end -}}
{{- range $name, $value := $env -}}
  {{- if not (has $name $known) }}{{ $pairs = append $pairs (list $name $value) }}{{ end -}}
{{- end -}}
{{- $variables := list -}}
{{- range $pairs -}}
  {{- $name := index . 0 -}}{{- $value := index . 1 -}}
  {{- if kindIs "map" $value -}}
    {{- $variables = append $variables (set $value "name" $name) -}}
  {{- else if not (kindIs "invalid" $value) -}}
    {{- $variables = append $variables (dict "name" $name "value" (replace "$" "$$" $value)) -}}
  {{- end -}}
{{- end -}}
{{- toRawJson $variables -}}
{{- end -}}
