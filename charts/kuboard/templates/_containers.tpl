{{/* One container each; what differs between the forms is where data lies. */}}

{{- define "kuboard.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "kuboard.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Probes: (list "port name" "scheme"). Opening the catalogue may take long after an upgrade. */}}
{{- define "kuboard.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ index . 0 }}, scheme: {{ index . 1 }}}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /healthz, port: {{ index . 0 }}, scheme: {{ index . 1 }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: {{ index . 0 }}, scheme: {{ index . 1 }}}
  periodSeconds: 5
  timeoutSeconds: 6
  failureThreshold: 2
{{- end }}

{{/* (dict "root" $ "name" "registry-cache" "roles" "…" "port" 5001 "portName" "cache" "file" "registry-cache.toml"
     "data" "/var/lib/kuboard/…" "component" .Values.registryCache "mounts" [...] "ports" [...]) */}}
{{- define "kuboard.container" -}}
{{- $root := .root -}}
- name: {{ .name }}
  image: {{ include "kuboard.image" $root | quote }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args:
    - serve
    - --role={{ .roles }}
    - --config=/etc/kuboard/config/{{ .file }}
    - --listen=0.0.0.0:{{ .port }}
    - --data-dir={{ .data }}
  {{- with .component.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {name: {{ .portName }}, containerPort: {{ .port }}, protocol: TCP}
    {{- range .ports }}
    - {{ toJson . }}
    {{- end }}
  {{- include "kuboard.probes" (list .portName (default "HTTP" .scheme)) | nindent 2 }}
  securityContext:
    {{- include "kuboard.containerSecurity" $root | nindent 4 }}
  {{- with .component.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - {name: config, mountPath: /etc/kuboard/config, readOnly: true}
    - {name: tmp, mountPath: /tmp}
    {{- range .mounts }}
    - {{ toJson . }}
    {{- end }}
{{- end }}

{{/* Mounts of everything that reads kuboard.toml, as JSON. */}}
{{- define "kuboard.secretMounts" -}}
{{- $v := .Values -}}
{{- $mounts := list -}}
{{- if $v.access.htpasswdSecret }}{{ $mounts = append $mounts (dict "name" "htpasswd" "mountPath" "/etc/kuboard/htpasswd" "readOnly" true) }}{{ end -}}
{{- if include "kuboard.tokenKeySecret" . }}{{ $mounts = append $mounts (dict "name" "token-key" "mountPath" "/etc/kuboard/token-key" "readOnly" true) }}{{ end -}}
{{- if $v.catalog.existingSecret }}{{ $mounts = append $mounts (dict "name" "catalog" "mountPath" "/etc/kuboard/catalog" "readOnly" true) }}{{ end -}}
{{- if $v.storage.existingSecret }}{{ $mounts = append $mounts (dict "name" "storage" "mountPath" "/etc/kuboard/storage" "readOnly" true) }}{{ end -}}
{{- if $v.scan.apiKeySecret }}{{ $mounts = append $mounts (dict "name" "scan-api" "mountPath" "/etc/kuboard/scan-api" "readOnly" true) }}{{ end -}}
{{- range $v.secrets }}{{ $mounts = append $mounts (dict "name" (printf "secret-%s" . | trunc 63 | trimSuffix "-") "mountPath" (printf "/etc/kuboard/secrets/%s" .) "readOnly" true) }}{{ end -}}
{{ toJson $mounts }}
{{- end }}

{{- define "kuboard.volumes" -}}
{{- $v := .Values -}}
- name: config
  configMap:
    name: {{ include "kuboard.fullname" . }}
- name: tmp
  emptyDir: {}
{{- end }}

{{- define "kuboard.secretVolumes" -}}
{{- $v := .Values -}}
{{- with $v.access.htpasswdSecret }}
- name: htpasswd
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- with include "kuboard.tokenKeySecret" . }}
- name: token-key
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- with $v.catalog.existingSecret }}
- name: catalog
  secret:
    secretName: {{ . }}
    defaultMode: 288
    items: [{key: {{ $v.catalog.key }}, path: url}]
{{- end }}
{{- with $v.storage.existingSecret }}
- name: storage
  secret:
    secretName: {{ . }}
    defaultMode: 288
    items: [{key: {{ $v.storage.key }}, path: secretAccessKey}]
{{- end }}
{{- with $v.scan.apiKeySecret }}
- name: scan-api
  secret:
    secretName: {{ . }}
    defaultMode: 288
    items: [{key: {{ $v.scan.apiKeyKey }}, path: psk}]
{{- end }}
{{- range $v.secrets }}
- name: {{ printf "secret-%s" . | trunc 63 | trimSuffix "-" }}
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}

{{- define "kuboard.tlsVolume" -}}
{{- with include "kuboard.tlsSecret" . }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}

{{/* The token for the API server, only where it is mounted on purpose. */}}
{{- define "kuboard.apiTokenVolume" -}}
- name: api-token
  projected:
    defaultMode: 288
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end }}

{{- define "kuboard.apiTokenMount" -}}
{"name": "api-token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}
{{- end }}

{{- define "kuboard.registryProxy" -}}
{{- $mounts := list (dict "name" "run" "mountPath" "/run/kuboard") -}}
{{- $tls := include "kuboard.tlsSecret" . -}}
{{- if $tls }}{{ $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/kuboard/tls" "readOnly" true) }}{{ end -}}
{{- include "kuboard.container" (dict "root" . "name" "registry-proxy" "roles" "registry-proxy" "port" 5000 "portName" "registry" "file" "registry-proxy.toml" "data" "/run/kuboard" "component" .Values.registryProxy "scheme" (ternary "HTTPS" "HTTP" (ne $tls "")) "mounts" $mounts) }}
{{- end }}

{{- define "kuboard.registryCache" -}}
{{- $mounts := include "kuboard.secretMounts" . | fromJsonArray -}}
{{- $mounts = append $mounts (dict "name" "data" "mountPath" "/var/lib/kuboard") -}}
{{- if and (eq .Values.mode "cluster") .Values.scan.enable }}{{ $mounts = append $mounts (dict "name" "advisories" "mountPath" "/var/lib/kuboard-advisories") }}{{ end -}}
{{- if .Values.access.kubernetes }}{{ $mounts = append $mounts (include "kuboard.apiTokenMount" . | fromJson) }}{{ end -}}
{{- $roles := ternary "registry-cache,scan-worker" "registry-cache" .Values.scan.enable -}}
{{- include "kuboard.container" (dict "root" . "name" "registry-cache" "roles" $roles "port" 5001 "portName" "cache" "file" "registry-cache.toml" "data" "/var/lib/kuboard/registry-cache" "component" .Values.registryCache "mounts" $mounts) }}
{{- end }}

{{/* Where data of the scan roles lies: beside the catalogue, or in a folder of the pod. */}}
{{- define "kuboard.scanMounts" -}}
{{- $mounts := include "kuboard.secretMounts" . | fromJsonArray -}}
{{- $mounts = append $mounts (dict "name" (ternary "data" "scratch" (eq .Values.mode "standalone")) "mountPath" "/var/lib/kuboard") -}}
{{- if eq .Values.mode "cluster" }}{{ $mounts = append $mounts (dict "name" "advisories" "mountPath" "/var/lib/kuboard-advisories") }}{{ end -}}
{{ toJson $mounts }}
{{- end }}

{{- define "kuboard.scanEngine" -}}
{{- $mounts := include "kuboard.scanMounts" . | fromJsonArray -}}
{{- include "kuboard.container" (dict "root" . "name" "scan-engine" "roles" "scan-engine" "port" 5002 "portName" "engine" "file" "kuboard.toml" "data" "/var/lib/kuboard/scan-engine" "component" .Values.scanEngine "mounts" $mounts) }}
{{- end }}

{{- define "kuboard.scanWorker" -}}
{{- $mounts := include "kuboard.scanMounts" . | fromJsonArray -}}
{{- include "kuboard.container" (dict "root" . "name" "scan-worker" "roles" "scan-worker" "port" 5003 "portName" "worker" "file" "kuboard.toml" "data" "/var/lib/kuboard/scan-worker" "component" .Values.scanWorker "mounts" $mounts) }}
{{- end }}

{{- define "kuboard.operator" -}}
{{- $mounts := include "kuboard.secretMounts" . | fromJsonArray -}}
{{- $mounts = append $mounts (dict "name" (ternary "data" "scratch" (eq .Values.mode "standalone")) "mountPath" "/var/lib/kuboard") -}}
{{- if eq .Values.mode "cluster" }}{{ $mounts = append $mounts (dict "name" "scratch" "mountPath" "/var/lib/kuboard-advisories" "subPath" "advisories") }}{{ end -}}
{{- $mounts = append $mounts (include "kuboard.apiTokenMount" . | fromJson) -}}
{{- $roles := ternary "operator,admission" "operator" .Values.admission.enabled -}}
{{- $ports := list -}}
{{- if .Values.admission.enabled }}{{ $ports = append $ports (dict "name" "webhook" "containerPort" 9443 "protocol" "TCP") }}{{ end -}}
{{- include "kuboard.container" (dict "root" . "name" "operator" "roles" $roles "port" 5004 "portName" "operator" "file" "kuboard.toml" "data" "/var/lib/kuboard/operator" "component" .Values.operator "mounts" $mounts "ports" $ports) }}
{{- end }}

{{/* What all pods have: (dict "root" $ "component" "registry-cache" "values" .Values.registryCache "account" "…"). */}}
{{- define "kuboard.podBase" -}}
{{- $root := .root -}}
{{- $v := .values -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add 15 $root.Values.drainSeconds }}
securityContext:
  {{- include "kuboard.podSecurity" $root | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $v.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- $selector := default dict $v.nodeSelector }}
{{- $tolerations := default list $v.tolerations }}
{{- if .scanNodes }}
{{- $selector = merge (deepCopy $selector) $root.Values.scanNodes.nodeSelector }}
{{- $tolerations = concat $tolerations $root.Values.scanNodes.tolerations }}
{{- end }}
{{- with $selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $v.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $root.Values.topologySpread.enabled (eq $root.Values.mode "cluster") }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kuboard.componentSelector" (list $root $.component) | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Metadata of a pod template: (dict "root" $ "component" "…" "annotations" map). */}}
{{- define "kuboard.podMetadata" -}}
labels:
  {{- include "kuboard.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
annotations:
  checksum/config: {{ printf "%s%s%v" (include "kuboard.config" (list .root 0)) (include "kuboard.frontConfig" .root) (list .root.Values.registryCache.workers .root.Values.scanWorker.workers) | sha256sum }}
  {{- with .annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Claim of one registry-cache. */}}
{{- define "kuboard.claimTemplate" -}}
metadata:
  name: data
  {{- with .Values.persistence.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  accessModes: [{{ .Values.persistence.accessMode }}]
  {{- with include "kuboard.storageClass" . }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ .Values.persistence.size }}
{{- end }}

{{/* Class of the claims; a strategy that makes one names it. */}}
{{- define "kuboard.storageClass" -}}
{{- if .Values.cache.storageClass -}}
{{ .Values.cache.storageClass }}
{{- else if ne .Values.persistence.strategy "existing" -}}
{{ include "kuboard.fullname" . }}-{{ .Values.persistence.strategy | lower }}
{{- end }}
{{- end }}
