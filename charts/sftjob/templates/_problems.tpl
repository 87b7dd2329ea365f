{{- /* What cannot become a pod stops here, all at once, in the words of sftjob/place/checks.py and pairs.py. Rules between
       fields that only the models know (of `training`, for instance) are for the container to say: it ends with 64. */ -}}

{{- /* Input: spec and profile (both filled), constants, runId, authored (the spec as canonical JSON). */ -}}
{{- define "sftjob.refuse" -}}
{{- $found := print
  (include "sftjob.nameProblem" .)
  (include "sftjob.launchProblems" .)
  (include "sftjob.resourceProblems" .)
  (include "sftjob.storageProblems" .)
  (include "sftjob.inputProblems" .)
  (include "sftjob.platformProblems" .)
  (include "sftjob.pairProblems" .)
  (include "sftjob.profileProblems" .)
  (include "sftjob.secretProblems" .)
  (include "sftjob.lengthProblem" .)
-}}
{{- if $found }}{{ fail $found }}{{ end -}}
{{- end -}}

{{- /* One line. Input: list of field, reason and repair. */ -}}
{{- define "sftjob.problem" -}}
{{- printf "\n%s: %s; %s" (index . 0) (index . 1) (index . 2) -}}
{{- end -}}

{{- /* The longest name of a pod: that of the last one, with what Kubernetes adds. */ -}}
{{- define "sftjob.nameProblem" -}}
{{- $child := ternary .constants.jobsetChild "" (eq .profile.engine "jobset") -}}
{{- $nodes := int .spec.launch.nodes -}}
{{- $length := printf "%s-0000-train%s-%d-xxxxx" .runId $child (sub $nodes 1) | len -}}
{{- if gt $length 63 -}}
  {{- include "sftjob.problem" (list "spec.name"
    (printf "pod names would have %d characters, Kubernetes allows 63" $length)
    (printf "shorten it by %d, or use fewer than %d nodes" (sub $length 63) $nodes)
  ) -}}
{{- end -}}
{{- end -}}

{{- define "sftjob.launchProblems" -}}
{{- $launch := .spec.launch -}}{{- $gpu := .profile.gpu -}}
{{- if hasKey $launch "gpu" -}}
  {{- if not $launch.gpus_per_node -}}
    {{- include "sftjob.problem" (list "spec.launch.gpu"
      "names a GPU, but `gpus_per_node` is 0" "remove it, or ask for at least one GPU"
    ) -}}
  {{- end -}}
  {{- $product := include "sftjob.product" . -}}
  {{- $selected := include "sftjob.filled" (list (dict $gpu.product_label $product) .profile.node_selector) | fromJson -}}
  {{- $selected = get $selected $gpu.product_label -}}
  {{- if ne $selected $product -}}
    {{- include "sftjob.problem" (list "spec.launch.gpu"
      (printf "%s is not what the profile selects, %s" $product $selected)
      (printf "remove `%s` from the profile's `node_selector`, or choose that GPU" $gpu.product_label)
    ) -}}
  {{- end -}}
{{- end -}}
{{- include "sftjob.sliceProblem" (list "spec.launch.gpus_per_node" $launch.gpus_per_node $gpu.resource) -}}
{{- if ne .spec.kubernetes.evaluation "never" -}}
  {{- include "sftjob.sliceProblem" (list "spec.resources.evaluation.gpus" .spec.resources.evaluation.gpus $gpu.resource) -}}
{{- end -}}
{{- end -}}

{{- /* Input: list of field, number of GPUs, their resource. */ -}}
{{- define "sftjob.sliceProblem" -}}
{{- if and (contains "/mig-" (index . 2)) (gt (int (index . 1)) 1) -}}
  {{- include "sftjob.problem" (list (index . 0)
    (printf "%d slices of a GPU (%s) cannot work together" (int (index . 1)) (index . 2)) "use one, or whole GPUs"
  ) -}}
{{- end -}}
{{- end -}}

{{- define "sftjob.resourceProblems" -}}
{{- $sizes := omit .spec.resources "evaluation" "require_fit" -}}
{{- include "sftjob.sizeProblems" (dict "field" "spec.resources" "sizes" $sizes "constants" .constants) -}}
{{- $asked := omit .spec.resources.evaluation "gpus" -}}
{{- if and $asked (ne .spec.kubernetes.evaluation "never") -}}
  {{- include "sftjob.sizeProblems" (dict
    "field" "spec.resources.evaluation" "sizes" (include "sftjob.filled" (list $sizes $asked) | fromJson) "constants" .constants
  ) -}}
{{- end -}}
{{- end -}}

{{- /* Input: field, sizes (four quantities), constants. */ -}}
{{- define "sftjob.sizeProblems" -}}
{{- $units := .constants.units -}}{{- $sizes := .sizes -}}{{- $field := .field -}}
{{- $least := dict "cpu" "100m" "memory" "256Mi" "ephemeral_storage" "1Gi" "shared_memory" "64Mi" -}}
{{- range $name, $amount := $least -}}
  {{- $asked := include "sftjob.amount" (list $units (get $sizes $name)) | float64 -}}
  {{- if lt $asked (include "sftjob.amount" (list $units $amount) | float64) -}}
    {{- include "sftjob.problem" (list (printf "%s.%s" $field $name)
      (printf "%s is too little to start" (get $sizes $name)) (printf "ask for %s or more" $amount)
    ) -}}
  {{- end -}}
{{- end -}}
{{- $memory := include "sftjob.amount" (list $units $sizes.memory) | float64 -}}
{{- $shared := include "sftjob.amount" (list $units $sizes.shared_memory) | float64 -}}
{{- if and (ge $shared $memory) (ge $memory (include "sftjob.amount" (list $units $least.memory) | float64)) -}}
  {{- include "sftjob.problem" (list (printf "%s.shared_memory" $field)
    (printf "%s is not below `memory`, %s, which it counts towards" $sizes.shared_memory $sizes.memory)
    (printf "lower it or raise `%s.memory`" (trimPrefix "spec." $field))
  ) -}}
{{- end -}}
{{- end -}}

{{- define "sftjob.storageProblems" -}}
{{- $uri := coalesce .spec.storage.uri .profile.storage.uri -}}
{{- if not $uri -}}
  {{- include "sftjob.problem" (list "spec.storage.uri"
    "neither the spec nor the profile says where runs are kept" "write `storage: {uri: s3://bucket/prefix}` into the spec, or name a profile that does"
  ) -}}
{{- else if not (hasPrefix "s3://" $uri) -}}
  {{- include "sftjob.problem" (list "spec.storage.uri"
    (printf "%s is a folder of this machine, which pods cannot reach" $uri) "pods need s3://bucket/prefix"
  ) -}}
{{- end -}}
{{- range $half, $storage := dict "spec" .spec.storage "profile" .profile.storage -}}
  {{- $host := (urlParse (default "" $storage.endpoint_url)).hostname | lower -}}
  {{- if has $host (list "localhost" "127.0.0.1" "::1") -}}
    {{- include "sftjob.problem" (list (printf "%s.storage.endpoint_url" $half)
      (printf "%s is, seen from a pod, the pod itself" $storage.endpoint_url)
      "write the address under which pods reach the store, or leave it to the profile"
    ) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- define "sftjob.inputProblems" -}}
{{- $stage := "`sftjob stage SPEC -o pinned.yaml` uploads it and writes a spec for this command; `sftjob submit` does both" -}}
{{- include "sftjob.localProblem" (list "spec.model" .spec.model $stage) -}}
{{- range $half := list "train" "eval" -}}
  {{- range $index, $source := default list (get $.spec.data $half) -}}
    {{- include "sftjob.localProblem" (list (printf "spec.data.%s.%d" $half $index) $source $stage) -}}
  {{- end -}}
{{- end -}}
{{- if kindIs "map" .spec.data.template -}}
  {{- include "sftjob.localProblem" (list "spec.data.template" .spec.data.template
    "`sftjob stage SPEC -o pinned.yaml` writes its text into the spec; `sftjob submit` does so, too"
  ) -}}
{{- end -}}
{{- end -}}

{{- /* Input: list of field, source, repair. */ -}}
{{- define "sftjob.localProblem" -}}
{{- $field := index . 0 -}}{{- $hint := index . 2 -}}
{{- with (index . 1).path -}}
  {{- include "sftjob.problem" (list (printf "%s.path" $field)
    (printf "%s is on this machine, which pods cannot reach" .) $hint
  ) -}}
{{- end -}}
{{- end -}}

{{- define "sftjob.platformProblems" -}}
{{- $cache := default dict .profile.model_cache -}}{{- $account := .profile.service_account -}}
{{- $nodes := int .spec.launch.nodes -}}
{{- if and (has "wandb" .spec.monitoring.report_to) (not .profile.wandb_secret) -}}
  {{- include "sftjob.problem" (list "spec.monitoring.report_to"
    "the profile names no key for Weights & Biases"
    "write `wandb_secret: {name: SECRET, key: KEY}` in the profile, or remove `wandb`"
  ) -}}
{{- end -}}
{{- if and $cache.size (eq (default .constants.models.ModelCache.access_mode $cache.access_mode) "ReadWriteOnce") (gt $nodes 1) -}}
  {{- include "sftjob.problem" (list "profile.model_cache.access_mode"
    (printf "the pods of %d nodes cannot share a volume that one node mounts" $nodes)
    "write `ReadWriteMany` with a storage class that can do it, or leave the cache out"
  ) -}}
{{- end -}}
{{- if and $account.name $account.annotations -}}
  {{- include "sftjob.problem" (list "profile.service_account.annotations"
    (printf "would be written on accounts that a run brings, but `%s` exists already" $account.name)
    "annotate that one by hand, or remove `name`"
  ) -}}
{{- end -}}
{{- end -}}

{{- /* Keys that are ours. That others are valid is for the cluster to say. */ -}}
{{- define "sftjob.pairProblems" -}}
{{- $prefixes := list "sftjob.dev" "app.kubernetes.io" "batch.kubernetes.io" "jobset.sigs.k8s.io" -}}
{{- if .profile.queue }}{{ $prefixes = append $prefixes "kueue.x-k8s.io" }}{{ end -}}
{{- range $field, $pairs := dict
  "spec.kubernetes.labels" .spec.kubernetes.labels
  "spec.kubernetes.annotations" .spec.kubernetes.annotations
  "profile.pod_labels" .profile.pod_labels
  "profile.pod_annotations" .profile.pod_annotations
-}}
  {{- range $key, $value := $pairs -}}
    {{- $prefix := ternary (regexReplaceAll "/[^/]*$" $key "") "" (contains "/" $key) -}}
    {{- if or (has $prefix $prefixes) (has $key (list "controller-uid" "job-name")) -}}
      {{- include "sftjob.problem" (list (printf "%s.%s" $field $key) "is set by sftjob or Kubernetes itself" "remove it") -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $name, $value := .profile.env -}}
  {{- $ours := "^((SFTJOB|AWS|PET)_\\w*|JOB_COMPLETION_INDEX|MASTER_(ADDR|PORT)|(LOCAL_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE)$" -}}
  {{- if regexMatch $ours $name -}}
    {{- include "sftjob.problem" (list (printf "profile.env.%s" $name)
      "is set by sftjob, Kubernetes or torchrun itself" "remove it"
    ) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
