{{- /* Spec and profile → placement: what Kubernetes sees of a job. Twin of sftjob/place/__init__.py. */ -}}

{{- /* The fields of sftjob.place.Placement under their names; what is None there is absent here.
       Input: spec and profile (both filled), constants. */ -}}
{{- define "sftjob.placement" -}}
{{- $spec := .spec -}}{{- $profile := .profile -}}{{- $constants := .constants -}}
{{- $kubernetes := $spec.kubernetes -}}{{- $storage := $profile.storage -}}{{- $account := $profile.service_account -}}
{{- $images := default dict $profile.images -}}
{{- $evaluated := ne $kubernetes.evaluation "never" -}}
{{- $gateImage := coalesce $images.gate $images.train (printf "sftjob:%s-gate" $constants.version) -}}
{{- $pods := dict "pods" $account.name "gate" (coalesce $account.gate_name $account.name) -}}
{{- $placement := dict
  "namespace" $profile.namespace
  "engine" $profile.engine
  "nodes" $spec.launch.nodes
  "train" (include "sftjob.trainSize" . | fromJson)
  "evaluation" (ternary (include "sftjob.evaluationSize" . | fromJson) nil $evaluated)
  "gate_image" (ternary $gateImage nil (eq $kubernetes.evaluation "gate"))
  "gpu_resource" $profile.gpu.resource
  "extra_resources" $profile.extra_resources
  "cpu_limit" $profile.cpu_limit
  "termination_grace_period_seconds" $kubernetes.termination_grace_period_seconds
  "retries" $kubernetes.retries
  "backoff_limit" (mul $kubernetes.retries $spec.launch.nodes)
  "ttl_seconds_after_finished" $kubernetes.ttl_seconds_after_finished
  "active_deadline_seconds" $kubernetes.active_deadline_seconds
  "priority_class_name" (coalesce $kubernetes.priority_class_name $profile.priority_class_name)
  "runtime_class_name" $profile.runtime_class_name
  "host_users" $profile.host_users
  "queue" $profile.queue
  "topology_key" $profile.topology_key
  "labels" $kubernetes.labels
  "annotations" $kubernetes.annotations
  "pod_labels" $profile.pod_labels
  "pod_annotations" $profile.pod_annotations
  "tolerations" $profile.tolerations
  "service_accounts" (set $pods "annotations" $account.annotations)
  "image_pull_secrets" $profile.image_pull_secrets
  "network_policy" $profile.network_policy
  "model_cache" $profile.model_cache
  "env" $profile.env
  "storage_uri" (ternary nil $storage.uri (hasKey $spec.storage "uri"))
  "endpoint_url" (coalesce $spec.storage.endpoint_url $storage.endpoint_url)
  "region" (coalesce $spec.storage.region $storage.region)
  "credentials_secret" $storage.credentials_secret
  "hub_token_secret" $profile.hub_token_secret
  "wandb_secret" (ternary $profile.wandb_secret nil (has "wandb" $spec.monitoring.report_to))
-}}
{{- include "sftjob.present" $placement -}}
{{- end -}}

{{- define "sftjob.trainSize" -}}
{{- $launch := .spec.launch -}}
{{- $gpus := int $launch.gpus_per_node -}}
{{- $processes := ternary $gpus (int (default 1 $launch.processes_per_node)) (gt $gpus 0) -}}
{{- $own := dict "gpus" $gpus "processes" $processes "image" (include "sftjob.trainImage" .) -}}
{{- include "sftjob.size" (merge $own . (dict "asked" (omit .spec.resources "evaluation" "require_fit"))) -}}
{{- end -}}

{{- define "sftjob.evaluationSize" -}}
{{- $asked := .spec.resources.evaluation -}}
{{- $gpus := ternary $asked.gpus (min 1 .spec.launch.gpus_per_node) (hasKey $asked "gpus") -}}
{{- $image := default (include "sftjob.trainImage" .) (default dict .profile.images).eval -}}
{{- $asked = merge dict (omit $asked "gpus") (omit .spec.resources "evaluation" "require_fit") -}}
{{- include "sftjob.size" (merge (dict "gpus" $gpus "processes" 1 "image" $image "asked" $asked) .) -}}
{{- end -}}

{{- define "sftjob.trainImage" -}}
{{- $hardware := ternary "cuda" "cpu" (gt (int .spec.launch.gpus_per_node) 0) -}}
{{- default (printf "sftjob:%s-%s" .constants.version $hardware) (default dict .profile.images).train -}}
{{- end -}}

{{- /* The fields of sftjob.place.ContainerSize. Input: spec, profile, constants, image, gpus, processes, asked. */ -}}
{{- define "sftjob.size" -}}
{{- $scratch := include "sftjob.floor" (list .constants.mebibytes .asked.ephemeral_storage 1) | int64 -}}
{{- $threads := include "sftjob.floor" (list .constants.units .asked.cpu .processes) | int64 -}}
{{- $selector := .profile.node_selector -}}
{{- if and (gt (int .gpus) 0) (hasKey .spec.launch "gpu") -}}
  {{- $selector = merge dict $selector (dict .profile.gpu.product_label (include "sftjob.product" .)) -}}
{{- end -}}
{{- toRawJson (merge (dict
  "image" .image
  "gpus" .gpus
  "node_selector" $selector
  "workspace_size" (printf "%dMi" (div (mul $scratch 9) 10))
  "tmp_size" (printf "%dMi" (div $scratch 20))
  "omp_num_threads" (max 1 $threads)
) .asked) -}}
{{- end -}}

{{- /* What the cluster calls the GPU that the spec names. Input: spec, profile. */ -}}
{{- define "sftjob.product" -}}
{{- dig .spec.launch.gpu .spec.launch.gpu .profile.gpu.products -}}
{{- end -}}

{{- /* Defaults with the values over them. Input: list of both mappings. `merge` would take zeros and false for absent. */ -}}
{{- define "sftjob.filled" -}}
{{- $filled := deepCopy (index . 0) -}}
{{- range $key, $value := index . 1 -}}
  {{- if and (kindIs "map" $value) (kindIs "map" (get $filled $key)) -}}
    {{- $value = include "sftjob.filled" (list (get $filled $key) $value) | fromJson -}}
  {{- end -}}
  {{- $_ := set $filled $key $value -}}
{{- end -}}
{{- toRawJson $filled -}}
{{- end -}}

{{- /* A mapping as JSON without what has no value. */ -}}
{{- define "sftjob.present" -}}
{{- $present := dict -}}
{{- range $key, $value := . -}}
  {{- if not (kindIs "invalid" $value) }}{{ $_ := set $present $key $value }}{{ end -}}
{{- end -}}
{{- toRawJson $present -}}
{{- end -}}

{{- /* floor(quantity ÷ divisor), exactly. Input: list of a table of units, a Kubernetes quantity, divisor. */ -}}
{{- define "sftjob.floor" -}}
{{- $parts := include "sftjob.quantity" (list (index . 0) (index . 1)) | fromJson -}}
{{- $numerator := $parts.numerator -}}{{- $scale := $parts.scale -}}
{{- if eq (mod $numerator $scale) 0 -}}
  {{- $numerator = div $numerator $scale -}}{{- $scale = 1 -}}
{{- end -}}
{{- if gt (mulf $parts.digits $numerator) 9e18 -}}
  {{- fail (printf "%s has more digits than this chart reckons with; write fewer" (index . 1)) -}}
{{- end -}}
{{- div (mul $parts.digits $numerator) (mul $scale $parts.denominator (index . 2)) -}}
{{- end -}}

{{- /* A quantity to compare with others. Input: list of a table of units, a Kubernetes quantity. */ -}}
{{- define "sftjob.amount" -}}
{{- $parts := include "sftjob.quantity" . | fromJson -}}
{{- divf (mulf $parts.digits $parts.numerator) (mulf $parts.scale $parts.denominator) -}}
{{- end -}}

{{- /* A quantity is digits ÷ scale × numerator ÷ denominator, all integers. Input: that of `sftjob.amount`. */ -}}
{{- define "sftjob.quantity" -}}
{{- $suffix := regexFind "[A-Za-z]*$" (index . 1) -}}
{{- $parts := splitList "." (trimSuffix $suffix (index . 1)) -}}
{{- $fraction := ternary (last $parts) "" (gt (len $parts) 1) -}}
{{- $digits := printf "%s%s" (first $parts) $fraction -}}
{{- $unit := get (index . 0) $suffix -}}
{{- /* With a leading zero Helm would take it for octal. */ -}}
{{- dict
  "digits" (regexReplaceAll "^0+" $digits "" | default "0" | float64)
  "scale" (printf "1%s" (repeat (len $fraction) "0") | float64)
  "numerator" (index $unit 0)
  "denominator" (index $unit 1)
| toRawJson -}}
{{- end -}}
