"""Ask a service what its OpenAPI description allows and what it forbids (schemathesis), and see whether answers fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext, engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine.events import ScenarioFinished
from starlette.applications import Starlette

__all__ = ["Contract", "keep_contract"]

INFER = ("infer", "inferVersion")
_TRANSPORT = {"inference-header-content-length", "content-encoding"}


@dataclass
class Contract:
    """What was answered.

    Attributes:
        codes: number of responses by operation and status.
        checks: number of checks by name.
        failures: of checks, and errors of the search itself, as texts.
    """

    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def keep_contract(
    application: Starlette, description: dict[str, Any], tensor: dict[str, Any], *, model: str, version: str,
    examples: int, seed: int = 1,
) -> Contract:  # fmt: skip
    """Send right and wrong requests of every operation to an application in this process, and check the responses.

    Args:
        application: of a service.
        description: OpenAPI.
        tensor: an input that the model takes. No schema says which data fit a shape, so every second request that
            is right by the schema gets it.
        model: its name.
        version: of the model.
        examples: random requests for each operation and kind, beside those that cover the schema.
        seed: of the search.
    """
    schema = schemathesis.openapi.from_dict(description, config=_config(model, version, examples, seed))
    schema.app = _warm(application)
    contract, number = Contract(), 0

    @schema.hook
    def map_case(context: HookContext, case: Case) -> Case:
        nonlocal number
        number += 1
        right = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
        if right and number % 2 and isinstance(case.body, dict) and "inputs" in case.body:
            case.body = case.body | {"inputs": [tensor]}
            for name in [name for name in case.headers if name.lower() in _TRANSPORT]:
                del case.headers[name]
        return case

    for event in engine.from_schema(schema).execute():
        if isinstance(event, ScenarioFinished):
            _count(event, contract)
        elif "Error" in type(event).__name__:
            contract.failures.append(str(vars(event)))
    return contract


def _warm(application: Starlette) -> Any:
    """Return the application without its start and stop: it runs already."""

    async def ask(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await application(scope, receive, send)

    return ask


def _config(model: str, version: str, examples: int, seed: int) -> SchemathesisConfig:
    settings = {
        "seed": seed,
        "continue-on-failure": True,
        "parameters": {"path.model": model, "path.version": version},
        "generation": {"max-examples": examples, "database": "none"},
        "phases": {"stateful": {"enabled": False}},
        # whether data fit a model, no schema says
        "operations": [
            {"include-operation-id": list(INFER), "checks": {"positive_data_acceptance": {"enabled": False}}}
        ],
    }
    return SchemathesisConfig.from_dict(settings)


def _count(event: ScenarioFinished, contract: Contract) -> None:
    recorder = event.recorder
    for interaction in recorder.interactions.values():
        code = interaction.response.status_code if interaction.response is not None else 0
        contract.codes[recorder.label, code] += 1
    for checks in recorder.checks.values():
        for check in checks:
            contract.checks[check.name] += 1
            if check.failure_info is not None:
                failure = check.failure_info
                contract.failures.append(f"{recorder.label}: {failure.failure.format()} {failure.code_sample[:2000]}")
