{{- /* What a run has besides Jobs. Twin of sftjob/render/objects.py. Input of all: the run. */ -}}

{{- define "sftjob.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "train" "name" "spec") | nindent 2 }}
immutable: true
data:
  {{ .constants.specFile }}: {{ toRawJson .authored }}
{{- end -}}

{{- define "sftjob.serviceAccount" -}}
{{- $annotations := .placement.service_accounts.annotations -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "train" "name" "pods" "annotations" $annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}

{{- define "sftjob.service" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "train" "name" "train") | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    app.kubernetes.io/component: train
    sftjob.dev/revision: {{ include "sftjob.stem" . }}
  ports:
  - name: rendezvous
    port: {{ .constants.rendezvousPort }}
{{- end -}}

{{- define "sftjob.networkPolicy" -}}
{{- $policy := include "sftjob.filled" (list .constants.models.NetworkPolicy .placement.network_policy) | fromJson -}}
{{- $egress := .constants.models.Egress -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "train" "name" "pods") | nindent 2 }}
spec:
  podSelector: {matchLabels: {sftjob.dev/run-id: {{ .runId }}}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [podSelector: {matchLabels: {sftjob.dev/run-id: {{ .runId }}}}]
  egress:
  - to: [podSelector: {matchLabels: {sftjob.dev/run-id: {{ .runId }}}}]
  - ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
  {{- range $policy.egress }}
  - to: [ipBlock: {cidr: {{ toRawJson .cidr }}}]
    ports:
    {{- range default $egress.ports .ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- end }}
{{- end -}}

{{- define "sftjob.cacheClaim" -}}
{{- $cache := include "sftjob.filled" (list .constants.models.ModelCache .placement.model_cache) | fromJson -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "sftjob.metadata" (dict "run" . "component" "train" "name" "cache") | nindent 2 }}
spec:
  accessModes: [{{ $cache.access_mode }}]
  {{- with $cache.storage_class_name }}
  storageClassName: {{ toRawJson . }}
  {{- end }}
  resources: {requests: {storage: {{ toRawJson $cache.size }}}}
{{- end -}}
