"""What KEDA and the horizontal pod autoscaler make of the length of queues: pure, told the time. After KEDA 2.16 (its
operator scales between none and one, and hands metrics on) and Kubernetes' HPA v2 (it scales above one)."""

import math
from dataclasses import dataclass, field

# The controller's own (--horizontal-pod-autoscaler-tolerance, -sync-period).
TOLERANCE = 0.1
SYNC_SECONDS = 15


@dataclass(frozen=True)
class Rules:
    """One direction of an HPA's behaviour."""

    stabilization: float
    policies: tuple  # of (type, value, period in seconds)


@dataclass(frozen=True)
class Scaling:
    """A ScaledObject, as far as it decides anything here."""

    queues: dict  # of queue: messages for each worker
    least: int
    most: int
    polling: float
    cooldown: float
    up: Rules
    down: Rules

    @staticmethod
    def of(spec):
        behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]

        def rules(direction):
            said = behaviour[direction]
            return Rules(said["stabilizationWindowSeconds"], tuple((policy["type"], policy["value"], policy["periodSeconds"]) for policy in said["policies"]))

        queues = {trigger["metadata"]["queueName"]: float(trigger["metadata"]["value"]) for trigger in spec["triggers"]}
        return Scaling(queues, spec["minReplicaCount"], spec["maxReplicaCount"], spec["pollingInterval"], spec["cooldownPeriod"], rules("scaleUp"), rules("scaleDown"))


@dataclass
class Autoscaler:
    scaling: Scaling
    active_at: float = -math.inf
    recommended: list = field(default_factory=list)  # of (time, replicas)
    changed: list = field(default_factory=list)  # of (time, by how many)

    def decide(self, now, messages, replicas):
        """How many workers there are to be, `messages` being those of each queue, in hand included."""
        active = any(count > 0 for count in messages.values())
        if active:
            self.active_at = now
        if replicas == 0:
            return max(1, self.scaling.least) if active else self.scaling.least
        if not active and now - self.active_at >= self.scaling.cooldown and self.scaling.least == 0:
            self.recommended.clear()
            return 0
        decided = self.bounded(now, self.stabilised(now, self.wanted(messages, replicas), replicas), replicas)
        if decided != replicas:
            self.changed.append((now, decided - replicas))
        return decided

    def wanted(self, messages, replicas):
        """By the queue that wants most."""
        most = 0
        for queue, each in self.scaling.queues.items():
            count = messages.get(queue, 0)
            unchanged = abs(count / (each * replicas) - 1) <= TOLERANCE
            most = max(most, replicas if unchanged else math.ceil(count / each))
        return min(max(most, 1, self.scaling.least), self.scaling.most)

    def stabilised(self, now, wanted, replicas):
        window = max(self.scaling.up.stabilization, self.scaling.down.stabilization)
        self.recommended = [(at, number) for at, number in self.recommended if now - at <= window] + [(now, wanted)]
        lowest = min(number for at, number in self.recommended if now - at <= self.scaling.up.stabilization)
        highest = max(number for at, number in self.recommended if now - at <= self.scaling.down.stabilization)
        return min(max(replicas, lowest), highest)

    def bounded(self, now, wanted, replicas):
        def before(period, sign):
            return sum(by for at, by in self.changed if now - at < period and by * sign > 0)

        if wanted > replicas:
            ends = []
            for kind, value, period in self.scaling.up.policies:
                start = replicas - before(period, 1)
                ends.append(start + value if kind == "Pods" else math.ceil(start * (1 + value / 100)))
            return min(wanted, max(ends))
        if wanted < replicas:
            ends = []
            for kind, value, period in self.scaling.down.policies:
                start = replicas - before(period, -1)
                ends.append(start - value if kind == "Pods" else math.floor(start * (1 - value / 100)))
            return max(wanted, min(ends))
        return replicas
