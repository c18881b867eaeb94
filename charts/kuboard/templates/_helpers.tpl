{{/* Names and labels. */}}

{{- define "kuboard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "kuboard.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "kuboard.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "kuboard.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kuboard.selector" -}}
app.kubernetes.io/name: {{ include "kuboard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kuboard.labels" -}}
{{ include "kuboard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: kuboard
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that select one component: (list $ "registry-cache"). Standalone, all are one pod. */}}
{{- define "kuboard.componentSelector" -}}
{{- $root := index . 0 -}}
{{ include "kuboard.selector" $root }}
app.kubernetes.io/component: {{ ternary "standalone" (index . 1) (eq $root.Values.mode "standalone") }}
{{- end }}

{{- define "kuboard.image" -}}
{{- $image := .Values.image -}}
{{- $name := $image.repository -}}
{{- if $image.registry }}{{ $name = printf "%s/%s" $image.registry $name }}{{ end -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "kuboard.operatorAccount" -}}
{{ include "kuboard.fullname" . }}-operator
{{- end }}

{{- define "kuboard.registryAccount" -}}
{{ include "kuboard.fullname" . }}-registry
{{- end }}

{{- define "kuboard.admissionService" -}}
{{ include "kuboard.fullname" . }}-admission
{{- end }}

{{/* Name of the Secret with the certificate; empty without TLS. */}}
{{- define "kuboard.tlsSecret" -}}
{{- if eq .Values.tls.mode "secret" }}{{ .Values.tls.secretName }}{{ end }}
{{- if eq .Values.tls.mode "certManager" }}{{ default (printf "%s-tls" (include "kuboard.fullname" .)) .Values.tls.secretName }}{{ end }}
{{- end }}

{{/* Name of the Secret with token-key.pem; empty where the data folder has it. */}}
{{- define "kuboard.tokenKeySecret" -}}
{{- if .Values.access.tokenKeySecret }}{{ .Values.access.tokenKeySecret }}
{{- else if eq .Values.mode "cluster" }}{{ include "kuboard.fullname" . }}-token-key
{{- end }}
{{- end }}

{{- define "kuboard.advisoriesClaim" -}}
{{- default (printf "%s-advisories" (include "kuboard.fullname" .)) .Values.advisories.existingClaim }}
{{- end }}

{{/* Whether a component runs, as "true" or nothing. */}}
{{- define "kuboard.hasOperator" -}}
{{- if .Values.operator.enabled }}true{{ end }}
{{- end }}

{{- define "kuboard.hasWorker" -}}
{{- if and .Values.scan.enable .Values.scanWorker.enabled }}true{{ end }}
{{- end }}

{{/* "auto" asks what the cluster serves: (list $ value "group/version/Kind"). */}}
{{- define "kuboard.wanted" -}}
{{- $value := toString (index . 1) -}}
{{- if or (eq $value "true") (and (eq $value "auto") ((index . 0).Capabilities.APIVersions.Has (index . 2))) }}true{{ end }}
{{- end }}

{{/* What the values say together. */}}
{{- define "kuboard.validate" -}}
{{- $v := .Values -}}
{{- if $v.agent.enabled }}
{{- fail "agent.enabled: this release has no role agent yet; hint: leave it false, nodes pull through the registry as before" }}
{{- end }}
{{- if and $v.admission.enabled (not $v.operator.enabled) }}
{{- fail "admission.enabled needs operator.enabled, which tells it the policies; hint: enable both, or disable both" }}
{{- end }}
{{- if and $v.operator.enabled (not $v.scan.enable) }}
{{- fail "pods can't be judged without scans; hint: set scan.enable=true, or operator.enabled=false and admission.enabled=false" }}
{{- end }}
{{- if eq $v.mode "cluster" }}
{{- if not $v.catalog.existingSecret }}
{{- fail "mode cluster needs PostgreSQL; hint: put its URL into a Secret under the key url, and name that in catalog.existingSecret" }}
{{- end }}
{{- if not $v.storage.url }}
{{- fail "mode cluster needs an object store for pushed images; hint: set storage.url, such as s3://bucket/prefix" }}
{{- end }}
{{- if and $v.scan.enable $v.scanWorker.enabled (eq $v.access.anonymous "none") }}
{{- fail "scan workers read images from the caches without credentials, which access.anonymous none refuses; hint: set scanWorker.enabled=false and registryCache.workers higher" }}
{{- end }}
{{- else if and $v.scan.enable $v.scanWorker.enabled (eq $v.access.anonymous "none") }}
{{- fail "the scan worker reads images from the cache without credentials, which access.anonymous none refuses; hint: set scanWorker.enabled=false, the cache scans by itself" }}
{{- end }}
{{- if and (eq $v.mode "standalone") $v.operator.hostNetwork }}
{{- fail "operator.hostNetwork is for mode cluster; hint: leave it false" }}
{{- end }}
{{- if and (eq $v.tls.mode "secret") (not $v.tls.secretName) }}
{{- fail "tls.mode secret without a Secret; hint: set tls.secretName" }}
{{- end }}
{{- if and (eq $v.tls.mode "certManager") (or (not $v.tls.certManager.issuerRef) (not $v.tls.certManager.dnsNames)) }}
{{- fail "tls.mode certManager without issuer or names; hint: set tls.certManager.issuerRef and dnsNames" }}
{{- end }}
{{- if and $v.storage.accessKeyId (not $v.storage.existingSecret) }}
{{- fail "storage.accessKeyId without its secret; hint: set storage.existingSecret" }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.host) }}
{{- fail "ingress.enabled without a name; hint: set ingress.host" }}
{{- end }}
{{- if eq $v.persistence.strategy "hostPath" }}
{{- $wanted := ternary 1 (int $v.registryCache.replicas) (eq $v.mode "standalone") }}
{{- if lt (len $v.persistence.hostPath.nodes) $wanted }}
{{- fail (printf "persistence.hostPath.nodes names %d nodes for %d volumes; hint: one entry for each registry-cache" (len $v.persistence.hostPath.nodes) $wanted) }}
{{- end }}
{{- end }}
{{- if and (eq $v.persistence.strategy "cloud") (not $v.persistence.provisioner) }}
{{- fail "persistence.strategy cloud makes a StorageClass; hint: set persistence.provisioner, such as ebs.csi.aws.com" }}
{{- end }}
{{- if and (eq $v.persistence.strategy "distributed") (not $v.persistence.provisioner) }}
{{- fail "persistence.strategy distributed makes a StorageClass; hint: set persistence.provisioner, such as rook-ceph.rbd.csi.ceph.com" }}
{{- end }}
{{- end }}
