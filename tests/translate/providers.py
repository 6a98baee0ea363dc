"""Are the requests that translation writes for Gemini, Vertex AI and Bedrock what those take?

    python tests/translate/providers.py

Reads the cases of gateway/dialects/testdata/translate and checks the requests that the gateway writes, and the answers
that the cases give to it: those of Gemini and Vertex AI against the types of the package `google-genai`, which take no key
that they do not know, those of Bedrock against the service model in `botocore`: keys, types, what is required, enums,
lengths, patterns. Each reason to end, and each exception, that these know has to have its cases. Exit code 1 where one
does not fit.
"""

import base64
import json
import re
import sys

import botocore.session
import pydantic
from google.genai import types as google
from snapshots import CASES, holes

BEDROCK = botocore.session.get_session().get_service_model("bedrock-runtime")

# The members of a request of `generateContent`, by type.
REQUEST = {
    "contents": list[google.Content],
    "systemInstruction": google.Content,
    "tools": list[google.Tool],
    "toolConfig": google.ToolConfig,
    "generationConfig": google.GenerationConfig,
    "serviceTier": google.ServiceTier,
}
# Keywords that Google's own type of a JSON schema has; the rest is ignored there.
SCHEMA = {"$id", "$anchor", "prefixItems", "propertyOrdering", "nullable"} | {
    field.alias or name for name, field in google.JSONSchema.model_fields.items()
}


def google_faults(form, value, path):
    try:
        pydantic.TypeAdapter(form).validate_python(value)
    except pydantic.ValidationError as error:
        return [f"{path}: {fault['loc']} {fault['msg']}" for fault in error.errors()]
    # Enums of theirs take any word with a warning.
    return list(unknown_words(pydantic.TypeAdapter(form).validate_python(value), path))


def unknown_words(value, path):
    if isinstance(value, pydantic.BaseModel):
        for name in value.model_fields_set:
            yield from unknown_words(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for n, element in enumerate(value):
            yield from unknown_words(element, f"{path}[{n}]")
    elif hasattr(type(value), "__members__") and value.name not in type(value).__members__:
        yield f"{path}: {value!r} is no {type(value).__name__}"


def schemas(value, path):
    """Keywords in JSON schemas that Google does not know."""
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key not in SCHEMA:
            yield f"{path}.{key}: no keyword there"
        elif key in ("properties", "$defs"):
            for name, schema in inner.items():
                yield from schemas(schema, f"{path}.{key}.{name}")
        elif key in ("anyOf", "oneOf", "prefixItems"):
            for schema in inner:
                yield from schemas(schema, f"{path}.{key}")
        elif key in ("items", "additionalProperties"):
            yield from schemas(inner, f"{path}.{key}")


def google_request(request, path):
    faults = [f"{path}: no member `{key}`" for key in request if key not in REQUEST]
    for key, form in REQUEST.items():
        if key in request:
            faults += google_faults(form, request[key], f"{path}.{key}")
    for tool in request.get("tools", []):
        for function in tool["functionDeclarations"]:
            faults += schemas(function.get("parametersJsonSchema"), f"{path}.{function['name']}")
    faults += schemas(request.get("generationConfig", {}).get("responseJsonSchema"), f"{path}.responseJsonSchema")
    # A result answers a call, and calls and results pair up one by one.
    calls = []
    for content in request["contents"]:
        given = [part["functionResponse"] for part in content["parts"] if "functionResponse" in part]
        if given and [(call["id"], call["name"]) for call in given] != calls:
            faults.append(f"{path}: the results are not those of the calls {calls}")
        made = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        calls = [(call["id"], call["name"]) for call in made]
    roles = [content["role"] for content in request["contents"]]
    if any(a == b for a, b in zip(roles, roles[1:])):
        faults.append(f"{path}: two turns of one side: {roles}")
    return faults


def shape_faults(shape, value, path):
    """The faults of `value` as botocore's `shape`, as JSON has it on the wire."""
    kind, rules = shape.type_name, shape.metadata
    if getattr(shape, "is_document_type", False):
        return []
    if kind == "structure":
        if not isinstance(value, dict):
            return [f"{path}: no object"]
        faults = [f"{path}.{key}: is missing" for key in shape.required_members if key not in value and key != "modelId"]
        if shape.is_tagged_union and len(value) != 1:
            faults.append(f"{path}: {len(value)} members of a union")
        for key, inner in value.items():
            if key not in shape.members:
                faults.append(f"{path}.{key}: {shape.name} has no such member")
            else:
                faults += shape_faults(shape.members[key], inner, f"{path}.{key}")
        return faults
    if kind == "list":
        if not isinstance(value, list):
            return [f"{path}: no list"]
        return [f for n, element in enumerate(value) for f in shape_faults(shape.member, element, f"{path}[{n}]")] + sized(
            len(value), rules, path
        )
    if kind == "map":
        inner = [f for key, one in value.items() for f in shape_faults(shape.value, one, f"{path}.{key}")]
        return inner + [f for key in value for f in shape_faults(shape.key, key, f"{path} key")] + sized(len(value), rules, path)
    if kind == "blob":
        return sized(len(base64.b64decode(value, validate=True)), rules, path)
    wanted = {"string": str, "boolean": bool, "integer": int, "long": int, "float": (int, float), "double": (int, float)}[kind]
    if not isinstance(value, wanted) or (kind != "boolean" and isinstance(value, bool)):
        return [f"{path}: {value!r} is no {kind}"]
    if shape.type_name == "string":
        if getattr(shape, "enum", None) and value not in shape.enum:
            return [f"{path}: {value!r} is none of {shape.enum}"]
        if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
            return [f"{path}: {value!r} does not match {rules['pattern']}"]
        return sized(len(value), rules, path)
    return sized(value, rules, path) if kind != "boolean" else []


def sized(size, rules, path):
    low, high = rules.get("min"), rules.get("max")
    wrong = (low is not None and size < low) or (high is not None and size > high)
    return [f"{path}: {size} is not within {low}..{high}"] if wrong else []


def bedrock_request(request, path):
    shape = BEDROCK.operation_model("Converse").input_shape
    faults = shape_faults(shape, request, path)
    roles = [message["role"] for message in request["messages"]]
    if any(a == b for a, b in zip(roles, roles[1:])):
        faults.append(f"{path}: two turns of one side: {roles}")
    texts = [block["text"] for message in request["messages"] for block in message["content"] if "text" in block]
    if any(not text.strip() for text in texts):
        faults.append(f"{path}: a blank text")
    format = request.get("outputConfig", {}).get("textFormat")
    if format:
        json.loads(format["structure"]["jsonSchema"]["schema"])
    return faults


def bedrock_answer(case):
    """The answers that a case gives: they too have to be real ones."""
    faults = []
    whole = case / "provider_answer.json"
    if whole.exists():
        shape = BEDROCK.operation_model("Converse").output_shape
        answer = json.loads(whole.read_text())
        if "usage" in answer:
            faults += shape_faults(shape, answer, f"{case.name}/provider_answer")
    frames = case / "provider_answer.frames"
    if frames.exists():
        stream = BEDROCK.operation_model("ConverseStream").output_shape.members["stream"]
        for line in frames.read_text().splitlines():
            name, payload = line.split(" ", 1)
            payload = json.loads(payload)
            # Padding, against guessing lengths.
            payload.pop("p", None)
            if name == "metadata" and "usage" not in payload:
                continue
            shape = stream.members[name.removeprefix("!")]
            faults += shape_faults(shape, payload, f"{case.name}/{name}")
    return faults


def google_answer(case):
    faults, pieces = [], []
    if (case / "provider_answer.json").exists():
        pieces.append((case / "provider_answer.json").read_text())
    if (case / "provider_answer.sse").exists():
        text = (case / "provider_answer.sse").read_text()
        if not text.startswith("["):
            pieces += [event[len("data: ") :] for event in text.replace("\r\n", "\n").split("\n\n") if event]
    for piece in pieces:
        piece = json.loads(piece)
        if "error" not in piece:
            faults += google_faults(google.GenerateContentResponse, piece, f"{case.name}/provider_answer")
    return faults


def missing(pair, provider):
    """The reasons to end, and the exceptions, that a pair has no cases of."""
    if provider != "bedrock":
        reasons = [reason.name for reason in google.FinishReason if reason.name != "FINISH_REASON_UNSPECIFIED"]
        return holes(pair, "stop-", reasons) + holes(pair, "stream-stop-", reasons)
    reasons = BEDROCK.shape_for("StopReason").enum
    stream = BEDROCK.operation_model("ConverseStream").output_shape.members["stream"].members
    return (
        holes(pair, "stop-", reasons)
        + holes(pair, "stream-stop-", reasons)
        + holes(pair, "error-", [shape.name for shape in BEDROCK.operation_model("Converse").error_shapes])
        + holes(pair, "stream-error-", [name for name in stream if name.endswith("Exception")])
    )


def main():
    seen, faults = 0, []
    for pair in sorted(path for path in CASES.iterdir() if path.is_dir()):
        provider = pair.name.split("-")[1]
        if provider not in ("gemini", "vertex", "bedrock"):
            continue
        faults += missing(pair, provider)
        for case in sorted(path for path in pair.iterdir() if path.is_dir()):
            request = json.loads((case / "provider_request.json").read_text())
            path = f"{pair.name}/{case.name}"
            if provider == "bedrock":
                faults += bedrock_request(request, path) + bedrock_answer(case)
            else:
                faults += google_request(request, path) + google_answer(case)
            seen += 1
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{seen} cases for Gemini, Vertex AI and Bedrock, {len(faults)} faults")
    return 1 if faults or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
