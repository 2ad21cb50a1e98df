"""`/openapi.json`: valid, the same as the routes and fields, and true of a node's answers."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import urlencode, urljoin

import pytest
from fakes import ENGLISH, Node, encoded, tone
from forms import Answer, form
from http_node import BEARER, SOCKETS, ask, http_node
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.decoding.transcriber import ModelInfo
from app.page import files
from app.protocols.http.openapi.document import CODES, Port, document
from app.protocols.http.openapi.schemas import SCHEMAS
from app.protocols.http.replies import STATUS
from app.protocols.http.routes import MODEL, ROUTES, Upload, allowed_methods

WAV = encoded(tone(1600))
BOUNDARY = "multipart/form-data; boundary=XyZ0"
PAGES = files.load()
UPLOADS = {path: found for path, found in ROUTES.items() if isinstance(found, Upload)}


@cache
def described(token: bool = True) -> dict[str, Any]:
    return document(Port("1.2.3", PAGES, SOCKETS, token, frozenset({"status", "own"})))


DOCUMENT = described()


@pytest.mark.parametrize("token", [True, False])
def test_document_is_valid(token: bool) -> None:
    errors = list(OpenAPIV31SpecValidator(described(token)).iter_errors())
    assert errors == []


def test_document_and_routes_have_the_same_methods() -> None:
    routes = {(path, method) for path in ROUTES for method in allowed_methods(ROUTES[path])}
    routes |= {(f"{MODEL}{{model}}", method) for method in ("GET", "HEAD")}
    routes |= {
        (path if "." not in path else "/{file}", m) for path in PAGES for m in ("GET", "HEAD")
    }
    routes |= {(path, "GET") for path in SOCKETS}
    paths = DOCUMENT["paths"].items()
    assert {(path, method.upper()) for path, found in paths for method in found} == routes
    names = DOCUMENT["paths"]["/{file}"]["get"]["parameters"][0]["schema"]["enum"]
    assert {f"/{name}" for name in names} == {path for path in PAGES if "." in path}
    identifiers = [found["operationId"] for _, one in paths for found in one.values()]
    assert len(set(identifiers)) == len(identifiers)


@pytest.mark.parametrize("path", UPLOADS)
def test_document_and_reader_have_the_same_fields(path: str) -> None:
    """tests/test_field_table.py holds the dialects' tables to the readers."""
    dialect = UPLOADS[path].dialect
    found = DOCUMENT["paths"][path]["post"]
    names = {field.name for field in dialect.fields}
    assert {parameter["name"] for parameter in found["parameters"]} == names
    content = found["requestBody"]["content"]
    for kind, audio in (("multipart/form-data", dialect.file_field), ("application/json", "file")):
        assert content[kind]["schema"]["properties"].keys() == names | {audio}
        assert content[kind]["schema"]["required"] == [audio]


def test_codes_are_those_of_the_node() -> None:
    assert set(DOCUMENT["components"]["schemas"]["Code"]["enum"]) == CODES.keys()
    assert CODES.keys() >= {code for code, status in STATUS.items() if status not in (422, 499)} - {
        "journal_damaged"
    }


def test_components_are_used() -> None:
    used = json.dumps(DOCUMENT)
    # Events have a schema, but a stream of them is a text.
    loose = {"OpenAiEvent"}
    assert {name for name in SCHEMAS if f'schemas/{name}"' not in used} == loose


def test_security_is_described_only_with_a_token() -> None:
    assert "security" not in json.dumps(described(False))
    assert '"401"' not in json.dumps(described(False))
    assert DOCUMENT["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_servers_are_relative_to_the_document() -> None:
    (server,) = DOCUMENT["servers"]
    for base in ("http://localhost:8080/", "https://example.org/speech/"):
        found = urljoin(f"{base}openapi.json", server["url"]) + "healthz"
        assert found == f"{base}healthz"


# Answers of a node.


@pytest.fixture
def node(make_node: Any) -> Node:
    model = ModelInfo(ENGLISH.name, True, frozenset({"de", "en"}))
    return http_node(make_node, model=model)


def strict(schema: Any) -> Any:
    """A schema that allows no further properties."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    if "properties" in made and made.get("type") == "object":
        made["additionalProperties"] = False
    return made


SOMETIMES = {"Retry-After", "X-Ignored-Fields", "X-Truncated"}
COMPONENTS = strict(copy.deepcopy(DOCUMENT["components"]))


def check(answer: Answer, operation: dict[str, Any]) -> None:
    """Check that an answer is as documented: status, content type, fields."""
    responses = operation["responses"]
    documented = responses.get(str(answer.status)) or responses["default"]
    content = documented.get("content", {})
    if not answer.body:
        return
    kind = answer.headers["content-type"].partition(";")[0]
    found = content.get(kind) or content.get("*/*")
    assert found is not None, (kind, list(content))
    for name in documented.get("headers", {}):
        assert name.lower() in answer.headers or name in SOMETIMES, name
    if kind == "application/json":
        checked(answer.json, found["schema"])
    if kind == "text/event-stream":
        for event in answer.events:
            checked(event, {"$ref": "#/components/schemas/OpenAiEvent"})


def checked(value: Any, schema: dict[str, Any]) -> None:
    whole = {**strict(schema), "components": COMPONENTS}
    errors = [error.message for error in Draft202012Validator(whole).iter_errors(value)]
    assert errors == [], value


def paths() -> Iterator[tuple[str, str, str]]:
    """Each path with a method and the address to ask for."""
    for path, found in DOCUMENT["paths"].items():
        for method in found:
            if method != "post" and path not in ("/v1/realtime", "/vosk"):
                yield (
                    path,
                    method,
                    path.replace("{model}", "whisper-1").replace("{file}", "page.js"),
                )


def test_reads_are_answered_as_documented(node: Node) -> None:
    asked = list(paths())
    assert len(asked) > 15
    for path, method, address in asked:
        operation = DOCUMENT["paths"][path][method]
        known = ask(node, method.upper(), address, **BEARER)
        assert str(known.status) in operation["responses"], (path, method)
        assert known.status in (200, 503)
        check(known, operation)
        stranger = ask(node, method.upper(), address)
        assert (stranger.status == 401) == ("security" in operation), (path, method)
        assert ("401" in operation["responses"]) == ("security" in operation)
        check(stranger, operation)
        foreign = ask(node, method.upper(), address, Host="evil.example")
        assert foreign.status == 403
        check(foreign, operation)
    missing = ask(node, "GET", f"{MODEL}unknown", **BEARER)
    assert missing.status == 404
    check(missing, DOCUMENT["paths"][f"{MODEL}{{model}}"]["get"])


def text_of(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in values]


def pairs(fields: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, text) for name, value in fields.items() for text in text_of(value)]


def examples(path: str, kind: str) -> list[dict[str, Any]]:
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"][kind]
    return [one["value"] for one in content.get("examples", {}).values()]


@pytest.mark.parametrize("path", UPLOADS)
def test_each_example_is_answered_as_documented(node: Node, path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    audio = UPLOADS[path].dialect.file_field
    kinds = set()
    for example in examples(path, "multipart/form-data"):
        fields = {name: value for name, value in example.items() if name != audio}
        body = form((audio, WAV), *pairs(fields))
        answer = ask(node, "POST", path, body, Content_Type=BOUNDARY, **BEARER)
        assert answer.status == 200, (example, answer)
        check(answer, operation)
        kinds.add(answer.headers["content-type"].partition(";")[0])
        query = f"{path}?{urlencode(pairs(fields))}"
        same = ask(node, "POST", query, WAV, Content_Type="audio/wav", **BEARER)
        assert (same.status, same.headers["content-type"]) == (200, answer.headers["content-type"])
    assert kinds == operation["responses"]["200"]["content"].keys()
    for example in examples(path, "application/json"):
        body = json.dumps(example).encode()
        answer = ask(node, "POST", path, body, Content_Type="application/json", **BEARER)
        assert answer.status == 200, answer
        check(answer, operation)


@pytest.mark.parametrize("path", UPLOADS)
def test_each_wrong_value_is_refused_as_documented(node: Node, path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    wrong = 0
    for parameter in operation["parameters"]:
        schema = parameter["schema"]
        values = ["no such value"] if "enum" in schema or schema["type"] == "boolean" else []
        if "maximum" in schema:
            values += [schema["maximum"] + 1, schema["minimum"] - 1, "x"]
        if schema["type"] == "integer":
            values.append(1.5)
        if "enum" in schema.get("items", {}):
            values.append("no such value")
        if "maxLength" in schema:
            values.append("x" * (schema["maxLength"] + 1))
        if "maxItems" in schema:
            values.append(",".join(["de"] * (schema["maxItems"] + 1)))
        for value in values:
            name = UPLOADS[path].dialect.file_field
            body = form((name, WAV), (parameter["name"], str(value)))
            answer = ask(node, "POST", path, body, Content_Type=BOUNDARY, **BEARER)
            assert answer.status == 400, (parameter["name"], value)
            check(answer, operation)
            wrong += 1
    assert wrong > 5


@pytest.mark.parametrize("path", UPLOADS)
def test_errors_of_uploads_are_answered_as_documented(node: Node, path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    kind = {"Content_Type": BOUNDARY}
    bodies = {
        401: (form(("file", WAV)), kind),
        403: (form(("file", WAV)), {**kind, "Origin": "http://evil.example"}),
        400: (form(("other", WAV)), {**kind, **BEARER}),
        415: (b"text", {"Content_Type": "text/plain", **BEARER}),
        413: (b"x" * ((1 << 24) + 1), {**kind, **BEARER}),
    }
    for status, (body, headers) in bodies.items():
        answer = ask(node, "POST", path, body, **headers)
        assert answer.status == status
        assert str(status) in operation["responses"]
        check(answer, operation)
