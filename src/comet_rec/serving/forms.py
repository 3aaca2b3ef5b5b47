"""Bodies of requests and answers of the service, as pydantic models; OpenAPI is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    model_validator,
)

MOST_USERS = 1_000
"""Users or histories in one request."""
MOST_PLACES = 20_000
"""Places in all lists of one request together."""
MOST_HISTORY = 1_000
"""Items in one history."""
MOST_ITEMS = 10_000
"""Items in `allow` or `block`."""
MOST_FIELDS = 20
"""Fields in one JSON object; no form has as many."""
LONGEST_ID = 500

Id = Annotated[
    Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
    | Annotated[StrictStr, Field(max_length=LONGEST_ID)],
    Field(description="An id of the log, as a number or as text."),
]
RunName = Annotated[
    Literal["main", "compare"], Field(description="The run served, or the one to compare it with.")
]
Count = Annotated[int, Field(ge=1, le=1_000)]


# Lists have `fail_fast`: pydantic makes an error for each wrong entry, and a body can hold 300,000.


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, fields: Any) -> Any:
        """Refuse many unknown fields at once: pydantic makes an error for each of them."""
        if isinstance(fields, dict) and len(fields) > MOST_FIELDS:
            raise ValueError(f"{len(fields)} fields: at most {MOST_FIELDS} in one object")
        return fields


class _Rules(_Form):
    k: Annotated[Count, Field(description="Items per list.")] = 10
    include_seen: Annotated[bool, Field(description="Also list items of the history.")] = False
    allow: Annotated[
        list[Id] | None,
        Field(fail_fast=True, max_length=MOST_ITEMS, description="List only these items."),
    ] = None
    block: Annotated[
        list[Id] | None,
        Field(fail_fast=True, max_length=MOST_ITEMS, description="Never list these items."),
    ] = None
    diversify: Annotated[
        float,
        Field(ge=0, le=1, allow_inf_nan=False, description="Loss of items like one above them."),
    ] = 0.0
    unknown: Annotated[
        Literal["error", "skip", "popular"],
        Field(description="Unknown ids: answer 404, leave them out, or list popular items."),
    ] = "error"
    titles: Annotated[bool, Field(description="Also give the titles of items.")] = False
    run: RunName = "main"

    @property
    def members(self) -> list[Any]:
        """Users or histories to make lists for."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        count = len(self.members)
        if count * self.k > MOST_PLACES:
            raise ValueError(f"{count} lists of {self.k}: at most {MOST_PLACES} places; ask twice")
        return self


class UsersRequest(_Rules):
    """Lists for users by their ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": [196], "k": 10}]})
    user_ids: Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=MOST_USERS)]

    @property
    def members(self) -> list[Any]:
        """The users."""
        return self.user_ids


class HistoriesRequest(_Rules):
    """Lists for new users by the items of their histories, oldest first."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"histories": [[242, 302]], "k": 10}]}
    )
    histories: Annotated[
        list[Annotated[list[Id], Field(fail_fast=True, max_length=MOST_HISTORY)]],
        Field(fail_fast=True, min_length=1, max_length=MOST_USERS),
    ]

    @property
    def members(self) -> list[Any]:
        """The histories."""
        return self.histories


class SimilarRequest(_Form):
    """Items that are most similar to each given item."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_ids": [242], "k": 5}]})
    item_ids: Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=100)]
    k: Annotated[int, Field(ge=1, le=200)] = 10
    titles: bool = False
    run: RunName = "main"


class ExplainRequest(_Form):
    """Contributions of a history, or of a user's history, to the scores of items."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"history": [242, 302], "item_ids": [1]}]}
    )
    user_id: Id | None = None
    history: Annotated[list[Id] | None, Field(fail_fast=True, max_length=MOST_HISTORY)] = None
    item_ids: Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=20)]
    titles: bool = False
    run: RunName = "main"

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.user_id is None) == (self.history is None):
            raise ValueError("give user_id or history, one of the two")
        return self


class Event(_Form):
    """A user took an item."""

    user_id: Id
    item_id: Id


class EventsRequest(_Form):
    """New events, oldest first; they are kept in memory only."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"events": [{"user_id": 196, "item_id": 302}]}]}
    )
    events: Annotated[list[Event], Field(fail_fast=True, min_length=1, max_length=1_000)]


class Item(BaseModel):
    """An item of a list; `rank` counts from 1."""

    item_id: int | str
    score: float
    rank: int
    title: str | None = None


class ItemList(BaseModel):
    """List of a user, and where it comes from."""

    user_id: int | str
    source: Annotated[
        Literal["model", "popular", "none"],
        Field(description="The model; popular items, for an unknown user; or no list."),
    ]
    items: list[Item]


class Answer(BaseModel):
    """What every answer has."""

    version: Annotated[str, Field(description="Version of the run that gave the answer.")]


class ListsAnswer(Answer):
    """Lists in the order of the request."""

    lists: list[ItemList]


class SimilarItem(BaseModel):
    """An item with the cosine of its vector and the given item's."""

    item_id: int | str
    similarity: float
    rank: int
    title: str | None = None


class SimilarList(BaseModel):
    """Items that are similar to one item."""

    item_id: int | str
    items: list[SimilarItem]


class SimilarAnswer(Answer):
    """Lists in the order of the request."""

    lists: list[SimilarList]


class Contribution(BaseModel):
    """What an item of the history adds to the score."""

    item_id: int | str
    contribution: float
    rank: int
    title: str | None = None


class Explanation(BaseModel):
    """Contributions to one score; they add up to score − without_history, within 0.01."""

    item_id: int | str
    score: float
    without_history: float
    history: list[Contribution]


class ExplainAnswer(Answer):
    """Explanations in the order of the request."""

    explanations: list[Explanation]


class CatalogueItem(BaseModel):
    """An item of the catalogue, with the number of users who took it."""

    item_id: int | str
    title: str | None
    users: int


class ItemsAnswer(Answer):
    """Items found, popular ones first."""

    items: list[CatalogueItem]


class RunEntry(BaseModel):
    """Facts about one run."""

    run: RunName
    version: str
    model: str
    preset: str
    users: int
    items: int
    rows: int
    epochs: int
    metrics: dict[str, Any] | None
    curves: list[dict[str, Any]]
    filters: list[dict[str, Any]]
    explains: bool
    folds_in: bool
    similar: bool


class RunsAnswer(Answer):
    """The run served, and the run to compare it with, if there is one."""

    runs: list[RunEntry]


class EventsAnswer(Answer):
    """Number of events kept."""

    accepted: int


class Status(BaseModel):
    """State of the process."""

    status: Literal["ok"]


class Fault(BaseModel):
    """Why a request was refused, in one line."""

    error: str
