"""Bodies of lines, which schemathesis does not write by itself; and that answers have no member the document lacks."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """A line for each item, or one."""
    if isinstance(value, bytes):
        return value
    items = value if isinstance(value, list) else [value]
    return "".join(json.dumps(item) + "\n" for item in items).encode()


def resolved(document, part):
    """What a reference is to, with what stands beside it."""
    while "$ref" in part:
        target = document
        for step in part["$ref"][2:].split("/"):
            target = target[step]
        part = {**target, **{name: value for name, value in part.items() if name != "$ref"}}
    return part


def fits(schema, value):
    """Whether a variant is of the value's kind: its shape is another check's."""
    if isinstance(value, dict):
        return "properties" in schema and set(schema.get("required", [])) <= set(value)
    if isinstance(value, list):
        return "items" in schema or "prefixItems" in schema
    return False


def unnamed(document, schema, value, at):
    """The members that the document does not name."""
    schema = resolved(document, schema)
    variants = [resolved(document, one) for one in schema.get("oneOf", [])]
    if variants:
        schema = next((one for one in variants if fits(one, value)), {})
    if isinstance(value, dict):
        named, further = schema.get("properties", {}), schema.get("additionalProperties")
        for name, member in value.items():
            if name in named:
                yield from unnamed(document, named[name], member, f"{at}/{name}")
            elif isinstance(further, dict):
                yield from unnamed(document, further, member, f"{at}/{name}")
            # An object without any is of no shape.
            elif named and not further:
                yield f"{at}/{name}"
    elif isinstance(value, list):
        for item in value:
            yield from unnamed(document, schema.get("items", {}), item, f"{at}[]")


@schemathesis.check
def members_are_documented(context, response, case):
    """Of each answer that is JSON, or lines of it."""
    document = case.operation.schema.raw_schema
    answers = document["paths"][case.operation.path][case.operation.method.lower()]["responses"]
    answer = resolved(document, answers.get(str(response.status_code)) or answers.get("default", {}))
    kind = (response.headers.get("content-type") or [""])[0].split(";")[0]
    content = answer.get("content", {}).get(kind)
    if content is None or "json" not in kind or not response.text:
        return
    texts = response.text.splitlines() if kind.endswith("ndjson") else [response.text]
    for text in texts:
        found = list(unnamed(document, content["schema"], json.loads(text), ""))
        assert not found, f"the document does not name {found[:5]}"
