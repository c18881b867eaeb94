{{/* TOML of a map: (list "table.path" map). Scalars first, then tables, then lists of tables. */}}
{{- define "kuboard.toml" -}}
{{- $path := index . 0 -}}
{{- $map := index . 1 -}}
{{- range $key := keys $map | sortAlpha -}}
{{- $value := get $map $key -}}
{{- if and (not (kindIs "map" $value)) (not (and (kindIs "slice" $value) (kindIs "map" (first $value)))) (not (kindIs "invalid" $value)) }}
{{ $key }} = {{ include "kuboard.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key := keys $map | sortAlpha -}}
{{- $value := get $map $key -}}
{{- $name := ternary $key (printf "%s.%s" $path $key) (eq $path "") -}}
{{- if kindIs "map" $value }}
{{- if $value }}

[{{ $name }}]
{{- include "kuboard.toml" (list $name $value) }}
{{- end }}
{{- else if and (kindIs "slice" $value) (kindIs "map" (first $value)) }}
{{- range $value }}

[[{{ $name }}]]
{{- include "kuboard.toml" (list $name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kuboard.tomlValue" -}}
{{- if kindIs "slice" . -}}
[{{ range $index, $one := . }}{{ if $index }}, {{ end }}{{ include "kuboard.tomlValue" $one }}{{ end }}]
{{- else if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- else if or (kindIs "int" .) (kindIs "int64" .) (kindIs "bool" .) (typeIs "json.Number" .) -}}
{{ . }}
{{- else -}}
{{ toJson . }}
{{- end }}
{{- end }}

{{/* Names by which this registry is asked, as a JSON list. */}}
{{- define "kuboard.hosts" -}}
{{- $service := printf "%s.%s.svc" (include "kuboard.fullname" .) .Release.Namespace -}}
{{- $hosts := list (printf "%s:5000" $service) (printf "%s.cluster.local:5000" $service) -}}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end -}}
{{ toJson (concat $hosts .Values.admission.registryHosts | uniq) }}
{{- end }}

{{/* Base addresses of the caches, as a JSON list. */}}
{{- define "kuboard.caches" -}}
{{- $root := . -}}
{{- if eq .Values.mode "standalone" -}}
["http://127.0.0.1:5001"]
{{- else -}}
{{- $name := printf "%s-registry-cache" (include "kuboard.fullname" .) -}}
{{- $caches := list -}}
{{- range $index := until (int .Values.registryCache.replicas) -}}
{{- $caches = append $caches (printf "http://%s-%d.%s.%s.svc:5001" $name $index $name $root.Release.Namespace) -}}
{{- end -}}
{{ toJson $caches }}
{{- end }}
{{- end }}

{{/* registry-proxy.toml: the front has TLS and nothing else of its own. */}}
{{- define "kuboard.frontConfig" -}}
{{- $v := .Values -}}
{{- $server := dict "listen" "0.0.0.0:5000" "drainSeconds" $v.drainSeconds -}}
{{- if $v.externalUrl }}{{ $_ := set $server "externalUrl" $v.externalUrl }}{{ end -}}
{{- if include "kuboard.tlsSecret" . }}
{{- $_ := set $server "tls" (dict "mode" "files" "cert" "/etc/kuboard/tls/tls.crt" "key" "/etc/kuboard/tls/tls.key") }}
{{- end -}}
{{- $config := dict
  "server" $server
  "access" (dict "anonymous" $v.access.anonymous)
  "proxy" (dict "caches" (include "kuboard.caches" . | fromJsonArray))
  "log" (dict "format" $v.log.format "filter" $v.log.filter) -}}
{{- $more := pick $v.config "log" -}}
{{- if hasKey $v.config "server" }}{{ $_ := set $more "server" (omit $v.config.server "tls" "plainListen" "listen") }}{{ end -}}
{{- include "kuboard.toml" (list "" (mergeOverwrite $config (deepCopy $more))) }}
{{- end }}

{{/* The file of all others: (list $ jobs-at-a-time). Address and data folder are on their command lines. */}}
{{- define "kuboard.config" -}}
{{- $workers := index . 1 -}}
{{- with index . 0 -}}
{{- $v := .Values -}}
{{- $server := dict "listen" "0.0.0.0:5001" "drainSeconds" $v.drainSeconds -}}
{{- if $v.externalUrl }}{{ $_ := set $server "externalUrl" $v.externalUrl }}{{ end -}}
{{- $access := dict "anonymous" $v.access.anonymous "kubernetes" (dict "enable" $v.access.kubernetes) -}}
{{- if $v.access.htpasswdSecret }}{{ $_ := set $access "htpasswd" "/etc/kuboard/htpasswd/htpasswd" }}{{ end -}}
{{- if include "kuboard.tokenKeySecret" . }}{{ $_ := set $access "tokenKey" "/etc/kuboard/token-key/token-key.pem" }}{{ end -}}
{{- $scan := dict "enable" $v.scan.enable "workers" $workers "excludeRegistries" $v.scan.excludeRegistries -}}
{{- if $v.scan.apiKeySecret }}{{ $_ := set $scan "api" (dict "pskFile" "/etc/kuboard/scan-api/psk") }}{{ end -}}
{{- $advisories := dict "update" $v.advisories.update "updateMinutes" $v.advisories.updateMinutes "feeds" $v.advisories.feeds -}}
{{- if $v.advisories.mirror }}{{ $_ := set $advisories "mirror" $v.advisories.mirror }}{{ end -}}
{{- $catalog := dict -}}
{{- if $v.catalog.existingSecret }}
{{- $_ := set $catalog "urlFile" "/etc/kuboard/catalog/url" }}
{{- else }}
{{- $_ := set $catalog "url" "sqlite:///var/lib/kuboard/catalog.db" }}
{{- end -}}
{{- $_ := set $advisories "dir" (ternary "/var/lib/kuboard/advisories" "/var/lib/kuboard-advisories" (eq $v.mode "standalone")) -}}
{{- $storage := dict -}}
{{- if $v.storage.url }}
{{- $_ := set $storage "url" $v.storage.url }}
{{- $_ := set $storage "allowHttp" $v.storage.allowHttp }}
{{- range $key := list "endpoint" "region" "accessKeyId" }}
{{- if get $v.storage $key }}{{ $_ := set $storage $key (get $v.storage $key) }}{{ end }}
{{- end }}
{{- if $v.storage.existingSecret }}{{ $_ := set $storage "secretAccessKeyFile" "/etc/kuboard/storage/secretAccessKey" }}{{ end }}
{{- end -}}
{{- $config := dict
  "server" $server
  "access" $access
  "proxy" (dict "caches" (include "kuboard.caches" . | fromJsonArray))
  "cache" (pick $v.cache "enable" "storageClass" "cacheSizeGB" "peerDiscoveryInterval")
  "catalog" $catalog
  "storage" $storage
  "scan" $scan
  "advisories" $advisories
  "log" (dict "format" $v.log.format "filter" $v.log.filter) -}}
{{- if include "kuboard.hasOperator" . }}
{{- $_ := set $config "kubernetes" (dict "namespace" .Release.Namespace "excludedNamespaces" $v.operator.excludedNamespaces) }}
{{- $_ := set $config "admission" (dict "service" (include "kuboard.admissionService" .) "arm" $v.admission.arm "pinDigests" $v.admission.pinDigests "platforms" $v.admission.platforms "registryHosts" (include "kuboard.hosts" . | fromJsonArray) "keepDecisionsDays" $v.admission.keepDecisionsDays) }}
{{- end -}}
{{- include "kuboard.toml" (list "" (mergeOverwrite $config (deepCopy $v.config))) }}
{{- end }}
{{- end }}
