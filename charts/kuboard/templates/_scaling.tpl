{{/* (list $ name component autoscaling) */}}
{{- define "kuboard.autoscaler" -}}
{{- $root := index . 0 -}}
{{- $scaling := index . 3 }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "kuboard.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ index . 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ index . 1 }}}
  minReplicas: {{ $scaling.minReplicas }}
  maxReplicas: {{ $scaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $scaling.targetCPUUtilizationPercentage }}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: 300}
{{- end }}

{{/* (list $ name component) */}}
{{- define "kuboard.disruptionBudget" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "kuboard.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ index . 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "kuboard.componentSelector" (list $root (index . 2)) | nindent 6 }}
{{- end }}
{{- end }}
