"""Writes JSON Schemas for kubeconform, of the kinds that are asked for, from the API description in Kubernetes' own sources:
unknown fields are refused. Kubernetes itself has no such files, and the ones that others made are not in any package registry."""

import copy
import json

# Written as text or as a number, whatever the description says.
EITHER = {"io.k8s.apimachinery.pkg.util.intstr.IntOrString", "io.k8s.apimachinery.pkg.api.resource.Quantity"}


def strict(name, definition):
    if name in EITHER:
        return {"oneOf": [{"type": "string"}, {"type": "number"}]}
    out = copy.deepcopy(definition)
    if "properties" in out and not out.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].removeprefix("#/definitions/")
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def write(description, kinds, folder):
    """`kinds` is a set of (apiVersion, kind); gives those that the description does not have."""
    definitions = json.loads(description.read_text())["definitions"]
    of_kind = {}
    for name, definition in definitions.items():
        for gvk in definition.get("x-kubernetes-group-version-kind", []):
            version = f"{gvk['group']}/{gvk['version']}" if gvk["group"] else gvk["version"]
            of_kind[(version, gvk["kind"])] = name
    for version, kind in kinds & of_kind.keys():
        needed, queue = {}, [of_kind[(version, kind)]]
        while queue:
            name = queue.pop()
            if name not in needed:
                needed[name] = strict(name, definitions[name])
                queue += references(needed[name])
        schema = {"$ref": f"#/definitions/{of_kind[(version, kind)]}", "definitions": needed}
        # As kubeconform asks for it: {{.ResourceKind}}{{.KindSuffix}}.
        parts = version.split("/")
        parts[0] = parts[0].split(".")[0]
        (folder / f"{kind.lower()}-{'-'.join(parts)}.json").write_text(json.dumps(schema))
    return kinds - of_kind.keys()
