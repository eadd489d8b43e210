"""What of other projects' resources our manifests use, as JSON schemas: no field beside these is let through. Written
down from KEDA 2.16's and the Prometheus operator 0.79's definitions (keda.sh/v1alpha1, monitoring.coreos.com/v1)."""

STRING = {"type": "string", "minLength": 1}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}


def whole(least):
    return {"type": "integer", "minimum": least}


def mapping(required, optional=None):
    fields = {**required, **(optional or {})}
    return {"type": "object", "required": list(required), "properties": fields, "additionalProperties": False}


def resource(spec):
    metadata = mapping({"name": STRING, "namespace": STRING}, {"labels": LABELS, "annotations": LABELS})
    return mapping({"apiVersion": STRING, "kind": STRING, "metadata": metadata, "spec": spec})


def some(items):
    return {"type": "array", "minItems": 1, "items": items}


POLICY = mapping({"type": {"enum": ["Pods", "Percent"]}, "value": whole(1), "periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800}})
RULES = mapping(
    {},
    {"stabilizationWindowSeconds": {"type": "integer", "minimum": 0, "maximum": 3600}, "selectPolicy": {"enum": ["Max", "Min", "Disabled"]},
     "policies": some(POLICY), "tolerance": STRING},
)
# All values of a trigger's metadata are strings, whatever they mean: a number there is refused by the API server.
RABBITMQ = mapping(
    {"queueName": STRING, "mode": {"enum": ["QueueLength", "MessageRate"]}, "value": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}},
    {"protocol": {"enum": ["auto", "http", "amqp"]}, "vhostName": STRING, "activationValue": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"},
     "excludeUnacknowledged": {"enum": ["true", "false"]}, "useRegex": {"enum": ["true", "false"]}, "timeout": STRING, "unsafeSsl": {"enum": ["true", "false"]}},
)
TRIGGER = mapping(
    {"type": {"const": "rabbitmq"}, "metadata": RABBITMQ},
    {"name": STRING, "metricType": {"enum": ["AverageValue", "Value"]}, "authenticationRef": mapping({"name": STRING}, {"kind": {"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}})},
)
SCALED_OBJECT = mapping(
    {"scaleTargetRef": mapping({"name": STRING}, {"kind": STRING, "apiVersion": STRING}), "triggers": some(TRIGGER)},
    {"minReplicaCount": whole(0), "maxReplicaCount": whole(1), "idleReplicaCount": whole(0), "pollingInterval": whole(1), "cooldownPeriod": whole(0),
     "initialCooldownPeriod": whole(0), "fallback": mapping({"failureThreshold": whole(0), "replicas": whole(0)}),
     "advanced": mapping({}, {"restoreToOriginalReplicaCount": {"type": "boolean"},
                              "horizontalPodAutoscalerConfig": mapping({}, {"name": STRING, "behavior": mapping({}, {"scaleUp": RULES, "scaleDown": RULES})})})},
)
AUTHENTICATION = mapping({"secretTargetRef": some(mapping({"parameter": {"enum": ["host", "username", "password", "vhostName", "tls", "ca", "cert", "key"]}, "name": STRING, "key": STRING}))})

SELECTOR = mapping({}, {"matchLabels": LABELS})
TIME = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d|w|y))+$"}
ENDPOINT = mapping({"port": STRING}, {"path": STRING, "interval": TIME, "scrapeTimeout": TIME, "scheme": {"enum": ["http", "https"]}, "honorLabels": {"type": "boolean"}})
NAMESPACES = mapping({}, {"any": {"type": "boolean"}, "matchNames": some(STRING)})
SERVICE_MONITOR = mapping({"selector": SELECTOR, "endpoints": some(ENDPOINT)}, {"namespaceSelector": NAMESPACES, "jobLabel": STRING})
POD_MONITOR = mapping({"selector": SELECTOR, "podMetricsEndpoints": some(ENDPOINT)}, {"namespaceSelector": NAMESPACES, "jobLabel": STRING})
RECORD = mapping({"record": STRING, "expr": STRING}, {"labels": LABELS})
ALERT = mapping({"alert": STRING, "expr": STRING, "labels": LABELS, "annotations": mapping({"summary": STRING, "description": STRING, "runbook_url": STRING})}, {"for": TIME, "keep_firing_for": TIME})
RULE = mapping({"groups": some(mapping({"name": STRING, "rules": some({"oneOf": [RECORD, ALERT]})}, {"interval": TIME}))})

SCHEMAS = {
    ("keda.sh/v1alpha1", "ScaledObject"): resource(SCALED_OBJECT),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): resource(AUTHENTICATION),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): resource(SERVICE_MONITOR),
    ("monitoring.coreos.com/v1", "PodMonitor"): resource(POD_MONITOR),
    ("monitoring.coreos.com/v1", "PrometheusRule"): resource(RULE),
}
