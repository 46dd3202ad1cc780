"""JSON Schema of every contract file, for those who obey it in C++, Kotlin and Swift."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from mobilepack.contract.base import Contract


class _AllRequired(GenerateJsonSchema):
    """Every key is written, also one with a default, so every reader may rely on it."""

    def field_is_required(
        self,
        field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField,
        total: bool,
    ) -> bool:
        return True


def contracts() -> dict[str, type[Contract]]:
    """Return the contract of each file by the schema's name."""
    from mobilepack.contract.bench import Bench
    from mobilepack.contract.campaign import CampaignFile, Cell
    from mobilepack.contract.evaluation import Evaluation
    from mobilepack.contract.explanation import Explanation
    from mobilepack.contract.manifest import Manifest
    from mobilepack.contract.parity import Parity
    from mobilepack.contract.placement import Placement
    from mobilepack.contract.profile import Profile
    from mobilepack.contract.reference import ReferenceIndex
    from mobilepack.contract.run_plan import RunPlan
    from mobilepack.contract.run_result import RunResult

    return {
        "bench": Bench,
        "campaign": CampaignFile,
        "campaign_cell": Cell,
        "evaluation": Evaluation,
        "explanation": Explanation,
        "manifest": Manifest,
        "parity": Parity,
        "placement": Placement,
        "profile": Profile,
        "reference": ReferenceIndex,
        "run_plan": RunPlan,
        "run_result": RunResult,
    }


def json_schema(name: str) -> str:
    """Return one contract's JSON Schema (draft 2020-12) as text, every written key required."""
    model = contracts()[name]
    schema = model.model_json_schema(
        by_alias=True, mode="serialization", schema_generator=_AllRequired
    )
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"mobilepack/{name.replace('_', '-')}/1",
    }
    return json.dumps(head | schema, indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> tuple[Path, ...]:
    """Write `<name>.schema.json` for every contract; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in contracts():
        path = folder / f"{name}.schema.json"
        path.write_text(json_schema(name))
        paths.append(path)
    return tuple(paths)
