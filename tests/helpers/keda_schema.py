"""A JSON schema of KEDA's ScaledObject with triggers of the type nats-jetstream.

Written for this project from KEDA's documentation (keda.sh/docs, "ScaledObject specification" and
"NATS JetStream", release 2.17), because KEDA publishes no schema in a package. It is stricter than
KEDA: fields that the documentation does not name are errors.
"""

from __future__ import annotations

from typing import Any


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
# KEDA reads all metadata as strings.
_NUMBER_TEXT = {"type": "string", "pattern": r"^\d+$"}
_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}

_TRIGGER = _object(
    ("type", "metadata"),
    type={"const": "nats-jetstream"},
    name=_TEXT,
    metadata=_object(
        ("natsServerMonitoringEndpoint", "account", "stream", "consumer"),
        natsServerMonitoringEndpoint={"type": "string", "pattern": r"^[a-z0-9.-]+:\d+$"},
        account=_TEXT,
        stream=_TEXT,
        consumer=_TEXT,
        lagThreshold=_NUMBER_TEXT,
        activationLagThreshold=_NUMBER_TEXT,
        useHttps={"enum": ["true", "false"]},
    ),
)

_POLICY = _object(
    ("type", "value", "periodSeconds"),
    type={"enum": ["Pods", "Percent"]},
    value=_COUNT,
    periodSeconds=_COUNT,
)
_RULES = _object(
    stabilizationWindowSeconds=_COUNT,
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies={"type": "array", "items": _POLICY},
)

SCALED_OBJECT = _object(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=_object(("name",), name=_TEXT, labels=_LABELS, annotations=_LABELS, namespace=_TEXT),
    spec=_object(
        ("scaleTargetRef", "triggers"),
        scaleTargetRef=_object(
            ("name",), apiVersion=_TEXT, kind=_TEXT, name=_TEXT, envSourceContainerName=_TEXT
        ),
        pollingInterval=_COUNT,
        cooldownPeriod=_COUNT,
        initialCooldownPeriod=_COUNT,
        idleReplicaCount={"const": 0},
        minReplicaCount=_COUNT,
        maxReplicaCount=_COUNT,
        fallback=_object(
            ("failureThreshold", "replicas"),
            failureThreshold=_COUNT,
            replicas=_COUNT,
            behavior={
                "enum": [
                    "static",
                    "currentReplicas",
                    "currentReplicasIfHigher",
                    "currentReplicasIfLower",
                ]
            },
        ),
        advanced=_object(
            restoreToOriginalReplicaCount={"type": "boolean"},
            horizontalPodAutoscalerConfig=_object(
                name=_TEXT, behavior=_object(scaleDown=_RULES, scaleUp=_RULES)
            ),
        ),
        triggers={"type": "array", "minItems": 1, "items": _TRIGGER},
    ),
)
