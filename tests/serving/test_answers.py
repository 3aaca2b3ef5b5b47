"""Answers of the service: those of the library, by the version that they name."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import comet_rec as cr
from tests.serving.conftest import ITEMS, TITLES, Client


def rows(answer):
    """(user, item, score, rank) of all lists of an answer."""
    assert answer.status == 200, answer.body
    return [
        (each["user_id"], item["item_id"], item["score"], item["rank"])
        for each in answer.json["lists"]
        for item in each["items"]
    ]


def expected(table):
    return [
        (row["user_id"], row["item_id"], float(row["score"]), row["rank"]) for row in table.rows()
    ]


@pytest.fixture(scope="module")
def model(runs):
    return cr.load_model(runs["comet"])


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"k": 3, "include_seen": True},
        {"allow": [1, 2, 3, 4, 5, 6], "block": [2]},
        {"diversify": 0.5},
        {"k": 1000},
    ],
)
def test_lists_are_those_of_the_library(client, model, rules):
    users = [3, 0, 39, 3]
    answer = client.post("/v1/recommend", {"user_ids": users, **rules})
    assert rows(answer) == expected(model.recommend(users, **rules))
    histories = [[4, 9], [7]]
    answer = client.post("/v1/recommend/history", {"histories": histories, **rules})
    assert rows(answer) == expected(model.recommend_for_history(histories, **rules))


def test_an_answer_names_the_version_of_its_run(client, runs):
    manifest = (runs["comet"] / "manifest.json").read_text()
    answer = client.post("/v1/recommend", {"user_ids": [1]})
    assert f'"sha256": "{answer.json["version"]}' in manifest
    other = client.post("/v1/recommend", {"user_ids": [1], "run": "compare"})
    assert rows(other) == expected(cr.load_model(runs["ease"]).recommend([1]))
    assert other.json["version"] != answer.json["version"]


def test_titles_are_given_on_request(client):
    plain = client.post("/v1/recommend", {"user_ids": [1], "k": 1}).json["lists"][0]["items"][0]
    named = client.post("/v1/recommend", {"user_ids": [1], "k": 1, "titles": True})
    item = named.json["lists"][0]["items"][0]
    assert item == {**plain, "title": TITLES[str(plain["item_id"])]}


def test_ids_of_text_come_and_go_as_text(runs):
    client = Client({"main": runs["text"]})
    model = cr.load_model(runs["text"])
    answer = client.post("/v1/recommend", {"user_ids": ["user-3"], "k": 4})
    assert rows(answer) == expected(model.recommend(["user-3"], k=4))
    history = ["item 3 é", "item 1 é"]
    answer = client.post("/v1/recommend/history", {"histories": [history], "k": 4})
    assert rows(answer) == expected(model.recommend_for_history([history], k=4))
    answer = client.post("/v1/explain", {"history": history, "item_ids": ["item 2 é"]})
    (reason,) = answer.json["explanations"]
    assert reason["item_id"] == "item 2 é"
    assert {part["item_id"] for part in reason["history"]} == set(history)


def test_an_integer_id_may_be_sent_as_text(client):
    by_text = client.post("/v1/recommend", {"user_ids": ["3"]})
    assert rows(by_text) == rows(client.post("/v1/recommend", {"user_ids": [3]}))


def test_unknown_users_are_refused_skipped_or_given_popular_items(client, model):
    body = {"user_ids": [1, 999], "k": 2}
    refused = client.post("/v1/recommend", body)
    assert refused.status == 404
    assert "unknown user 999" in refused.json["error"]
    skipped = client.post("/v1/recommend", {**body, "unknown": "skip"}).json["lists"]
    assert [each["source"] for each in skipped] == ["model", "none"]
    assert skipped[1] == {"user_id": 999, "source": "none", "items": []}
    popular = client.post("/v1/recommend", {**body, "unknown": "popular"})
    assert [each["source"] for each in popular.json["lists"]] == ["model", "popular"]
    assert rows(popular) == expected(model.recommend([1, 999], 2, unknown="popular"))


def test_a_model_without_histories_refuses_new_users(runs):
    client = Client({"main": runs["mf"]})
    answer = client.post("/v1/recommend/history", {"histories": [[1]]})
    assert answer.status == 422
    assert "mf cannot fold in new users" in answer.json["error"]
    assert client.post("/v1/recommend", {"user_ids": [1]}).status == 200


def test_requests_that_come_together_get_the_answers_of_requests_alone(client):
    """One of them has an unknown id, and two have other rules: nobody else notices."""
    bodies = [{"user_ids": [user]} for user in range(20)]
    bodies[7] = {"user_ids": [999]}
    bodies[9]["k"], bodies[11]["block"] = 3, [1, 2]

    async def together():
        return await asyncio.gather(
            *(client.asked("POST", "/v1/recommend", body) for body in bodies)
        )

    answers = client.run(together())
    alone = [client.post("/v1/recommend", body) for body in bodies]
    assert [each.body for each in answers] == [each.body for each in alone]
    assert [each.status for each in answers] == [200] * 7 + [404] + [200] * 12


def test_similar_items_are_those_of_the_library(client, model):
    answer = client.post("/v1/similar", {"item_ids": [4, 7], "k": 3})
    got = [
        (each["item_id"], item["item_id"], item["similarity"], item["rank"])
        for each in answer.json["lists"]
        for item in each["items"]
    ]
    table = model.similar_items([4, 7], 3)
    assert got == [tuple(row.values()) for row in table.rows()]
    refused = client.post("/v1/similar", {"item_ids": [4], "run": "compare"})
    assert refused.status == 422
    assert "no vectors" in refused.json["error"]


def test_explanations_add_up(client, model):
    answer = client.post("/v1/explain", {"history": [4, 9, 7], "item_ids": [1, 2], "titles": True})
    for each in answer.json["explanations"]:
        parts = each["history"]
        assert {part["item_id"] for part in parts} == {4, 9, 7}
        assert [part["rank"] for part in parts] == [1, 2, 3]
        total = sum(part["contribution"] for part in parts)
        assert each["score"] - each["without_history"] == pytest.approx(total, abs=1e-9)
    table = model.recommend_for_history([[4, 9, 7]], ITEMS)
    scores = dict(zip(table["item_id"].tolist(), table["score"].tolist(), strict=True))
    assert answer.json["explanations"][0]["score"] == pytest.approx(scores[1], abs=1e-5)


def test_a_user_of_the_log_is_explained_as_the_library_does(client, model):
    answer = client.post("/v1/explain", {"user_id": 3, "item_ids": [1]}).json["explanations"][0]
    table = model.explain(3, 1)
    got = {part["item_id"]: part["contribution"] for part in answer["history"]}
    wanted = dict(zip(table["item_id"].tolist(), table["contribution"].tolist(), strict=True))
    assert got == pytest.approx(wanted, abs=0.02)
    assert answer["score"] == float(table["score"][0])


def test_items_are_found_by_title_without_accents_and_by_id(client):
    found = client.get("/v1/items?search=AMELIE%20film").json["items"]
    assert found == []
    (found,) = client.get("/v1/items?search=amelie").json["items"]
    assert (found["item_id"], found["title"]) == (7, "Amélie (2001)")
    users = [item["users"] for item in client.get("/v1/items?limit=30").json["items"]]
    assert len(users) == ITEMS
    assert users == sorted(users, reverse=True)
    assert [i["item_id"] for i in client.get("/v1/items?search=film%2013").json["items"]] == [13]


def test_facts_about_the_runs_are_listed(client):
    main, compare = client.get("/v1/runs").json["runs"]
    assert (main["run"], main["model"], main["folds_in"], main["similar"]) == (
        "main", "comet", True, True,
    )  # fmt: skip
    assert (compare["model"], compare["similar"], compare["filters"]) == ("ease", False, [])
    weights = np.array(main["filters"][0]["weights"])
    assert weights.shape == (6, main["filters"][0]["width"])
    own = [line["epoch"] for line in main["curves"] if not line["stage"].startswith("fism")]
    assert own == [1, 2]


def test_the_next_list_knows_the_last_event(runs):
    client = Client({"main": runs["comet"], "compare": runs["mf"]})
    before = client.post("/v1/recommend", {"user_ids": [5]})
    click = rows(before)[0][1]
    events = [{"user_id": 5, "item_id": click}, {"user_id": "900", "item_id": 4}]
    answer = client.post("/v1/events", {"events": events})
    assert answer.json["accepted"] == 2
    after = rows(client.post("/v1/recommend", {"user_ids": [5]}))
    assert click not in [item for _, item, _, _ in after]
    assert after[0][2] != rows(before)[1][2]  # other scores
    newcomer = rows(client.post("/v1/recommend", {"user_ids": [900]}))
    history = rows(client.post("/v1/recommend/history", {"histories": [[4]]}))
    assert [row[1:] for row in newcomer] == [row[1:] for row in history]
    reasons = client.post("/v1/explain", {"user_id": 900, "item_ids": [1]}).json["explanations"][0]
    assert [part["item_id"] for part in reasons["history"]] == [4]
    known = client.post("/v1/explain", {"user_id": 5, "item_ids": [1]}).json["explanations"][0]
    assert click in [part["item_id"] for part in known["history"]]
    # A model that reads no history leaves the item out of its list.
    other = rows(client.post("/v1/recommend", {"user_ids": [5], "k": 30, "run": "compare"}))
    assert click not in [item for _, item, _, _ in other]


def test_events_are_kept_all_or_none(runs):
    client = Client({"main": runs["comet"]})
    before = client.post("/v1/recommend", {"user_ids": [5]}).body
    events = [{"user_id": 5, "item_id": 1}, {"user_id": 5, "item_id": 999}]
    answer = client.post("/v1/events", {"events": events})
    assert answer.status == 404
    assert "unknown item 999" in answer.json["error"]
    assert client.post("/v1/recommend", {"user_ids": [5]}).body == before
