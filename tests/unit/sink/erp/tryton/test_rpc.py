"""How calls are made: sessions, time, and what JSON has no word for. The server fails by a script here."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sink.erp.contract import ConflictError, HoldError, RetryError, StopError
from sink.erp.tryton.errors import SessionEndedError
from sink.erp.tryton.rpc import Rpc, WriteCalls, now, stamps_of

Answer = tuple[int, object]


class Server:
    """Answers log-ins, and other calls by the script of their method: an answer, a number of seconds to wait, or None
    to hang up."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer | float | None]] = {}
        self.calls: list[tuple[str, list[Any]]] = []
        self.sessions: list[str] = []
        self.peers: list[tuple[str, int]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.peers.append(self.client_address)
                answer = outer.answer(body["method"], body["params"], self.headers.get("Authorization", ""))
                if answer is None:
                    self.close_connection = True
                    return
                data = json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.sees = "all"
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, method: str, params: list[Any], session: str) -> Answer | None:
        self.calls.append((method, params))
        if method == "common.db.login":
            self.sessions.append(f"token{len(self.sessions)}")
            return self._scripted(method, [1, self.sessions[-1], None])
        if method == "model.res.user.get_preferences":
            return 200, {"result": {"company": 4, "companies": [4, 5], "company_filter": self.sees}}
        if method == "model.company.company.read":
            return 200, {"result": [{"id": one, "party.": {"name": f"Works {one}"}} for one in params[0]]}
        return self._scripted(method, params)

    def _scripted(self, method: str, otherwise: object) -> Answer | None:
        left = self.script.get(method, [])
        answer = left.pop(0) if left else (200, {"result": otherwise})
        if isinstance(answer, float):
            time.sleep(answer)
            return 200, {"result": "late"}
        return answer

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def rpc(server: Server) -> Iterator[Rpc]:
    made = Rpc(f"{server.url}/", "tryton", "ordertap", "secret", "", 0.5, 4)
    yield made
    made.close()


def _writes(rpc: Rpc) -> WriteCalls:
    return WriteCalls(rpc, now() + timedelta(seconds=30))


def test_a_call_has_the_company_and_its_own_context(server: Server, rpc: Rpc) -> None:
    rpc.call("sale.sale", "read", [1], ["state"], active_test=False)
    assert server.calls[-1] == ("model.sale.sale.read", [[1], ["state"], {"company": 4, "active_test": False}])


def test_the_company_is_the_one_that_is_named(server: Server) -> None:
    for name, company in (("Works 5", 5), ("Works 4", 4)):
        rpc = Rpc(server.url, "tryton", "ordertap", "secret", name, 0.5, 4)
        rpc.call("sale.sale", "read")
        assert server.calls[-1][1] == [{"company": company}]
        rpc.close()


def test_a_company_that_the_user_has_not_is_refused(server: Server) -> None:
    rpc = Rpc(server.url, "tryton", "ordertap", "secret", "Moon", 0.5, 4)
    with pytest.raises(StopError) as refused:
        rpc.call("sale.sale", "read")
    assert "Works 4, Works 5" in refused.value.hint
    rpc.close()


def test_a_company_that_the_user_may_work_in_and_does_not_see_is_refused(server: Server) -> None:
    """The adapter would not find again what it makes there."""
    server.sees = "one"
    for name, company in (("Works 4", 4), ("", 4), ("Works 5", None)):
        rpc = Rpc(server.url, "tryton", "ordertap", "secret", name, 0.5, 4)
        if company is None:
            with pytest.raises(StopError, match="can only see one company, and it is not 'Works 5'"):
                rpc.call("sale.sale", "read")
        else:
            rpc.call("sale.sale", "read")
            assert server.calls[-1][1] == [{"company": company}]
        rpc.close()


def test_values_come_back_as_they_went(server: Server, rpc: Rpc) -> None:
    at = datetime(2026, 3, 1, 12, 30, 5, 250_000, tzinfo=timezone(timedelta(hours=2)))
    sent = [Decimal("12.50"), date(2026, 2, 28), at, 1.5, "x", None, True]
    *found, _ = rpc.call("x", "echo", *sent)
    assert found == [Decimal("12.50"), date(2026, 2, 28), at, Decimal("1.5"), "x", None, True]
    assert found[2].tzinfo is UTC
    assert isinstance(found[3], Decimal)


def test_a_read_logs_in_again_once_its_session_has_ended(server: Server, rpc: Rpc) -> None:
    server.script["model.x.read"] = [(401, None)]
    assert rpc.call("x", "read", 7)[0] == 7
    assert len(server.sessions) == 2


def test_what_writes_never_logs_in_again(server: Server, rpc: Rpc) -> None:
    """Its session may have been ended to keep it from writing."""
    calls = _writes(rpc)
    server.script["model.x.write"] = [(401, None), (401, None)]
    for _ in range(2):
        with pytest.raises(SessionEndedError):
            calls.call("x", "write", [1], {})
    assert len(server.sessions) == 1
    rpc.call("x", "read")
    assert len(server.sessions) == 2
    server.script["model.x.write"] = [(401, None)]
    with pytest.raises(RetryError):
        calls.call("x", "write", [1], {})
    assert _writes(rpc).call("x", "write", [1], {})[0] == [1]


def test_after_its_time_nothing_is_sent(server: Server, rpc: Rpc) -> None:
    calls = WriteCalls(rpc, now() - timedelta(seconds=0.01))
    before = len(server.calls)
    with pytest.raises(ConflictError, match="the time limit of this call has passed"):
        calls.call("x", "write", [1], {})
    assert len(server.calls) == before


def test_stamps_go_with_a_write(server: Server, rpc: Rpc) -> None:
    stamps = stamps_of("sale.sale", [{"id": 3, "_timestamp": "17.5"}])
    _writes(rpc).call("sale.sale", "quote", [3], stamps=stamps)
    assert server.calls[-1][1] == [[3], {"company": 4, "_timestamp": {"sale.sale,3": "17.5"}}]


@pytest.mark.parametrize("refusal", [(503, None), (200, {"error": ["UserError", ["no", ""]]})])
def test_a_wizard_is_gone_through_and_closed(server: Server, rpc: Rpc, refusal: Answer) -> None:
    """If it cannot be closed, what it did stays done."""
    server.script["wizard.w.create"] = [(200, {"result": [9, "start", "end"]})]
    server.script["wizard.w.delete"] = [refusal]
    _writes(rpc).wizard("w", "handle", {"ask": {}}, "sale.sale", [3])
    assert [method for method, _ in server.calls[-3:]] == ["wizard.w.create", "wizard.w.execute", "wizard.w.delete"]
    assert server.calls[-2][1][:3] == [9, {"ask": {}}, "handle"]


@pytest.mark.parametrize("broken", [None, 1.0])
def test_no_answer_is_no_outcome(server: Server, rpc: Rpc, broken: float | None) -> None:
    calls = _writes(rpc)
    server.script["model.x.write"] = [broken]
    with pytest.raises(RetryError) as lost:
        calls.call("x", "write", [1], {})
    assert type(lost.value) is RetryError
    assert sum(method == "model.x.write" for method, _ in server.calls) == 1, "it is not sent a second time"


def test_what_is_not_tryton_is_no_answer(server: Server) -> None:
    rpc = Rpc("http://127.0.0.1:9", "tryton", "ordertap", "secret", "", 0.5, 4)
    with pytest.raises(RetryError, match=r"does not answer common\.db\.login: ConnectError"):
        rpc.session()
    rpc.close()


def test_a_log_in_that_is_refused_stops(server: Server, rpc: Rpc) -> None:
    server.script["common.db.login"] = [(401, None)]
    with pytest.raises(StopError, match="refuses the login"):
        rpc.session()


def test_a_refusal_is_told_in_trytons_words(server: Server, rpc: Rpc) -> None:
    server.script["model.x.write"] = [(200, {"error": ["UserError", ["No such unit.", "", None]]})]
    with pytest.raises(HoldError, match=r"No such unit\."):
        _writes(rpc).call("x", "write", [1], {})


def test_an_idle_connection_is_not_used_again(server: Server, rpc: Rpc) -> None:
    """The server closes it, and a call that it just does not read any more would have an unknown outcome."""
    rpc.call("x", "read")
    rpc.call("x", "read")
    assert len({*server.peers}) == 1
    time.sleep(1.1)
    rpc.call("x", "read")
    assert len({*server.peers}) == 2


def test_threads_share_one_session(server: Server, rpc: Rpc) -> None:
    threads = [threading.Thread(target=rpc.call, args=("x", "read")) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(server.sessions) == 1


def test_many_values_go_in_calls_of_a_thousand(server: Server, rpc: Rpc) -> None:
    server.script["model.x.search_read"] = [(200, {"result": [{"id": n}]}) for n in range(3)]
    found: list[Mapping[str, Any]] = list(rpc.among("x", "id", range(2_500), ["id"], ("active", "=", True)))
    assert [row["id"] for row in found] == [0, 1, 2]
    assert server.calls[-1][1][0][1] == ["active", "=", True]
    assert rpc.among("x", "id", [], ["id"]) == []
