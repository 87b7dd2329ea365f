{{- /* Pods. Twin of sftjob/render/pod.py. */ -}}

{{- /* The template of a Job's pods.
       Input: run, component, container, module, image, graceSeconds, environment and resources (as JSON); size for
       containers that work, so not for the gate; annotations (a mapping), affinity (as JSON) and subdomain, if there are. */ -}}
{{- define "sftjob.pod" -}}
{{- $run := .run -}}{{- $placement := .run.placement -}}{{- $constants := .run.constants -}}
{{- $isGate := eq .component "gate" -}}
{{- $account := printf "%s-%s" (include "sftjob.stem" $run) (ternary "gate" "pods" $isGate) -}}
{{- $own := ternary $placement.service_accounts.gate $placement.service_accounts.pods $isGate -}}
{{- $size := default dict .size -}}
{{- $onGpu := gt (int $size.gpus) 0 -}}
{{- $keep := ternary $constants.keepNode dict (gt (len $size) 0) -}}
{{- $annotations := include "sftjob.filled" (list $keep $placement.pod_annotations) | fromJson -}}
{{- $annotations = include "sftjob.filled" (list $annotations (default dict .annotations)) | fromJson -}}
metadata:
  labels: {{ include "sftjob.filled" (list (include "sftjob.labels" . | fromJson) $placement.pod_labels) }}
  {{- with $annotations }}
  annotations: {{ toRawJson . }}
  {{- end }}
spec:
  restartPolicy: Never
  {{- with .subdomain }}
  subdomain: {{ . }}
  {{- end }}
  serviceAccountName: {{ default $account $own | toRawJson }}
  automountServiceAccountToken: {{ $isGate }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .graceSeconds }}
  {{- if hasKey $placement "host_users" }}
  hostUsers: {{ $placement.host_users }}
  {{- end }}
  {{- if and $onGpu $placement.runtime_class_name }}
  runtimeClassName: {{ toRawJson $placement.runtime_class_name }}
  {{- end }}
  {{- if and $size $placement.priority_class_name }}
  priorityClassName: {{ toRawJson $placement.priority_class_name }}
  {{- end }}
  {{- with $placement.image_pull_secrets }}
  imagePullSecrets:
  {{- range . }}
  - name: {{ toRawJson . }}
  {{- end }}
  {{- end }}
  {{- with $size.node_selector }}
  nodeSelector: {{ toRawJson . }}
  {{- end }}
  {{- if or $onGpu $size.node_selector }}
  tolerations: {{ include "sftjob.tolerations" .run }}
  {{- end }}
  {{- with .affinity }}
  affinity: {{ . }}
  {{- end }}
  securityContext: {{ toRawJson $constants.podSecurityContext }}
  containers:
  - name: {{ .container }}
    image: {{ toRawJson .image }}
    imagePullPolicy: IfNotPresent
    command: [python, -m, {{ .module }}]
    env: {{ .environment }}
    resources: {{ .resources }}
    securityContext: {{ toRawJson $constants.containerSecurityContext }}
    terminationMessagePolicy: FallbackToLogsOnError
    volumeMounts:
    - {name: spec, mountPath: {{ $constants.mounts.SPEC }}, readOnly: true}
    {{- if $size }}
    - {name: workspace, mountPath: {{ $constants.mounts.WORK }}}
    {{- end }}
    - {name: tmp, mountPath: /tmp}
    {{- if $size }}
    - {name: shared-memory, mountPath: /dev/shm}
    {{- end }}
    {{- if and $size $placement.model_cache }}
    - {name: cache, mountPath: {{ $constants.mounts.CACHE }}}
    {{- end }}
    {{- if $placement.credentials_secret }}
    - {name: credentials, mountPath: {{ $constants.mounts.CREDENTIALS }}, readOnly: true}
    {{- end }}
    {{- if and $size $placement.hub_token_secret }}
    - {name: hub-token, mountPath: {{ $constants.mounts.HUB_TOKEN }}, readOnly: true}
    {{- end }}
  volumes:
  {{- include "sftjob.volumes" . | nindent 2 }}
{{- end -}}

{{- /* What the container mounts. Input: that of `sftjob.pod`. */ -}}
{{- define "sftjob.volumes" -}}
{{- $placement := .run.placement -}}{{- $constants := .run.constants -}}
{{- $stem := include "sftjob.stem" .run -}}
- name: spec
  configMap:
    name: {{ $stem }}-spec
    items: [{key: {{ $constants.specFile }}, path: {{ $constants.specFile }}}]
{{- if .size }}
- {name: workspace, emptyDir: {sizeLimit: {{ .size.workspace_size }}}}
- {name: tmp, emptyDir: {sizeLimit: {{ .size.tmp_size }}}}
- {name: shared-memory, emptyDir: {medium: Memory, sizeLimit: {{ toRawJson .size.shared_memory }}}}
{{- else }}
- {{ toRawJson $constants.gate.tmp }}
{{- end }}
{{- if and .size $placement.model_cache }}
{{- $claim := default (printf "%s-cache" $stem) $placement.model_cache.claim }}
- {name: cache, persistentVolumeClaim: {claimName: {{ toRawJson $claim }}}}
{{- end }}
{{- with $placement.credentials_secret }}
- {{ include "sftjob.secretVolume" (list "credentials" . "credentials") }}
{{- end }}
{{- if and .size $placement.hub_token_secret }}
- {{ include "sftjob.secretVolume" (list "hub-token" $placement.hub_token_secret "token") }}
{{- end }}
{{- end -}}

{{- /* One key of a Secret as a file that user and group may read (288 is 0440). Input: list of name, secret, path. */ -}}
{{- define "sftjob.secretVolume" -}}
{{- $secret := index . 1 -}}
{{- $items := list (dict "key" $secret.key "path" (index . 2)) -}}
{{- dict "name" (index . 0) "secret" (dict "secretName" $secret.name "defaultMode" 288 "items" $items) | toRawJson -}}
{{- end -}}

{{- /* Memory, disk and devices are promised in full; processor time is capped only where the platform asks for it.
       Input: run, size; extra (devices by name), if there are. */ -}}
{{- define "sftjob.resources" -}}
{{- $placement := .run.placement -}}
{{- $promised := dict "memory" .size.memory "ephemeral-storage" .size.ephemeral_storage -}}
{{- if gt (int .size.gpus) 0 }}{{ $_ := set $promised $placement.gpu_resource .size.gpus }}{{ end -}}
{{- range $name, $count := .extra }}{{ $_ := set $promised $name $count }}{{ end -}}
{{- $requests := set (deepCopy $promised) "cpu" .size.cpu -}}
{{- dict "requests" $requests "limits" (ternary $requests $promised $placement.cpu_limit) | toRawJson -}}
{{- end -}}

{{- /* As JSON, with the default of `operator` written out. Input: the run. */ -}}
{{- define "sftjob.tolerations" -}}
{{- $all := list -}}
{{- range .placement.tolerations -}}
  {{- $all = append $all (include "sftjob.filled" (list $.constants.models.Toleration .) | fromJson) -}}
{{- end -}}
{{- toRawJson $all -}}
{{- end -}}
