"""The arguments of the tool."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from agenta_ai_server.tools.refine_prompt.tool import TemplateJson  # noqa: TC001  # pydantic evaluates it

MAX_CASES, MAX_ROUNDS, MAX_REPEAT = 20, 3, 5
# What all runs and refinements of the largest request come to.
MAX_MODEL_CALLS = 1000

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Texts = Annotated[list[Annotated[str, Field(min_length=1, max_length=2_000)]], Field(min_length=1, max_length=20)]


class Expected(BaseModel):
    """The requirements on an output. At least one property must be given, and all that are given must hold."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    equals: Annotated[
        Text | None,
        Field(description="The text that the output must equal, ignoring leading and trailing white space."),
    ] = None
    contains_all: Annotated[Texts | None, Field(description="Texts that the output must all contain.")] = None
    contains_any: Annotated[Texts | None, Field(description="Texts of which the output must contain at least one.")] = (
        None
    )
    contains_none: Annotated[Texts | None, Field(description="Texts that the output must not contain.")] = None
    pattern: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1_000,
            description="RE2 regular expression that must match somewhere in the output; ^ and $ make it match all "
            "of it. With a pattern, an output of more than 10,000 characters fails.",
        ),
    ] = None
    json_schema: Annotated[
        dict[str, Any] | None,
        Field(description="JSON Schema 2020-12. The output must be JSON that is valid against it."),
    ] = None
    json_equals: Annotated[
        Any,
        Field(description="The output must be JSON that equals this value. The order of keys doesn't matter."),
    ] = None
    json_contains: Annotated[
        Any,
        Field(
            description="The output must be JSON that contains this value: an object with at least these keys and "
            "values, a list with at least these items in any order. At most 1,000 values."
        ),
    ] = None
    max_characters: Annotated[
        int | None, Field(ge=1, le=1_000_000, description="The maximum number of characters in the output.")
    ] = None

    @model_validator(mode="after")
    def _something_is_given(self) -> Expected:
        # A null is a value for the JSON ones, and means nothing for the others.
        if not any(getattr(self, name) is not None or name.startswith("json_e") for name in self.model_fields_set):
            raise ValueError("Must have at least one property, such as equals or contains_all")
        return self


class Case(BaseModel):
    """One test case."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[
        str | None, Field(min_length=1, max_length=100, description="The name of the case in the report.")
    ] = None
    inputs: Annotated[dict[str, Any], Field(description="The values of the prompt's variables.")]
    expected: Expected
    remark: Annotated[
        str | None, Field(max_length=1_000, description="A description of the desired output, in your own words.")
    ] = None


class RefineWithCasesArguments(BaseModel):
    """The prompt, the test cases and the bounds of the cost."""

    model_config = ConfigDict(extra="forbid", title="RefinePromptWithCasesArguments")

    prompt_template_json: TemplateJson
    cases: Annotated[list[Case], Field(min_length=1, max_length=MAX_CASES, description="The test cases.")]
    guidelines: Annotated[
        str | None, Field(max_length=8_000, description="What else the refinement should achieve, in your own words.")
    ] = None
    context: Annotated[
        str | None, Field(max_length=5_000, description="What the prompt is for: its users, its data, its answers.")
    ] = None
    max_rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS, description="The maximum number of refinements to try.")] = 2
    repeat: Annotated[int, Field(ge=1, le=MAX_REPEAT, description="The number of times that each case is run.")] = 1
    pass_at_least: Annotated[
        int | None,
        Field(ge=1, le=MAX_REPEAT, description="The number of runs in which a case must pass. Default: all of them."),
    ] = None
    max_model_calls: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_MODEL_CALLS,
            description="The maximum number of model calls. A request that could need more is refused at once.",
        ),
    ] = 40

    @field_validator("pass_at_least")
    @classmethod
    def _no_more_passes_than_runs(cls, passes: int | None, info: ValidationInfo) -> int | None:
        repeat = info.data.get("repeat")  # missing if it is invalid itself
        if passes is not None and repeat is not None and passes > repeat:
            raise ValueError(f"Must be at most repeat, which is {repeat}")
        return passes

    @property
    def passes(self) -> int:
        """In how many of its runs a case must pass."""
        return self.repeat if self.pass_at_least is None else self.pass_at_least

    def name_of(self, index: int) -> str:
        """Return what a case is called in the report."""
        return self.cases[index].name or f"case {index + 1}"
