{{- /* list CONTEXT NAME: an image of ours, of the chart's version. */ -}}
{{- define "flakefarm.image" -}}
{{- $values := (index . 0).Values -}}
{{- with $values.image.registry }}{{ . }}/{{ end }}{{ index . 1 }}:{{ $values.image.tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{- /* list CONTEXT TEXT: a file of deploy/kubernetes, in the namespaces of the values. */ -}}
{{- define "flakefarm.placed" -}}
{{- $values := (index . 0).Values -}}
{{- $text := index . 1 | replace "namespace: flakefarm-workers" "namespace: \x00" -}}
{{- $text = $text | replace "metadata.name: flakefarm-workers" "metadata.name: \x00" -}}
{{- $text = regexReplaceAll "namespace: flakefarm([,}])" $text (printf "namespace: %s${1}" $values.namespaces.coordinator) -}}
{{- $text = replace "image: flakefarm-backup" (printf "image: %s" (include "flakefarm.image" (list (index . 0) "flakefarm-backup"))) $text -}}
{{- $text | replace "\x00" $values.namespaces.workers -}}
{{- end }}

{{- /* list CONTEXT SETTINGS: further variables, and where a store of the chart's own is. */ -}}
{{- define "flakefarm.more" -}}
{{- $values := (index . 0).Values -}}
{{- range $name, $value := index . 1 }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- if $values.stores.enabled }}
AWS_ENDPOINT: http://objects.{{ $values.namespaces.coordinator }}:8333
AWS_ALLOW_HTTP: "true"
AWS_REGION: us-east-1
{{- end }}
{{- end }}
