"""What must hold of a rendered overlay beyond its schema. Each law takes all objects and yields what is wrong."""

import json
import re

# Made by whoever installs the farm, since they hold passwords (base/settings.yaml and the components say how).
SECRETS_FROM_OUTSIDE = {"flakefarm-addresses", "flakefarm-broker-management", "flakefarm-stores", "flakefarm-objects"}
# Programs that read no file in place of a variable.
VARIABLES_FROM_SECRETS = {"RABBITMQ_DEFAULT_PASS"}
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def name(thing):
    return "%s %s/%s" % (thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"])


def seconds(text):
    found = re.fullmatch(r"([0-9.]+)(ms|s|m|h)", text)
    return float(found[1]) * UNITS[found[2]]


def pods(objects):
    """Everything that makes pods: the object, its pods' labels and their specification."""
    for thing in objects:
        spec = thing.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template and "spec" in template:
            yield thing, template.get("metadata", {}).get("labels", {}), template["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def serves(thing, container, spec):
    """Whether a container runs until it is told to leave."""
    is_side = container in spec.get("initContainers", [])
    return container.get("restartPolicy") == "Always" if is_side else thing["kind"] not in ("CronJob", "Job")


def limits_and_probes(objects):
    for thing, _, spec in pods(objects):
        for container in containers(spec):
            where, image = "%s: %s" % (name(thing), container["name"]), container["image"]
            if ("@sha256:" not in image and ":" not in image.rsplit("/", 1)[-1]) or image.endswith(":latest"):
                yield "%s: %s names no version" % (where, image)
            resources = container.get("resources", {})
            if "memory" not in resources.get("limits", {}) or {"cpu", "memory"} - resources.get("requests", {}).keys():
                yield "%s: no limit of memory, or no requests" % where
            if serves(thing, container, spec):
                missing = {"livenessProbe", "startupProbe"} - container.keys()
                if container not in spec.get("initContainers", []):
                    missing |= {"readinessProbe"} - container.keys()
                yield from ("%s: no %s" % (where, probe) for probe in sorted(missing))
        if thing["kind"] == "Job" and "activeDeadlineSeconds" not in thing["spec"]:
            yield "%s: no deadline" % name(thing)
        if thing["kind"] == "CronJob":
            job = thing["spec"]["jobTemplate"]["spec"]
            if "activeDeadlineSeconds" not in job or thing["spec"].get("concurrencyPolicy") != "Forbid":
                yield "%s: no deadline, or two at once" % name(thing)


def rights(objects):
    for thing, _, spec in pods(objects):
        if spec.get("automountServiceAccountToken") is not False:
            yield "%s: its pods are given a token of the cluster" % name(thing)
        for field in ["hostNetwork", "hostPID", "hostIPC"]:
            if spec.get(field):
                yield "%s: %s" % (name(thing), field)
        for volume in spec.get("volumes", []):
            if "hostPath" in volume:
                yield "%s: %s is a path of the node" % (name(thing), volume["name"])
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield "%s: %s has no end" % (name(thing), volume["name"])
        for container in containers(spec):
            security = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
            where = "%s: %s" % (name(thing), container["name"])
            if not security.get("runAsUser"):
                yield "%s runs as root, or as whom the image likes" % where
            if container["name"] == "engine":
                continue
            if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False or security.get("capabilities", {}).get("drop") != ["ALL"]:
                yield "%s may gain rights" % where
            if not security.get("readOnlyRootFilesystem") or not security.get("runAsNonRoot"):
                yield "%s: its root can be written to, or may be root's" % where
            for variable in container.get("env", []):
                if "secretKeyRef" in variable.get("valueFrom", {}) and variable["name"] not in VARIABLES_FROM_SECRETS:
                    yield "%s: %s is a secret in a variable" % (where, variable["name"])


def draining(objects):
    """A worker is told to drain, may take its grace for it, and has its engine until it has left."""
    settings = {key: value for thing in objects if thing["kind"] == "ConfigMap" for key, value in thing.get("data", {}).items()}
    for thing, labels, spec in pods(objects):
        if labels.get("app.kubernetes.io/component") != "worker":
            continue
        worker = spec["containers"][0]
        told = worker.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        if told[:3] != ["flakefarm", "probe", "drain"] or "--wait" not in told:
            yield "%s: nothing tells it to drain" % name(thing)
            continue
        wait, grace = seconds(told[told.index("--wait") + 1]), seconds(settings["FLAKEFARM_GRACE"])
        if not grace < wait < spec["terminationGracePeriodSeconds"] - 30:
            yield "%s: grace %d s, drain %d s and the pod's end %d s do not follow each other" % (name(thing), grace, wait, spec["terminationGracePeriodSeconds"])
        engines = [side for side in spec.get("initContainers", []) if side["name"] == "engine"]
        if not engines or engines[0].get("restartPolicy") != "Always":
            yield "%s: its engine is no native sidecar: it would end before the worker" % name(thing)
        if any(other["name"] == "engine" for other in spec["containers"]):
            yield "%s: its engine ends with the worker" % name(thing)


def scaling(objects):
    """An autoscaler divides jobs by what a worker runs at once, and owns the number of workers."""
    slots = [thing["data"]["FLAKEFARM_SLOTS"] for thing in objects if thing["kind"] == "ConfigMap" and "FLAKEFARM_SLOTS" in thing.get("data", {})]
    targets = set()
    for thing in objects:
        if thing["kind"] == "ScaledObject":
            targets.add(thing["spec"]["scaleTargetRef"]["name"])
            queues = {trigger["metadata"]["queueName"] for trigger in thing["spec"]["triggers"]}
            if queues != {"ff.jobs.interactive", "ff.jobs.bulk"}:
                yield "%s watches %s" % (name(thing), sorted(queues))
            for trigger in thing["spec"]["triggers"]:
                metadata = trigger["metadata"]
                if metadata["value"] != slots[0]:
                    yield "%s: one worker for %s jobs, but it has %s slots" % (name(thing), metadata["value"], slots[0])
                # Only the management interface knows of messages in hand.
                if metadata.get("excludeUnacknowledged") != "false" or metadata.get("protocol") != "http":
                    yield "%s: jobs in hand do not count: busy workers would be taken away" % name(thing)
        if thing["kind"] == "HorizontalPodAutoscaler":
            targets.add(thing["spec"]["scaleTargetRef"]["name"])
            if thing["spec"]["metrics"][0]["external"]["target"]["averageValue"] != slots[0]:
                yield "%s: not one worker for as many jobs as it has slots" % name(thing)
    for thing in objects:
        if thing["kind"] == "Deployment" and thing["metadata"]["name"] in targets and "replicas" in thing["spec"]:
            yield "%s: its number is an autoscaler's and must not be said" % name(thing)


def disruption(objects):
    deployments = [thing for thing in objects if thing["kind"] == "Deployment"]
    budgets = [thing for thing in objects if thing["kind"] == "PodDisruptionBudget"]
    for thing in deployments:
        if not any(budget["spec"]["selector"] == thing["spec"]["selector"] for budget in budgets):
            yield "%s has no budget for disruptions" % name(thing)
        if not thing["spec"]["template"]["spec"].get("topologySpreadConstraints"):
            yield "%s: all of its pods may be on one node" % name(thing)
    for budget in budgets:
        spec = budget["spec"]
        if spec.get("maxUnavailable") in (None, 0, "0%") or "minAvailable" in spec or spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield "%s may block a node's drain" % name(budget)


def references(objects):
    have = {(thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]) for thing in objects}
    namespaces = {where for kind, _, where in have if kind == "Namespace"}
    for thing in objects:
        if thing["kind"] != "Namespace" and thing["metadata"].get("namespace") not in namespaces:
            yield "%s: its namespace is not made" % name(thing)
    if len(have) != len(objects):
        yield "an object is there twice"
    for thing, labels, spec in pods(objects):
        at = thing["metadata"]["namespace"]
        wanted = [("ConfigMap", source["configMapRef"]["name"]) for container in containers(spec) for source in container.get("envFrom", []) if "configMapRef" in source]
        wanted += [("Secret", source["secretRef"]["name"]) for container in containers(spec) for source in container.get("envFrom", []) if "secretRef" in source]
        if "serviceAccountName" in spec:
            wanted.append(("ServiceAccount", spec["serviceAccountName"]))
        for volume in spec.get("volumes", []):
            wanted += [("ConfigMap", volume["configMap"]["name"])] if "configMap" in volume else []
            wanted += [("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])] if "persistentVolumeClaim" in volume else []
            wanted += [("Secret", volume["secret"]["secretName"])] if "secret" in volume else []
        for kind, what in wanted:
            if (kind, at, what) not in have and not (kind == "Secret" and what in SECRETS_FROM_OUTSIDE):
                yield "%s: there is no %s %s" % (name(thing), kind, what)
        mounted = {volume["name"] for volume in spec.get("volumes", [])} | {claim["metadata"]["name"] for claim in thing["spec"].get("volumeClaimTemplates", [])}
        used = {mount["name"] for container in containers(spec) for mount in container.get("volumeMounts", [])}
        if mounted != used:
            yield "%s: volumes %s are not what is mounted" % (name(thing), sorted(mounted ^ used))
        selector = thing["spec"].get("selector", {}).get("matchLabels", {})
        if not selector.items() <= labels.items():
            yield "%s selects other pods than it makes" % name(thing)
    made = [(thing["metadata"]["namespace"], labels) for thing, labels, _ in pods(objects)]
    for thing in objects:
        selector = thing["spec"].get("selector") if thing["kind"] == "Service" else thing.get("spec", {}).get("podSelector", {}).get("matchLabels") if thing["kind"] == "NetworkPolicy" else None
        if selector and not any(at == thing["metadata"]["namespace"] and selector.items() <= labels.items() for at, labels in made):
            yield "%s selects nothing" % name(thing)


def network(objects):
    policies = [thing for thing in objects if thing["kind"] == "NetworkPolicy"]
    for thing in objects:
        if thing["kind"] != "Namespace":
            continue
        at = thing["metadata"]["name"]
        if not any(policy["metadata"]["namespace"] == at and policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} for policy in policies):
            yield "namespace %s: what is not named is not refused" % at
        if not any(other["kind"] == "ResourceQuota" and other["metadata"]["namespace"] == at for other in objects):
            yield "namespace %s has no quota" % at
        levels = {thing["metadata"].get("labels", {}).get("pod-security.kubernetes.io/" + mode) for mode in ["enforce", "audit", "warn"]}
        if None in levels:
            yield "namespace %s: nothing is said of what its pods may" % at
    for policy in policies:
        for rule in policy["spec"].get("egress", []):
            for block in [end["ipBlock"] for end in rule.get("to", []) if "ipBlock" in end]:
                if block["cidr"] == "0.0.0.0/0" and "169.254.0.0/16" not in block.get("except", []):
                    yield "%s: the addresses by which clouds hand out credentials are open" % name(policy)
            if not rule.get("to"):
                yield "%s: a rule for every address" % name(policy)


def dashboards(objects):
    for thing in objects:
        for file, text in thing.get("data", {}).items() if thing["kind"] == "ConfigMap" else []:
            if not file.endswith(".json"):
                continue
            panels = json.loads(text)["panels"]
            if len({panel["id"] for panel in panels}) != len(panels):
                yield "%s: two panels with one id" % name(thing)
            for panel in panels:
                if panel["type"] != "row" and not all(target["expr"] and target["datasource"]["uid"] == "${DS}" for target in panel["targets"]):
                    yield "%s: %s asks nothing, or a data source of its own" % (name(thing), panel["title"])
                for other in panels:
                    one, two = panel["gridPos"], other["gridPos"]
                    if panel["id"] < other["id"] and one["x"] < two["x"] + two["w"] and two["x"] < one["x"] + one["w"] and one["y"] < two["y"] + two["h"] and two["y"] < one["y"] + one["h"]:
                        yield "%s: %s lies over %s" % (name(thing), panel["title"], other["title"])


LAWS = [limits_and_probes, rights, draining, scaling, disruption, references, network, dashboards]
