"""The transition table: each of its steps walked through the codec's door, everything absent illegal."""

from __future__ import annotations

import pytest

from icapscan.errors import LocalProtocolError
from icapscan.wire.icap import IcapConnection
from icapscan.wire.icap_states import REQUEST, RESPONSE, Role, State, Step

PRESENT_REQUEST = [(state, step, after) for state, row in REQUEST.items() for step, after in row.items()]
PRESENT_RESPONSE = [(state, step, after) for state, row in RESPONSE.items() for step, after in row.items()]
ABSENT_REQUEST = [(state, step) for state, row in REQUEST.items() for step in Step if step not in row]
ABSENT_RESPONSE = [(state, step) for state, row in RESPONSE.items() for step in Step if step not in row]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "step", "after"), PRESENT_REQUEST)
def test_each_step_of_the_request_half(role: Role, state: State, step: Step, after: State) -> None:
    codec = IcapConnection(role)
    codec.request_state = state
    codec._step_request(step)
    assert codec.request_state is after
    assert codec.response_state is State.IDLE


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("state", "step", "after"), PRESENT_RESPONSE)
def test_each_step_of_the_response_half(role: Role, state: State, step: Step, after: State) -> None:
    codec = IcapConnection(role)
    codec.response_state = state
    codec._step_response(step)
    assert codec.response_state is after
    assert codec.request_state is State.IDLE


@pytest.mark.parametrize(("state", "step"), ABSENT_REQUEST)
def test_every_other_step_of_the_request_half_is_illegal(state: State, step: Step) -> None:
    codec = IcapConnection(Role.SERVER)
    codec.request_state = state
    with pytest.raises(LocalProtocolError, match=f"{state.name}: {step.name}"):
        codec._step_request(step)
    assert codec.request_state is state


@pytest.mark.parametrize(("state", "step"), ABSENT_RESPONSE)
def test_every_other_step_of_the_response_half_is_illegal(state: State, step: Step) -> None:
    codec = IcapConnection(Role.CLIENT)
    codec.response_state = state
    with pytest.raises(LocalProtocolError, match=f"{state.name}: {step.name}"):
        codec._step_response(step)
    assert codec.response_state is state


@pytest.mark.parametrize(("name", "table"), [("request", REQUEST), ("response", RESPONSE)])
def test_failing_is_possible_everywhere_and_final(name: str, table: dict[State, dict[Step, State]]) -> None:
    assert all(row[Step.FAIL] is State.FAILED for row in table.values()), name
    assert set(table[State.FAILED].values()) == {State.FAILED}


@pytest.mark.parametrize("table", [REQUEST, RESPONSE], ids=["request", "response"])
def test_every_state_is_reached_and_idle_comes_again(table: dict[State, dict[Step, State]]) -> None:
    reached, todo = set(), [State.IDLE]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += table[state].values()
    assert reached == set(table)
    assert table[State.DONE][Step.NEXT] is State.IDLE


def test_s69_only_a_waiting_preview_is_continued() -> None:
    assert [state for state, row in REQUEST.items() if Step.CONTINUE in row] == [State.WAITING]


def test_s8_only_a_done_half_goes_on() -> None:
    for table in (REQUEST, RESPONSE):
        assert [state for state, row in table.items() if Step.NEXT in row] == [State.DONE]
