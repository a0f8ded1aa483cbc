"""The OpenAPI description: it names every route, and the service keeps to it, whatever it is asked."""

from __future__ import annotations

from typing import Any

from contract import keep_contract

from sdcompress.serving.openapi import openapi

TENSOR = {"name": "input", "shape": [1, 1, 4, 4], "datatype": "FP32", "data": [0.1] * 16}


def test_every_route_is_described_with_its_method(client: Any) -> None:
    paths = openapi()["paths"].items()
    described = {(path, method.upper()) for path, item in paths for method in item.keys() & {"get", "post"}}
    routes = client.application.routes
    served = {(route.path.rstrip("/"), method) for route in routes for method in route.methods - {"HEAD"}}
    assert described == {(path, method) for path, method in served if path.startswith("/v2")}


def test_the_description_is_served(client: Any) -> None:
    assert client.get("/v2/openapi.json").json() == openapi()


def test_a_slash_behind_a_path_sends_no_client_elsewhere(client: Any) -> None:
    assert client.get("/v2/").json() == client.get("/v2").json()
    response = client.request(
        "POST", "/v2/models/tiny/infer/", json={"inputs": [TENSOR]}, headers={"Host": "elsewhere"}
    )
    assert response.status_code == 404


def test_responses_are_as_described_whatever_is_asked(client: Any) -> None:
    model = client.service.models["tiny"]
    contract = keep_contract(client.application, openapi(), TENSOR, model="tiny", version=model.version, examples=20)
    assert contract.failures == []
    answered = {code for operation, code in contract.codes if operation.endswith("/infer")}
    assert {200, 400, 405, 415} <= answered <= {200, 400, 405, 413, 415}
    assert contract.checks["response_schema_conformance"] > 500
