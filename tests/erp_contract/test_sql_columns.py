"""The ERP's columns are compared with the mapping before anything is sent.

What would harm every document is refused, with its line and a remedy. What would hold some documents is noted.
"""

import re

import pytest

from sink.erp.contract import StopError
from tests.erp_contract.records import LINES, REF, SALE, Sink, changed, create, refused, sale
from tests.erp_contract.sql_place import Edits, Place, told

GROSS = "gross numeric(14, 2) NOT NULL,\n    paid numeric(14, 2) NOT NULL"
ACCOUNT = "account_number varchar(50) NOT NULL REFERENCES customers (account_number)"
NO_ITEM_KEY = {
    "sku varchar(100) REFERENCES items (sku)": "sku varchar(100)",
    "sku varchar(100) NOT NULL REFERENCES items (sku)": "sku varchar(100) NOT NULL",
}


REFUSED: dict[str, tuple[Edits, Edits, str, str]] = {
    "a float for money": (
        {GROSS: GROSS.replace("numeric(14, 2)", "double precision", 1)}, {},
        r"mapping.yaml:25: order.fields.gross: orders.gross is \w.*, which does not keep cents exactly",
        r"make it numeric\(14, 2\), or name another column",
    ),
    "one decimal for money": (
        {GROSS: GROSS.replace("paid numeric(14, 2)", "paid numeric(14, 1)")}, {},
        r"mapping.yaml:25: order.fields.paid: orders.paid is NUMERIC\(14, 1\), which rounds cents",
        r"make it numeric\(14, 2\)",
    ),
    "whole numbers for money": (
        {GROSS: GROSS.replace("paid numeric(14, 2)", "paid integer")}, {},
        "orders.paid is INTEGER, which cannot hold cents", "",
    ),
    "a float for quantities": (
        {"quantity numeric(14, 4) NOT NULL,\n    unit_price": "quantity real NOT NULL,\n    unit_price"}, {},
        "order.lines.fields.quantity: order_lines.quantity is .*, which does not keep a number exactly", "",
    ),
    "a number for the account": (
        {"account_number varchar(50) NOT NULL UNIQUE": "account_number integer NOT NULL UNIQUE",
         ACCOUNT: "account_number integer NOT NULL"}, {},
        "customer.fields.number: customers.account_number is INTEGER, which is not text", r"make it varchar\(300\)",
    ),
    "a link of another type": (
        {ACCOUNT: "account_number integer NOT NULL"}, {},
        r"order.links.account: orders.account_number is INTEGER and cannot refer to customers.account_number, VARCHAR",
        "name in `by` the column that it refers to",
    ),
    "a day for a time": (
        {"placed_at timestamp": "placed_at date"}, {},
        "order.fields.placed_at: orders.placed_at is DATE, which is not a date with a time", "make it timestamp",
    ),
    "bytes for SKUs": (
        NO_ITEM_KEY | {"sku varchar(100) PRIMARY KEY": "sku bytea"}, {},
        r"mapping.yaml:6: items.sku: items.sku is \w+, which is not text", "",
    ),
    "a text for the number of the step": (
        {"revision bigint NOT NULL DEFAULT 0,\n    account": "revision varchar(9),\n    account"}, {},
        "customer.revision: customers.revision is VARCHAR", "",
    ),
    "what the ERP computes": (
        {GROSS: GROSS.replace("numeric(14, 2) NOT NULL", "numeric(14, 2) GENERATED ALWAYS AS (net + tax) STORED", 1)},
        {}, "orders.gross is filled by the ERP itself", "name another column",
    ),
    "a state that is too long": (
        {"status varchar(20) NOT NULL             --": "status varchar(9) NOT NULL --"}, {},
        r"mapping.yaml:20: order.milestones.part_delivered: orders.status is VARCHAR\(9\), too short", "widen it",
    ),
    "no such identity": (
        {}, {"column: id}": "column: uuid}"},
        "mapping.yaml:5: identity.column: the ERP has no company.uuid", "correct the mapping",
    ),
    "no such column to refer to": (
        {}, {"by: account_number": "by: account"},
        "order.links.account.by: the ERP has no customers.account", "correct the mapping",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_column_that_would_harm_all_is_refused_with_line_and_fix(place: Place, what: str) -> None:
    tables, mapping, said, fix = REFUSED[what]
    error = place.refused(tables, mapping)
    assert re.search(said, error.message), error.message
    assert re.search(fix, error.hint), error.hint


def test_all_that_is_wrong_is_told_at_once_and_a_table_once(place: Place) -> None:
    error = place.refused(
        {}, {"table: refunds": "table: credits", "net: net, tax: tax, gross": "net: nett, tax: tax, gross"}
    )
    assert error.message.count("the ERP has no table credits") == 1
    assert "the ERP has no orders.nett" in error.message


NOTED: dict[str, tuple[Edits, Edits, str, str]] = {
    "a column that needs a value": (
        {ACCOUNT: f"warehouse integer NOT NULL,\n    {ACCOUNT}"}, {},
        "orders.warehouse must have a value, has no default, and the mapping does not name it", "SET DEFAULT",
    ),
    "what the shop may leave empty": (
        {"email varchar(300), company": "email varchar(300) NOT NULL, company"}, {},
        "customers.email must have a value, and the shop may have none: such a document is held", "DROP NOT NULL",
    ),
    "small amounts only": (
        {GROSS: GROSS.replace("numeric(14, 2)", "numeric(6, 2)", 1)}, {},
        "orders.gross is NUMERIC(6, 2), which takes less than 10000: a document with more is held", "numeric(14, 2)",
    ),
    "whole quantities": (
        {"quantity numeric(14, 4) NOT NULL,\n    unit_price": "quantity integer NOT NULL,\n    unit_price"}, {},
        "order_lines.quantity is INTEGER, which cannot hold decimals: a document with some is held", "numeric(14, 4)",
    ),
    "a short currency": (
        {"currency varchar(3) NOT NULL,\n    tax_included": "currency varchar(2) NOT NULL,\n    tax_included"}, {},
        "orders.currency is VARCHAR(2), and currency may have 3 characters: a document with more is held", "varchar",
    ),
    "a short key": (
        {"external_key varchar(250) UNIQUE,\n    order_id": "external_key varchar(20) UNIQUE,\n    order_id"}, {},
        "order_lines.external_key is VARCHAR(20), and our keys may have 100 characters: a document with more is held",
        "varchar",
    ),
    "a key that may be there twice": (
        {"external_key varchar(200) UNIQUE,\n    revision bigint NOT NULL DEFAULT 0,\n    account":
         "external_key varchar(200),\n    revision bigint NOT NULL DEFAULT 0,\n    account"}, {},
        "customers.external_key is not unique: a document could be made twice",
        "CREATE UNIQUE INDEX ON customers (external_key)",
    ),
    "an account that may be there twice": (
        {"account_number varchar(50) NOT NULL UNIQUE": "account_number varchar(50) NOT NULL",
         ACCOUNT: "account_number varchar(50) NOT NULL"}, {},
        "customers.account_number is not unique: a document could be booked to another",
        "CREATE UNIQUE INDEX ON customers (account_number)",
    ),
    "a link without an index": (
        {"CREATE INDEX order_lines_order ON order_lines (order_id);": ""}, {},
        "order_lines.order_id has no index: each look at a document reads all of it",
        "CREATE INDEX ON order_lines (order_id)",
    ),
    "items without an index": (
        NO_ITEM_KEY | {"sku varchar(100) PRIMARY KEY": "sku varchar(100)"}, {},
        "items.sku has no index: each look at a document reads all of it", "CREATE INDEX ON items (sku)",
    ),
    "no state for a cancelled one": (
        {}, {", cancelled: cancelled}": "}"},
        "no state means cancelled: what the shop cancels is held", "name one in `milestones`",
    ),
    "no draft": (
        {}, {"{draft: draft, ": "{"}, "no state means draft: each refund is held", "name one in `milestones`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", NOTED)
def test_what_holds_some_documents_is_noted_with_its_fix(place: Place, what: str) -> None:
    tables, mapping, said, fix = NOTED[what]
    notes = place.notes(tables, mapping)
    fits = [hint for message, hint in notes if said in message]
    assert fits, notes
    assert fix in fits[0]


def test_what_is_just_enough_is_not_noted(place: Place) -> None:
    fits = {ACCOUNT: f"warehouse integer NOT NULL DEFAULT 1,\n    {ACCOUNT}",
            "    kind varchar(20) NOT NULL,\n    sku": "    kind varchar(8) NOT NULL,\n    sku",
            "currency varchar(3)": "currency char(3)"}  # fmt: skip
    assert place.notes(fits) == []


def test_exact_numbers_without_a_scale_keep_cents(place: Place) -> None:
    target = place.target({GROSS: GROSS.replace("numeric(14, 2)", "numeric")})
    sink = Sink(place.erp())
    assert told(sink.erp.check()) == []
    sink.seed("customer", "order")
    assert sink.see(REF["order"]).record.fields["gross"] == SALE.fields["gross"]
    target.close()


def test_what_a_note_says_comes_true(place: Place) -> None:
    """The document is held, and nothing of it is left. Documents that the note is not about go on."""
    place.target({
        "email varchar(300), company": "email varchar(300) NOT NULL, company",
        GROSS: GROSS.replace("numeric(14, 2)", "numeric(4, 2)", 1),
    })  # fmt: skip
    sink = Sink(place.erp())
    assert len(told(sink.erp.check())) == 2
    sink.seed("customer")
    nobody = create(
        changed(sink.see(REF["customer"]).record, email=None, number="2"), REF["customer"]._replace(external="x")
    )
    assert refused(sink.apply(nobody, create(SALE, REF["order"]))) == ["HoldError", ""]
    if "postgresql" in place.url:  # SQLite keeps what it is given, whatever the precision
        dear = {"1": {**LINES["1"], "gross": 100, "net": 100, "tax": 0}}
        many = create(sale(dear, number="S-2"), REF["order"]._replace(external="y"))
        assert refused(sink.apply(many)) == ["HoldError"]


def test_states_of_an_enumerated_column(in_postgres: Place) -> None:
    states = ("draft", "confirmed", "part_delivered", "delivered", "invoiced", "closed", "cancelled", "limbo")
    target = in_postgres.target({})
    target.run(f"CREATE TYPE state AS ENUM ({', '.join(map(repr, states))})")
    target.run("ALTER TABLE orders ALTER COLUMN status TYPE state USING 'draft'")
    with pytest.raises(StopError, match=r"order.milestones.paid: orders.status has no value `paid`"):
        in_postgres.erp().check()
    target.run("ALTER TYPE state ADD VALUE 'paid'")
    ((message, _),) = told(in_postgres.erp().check())
    assert "orders.status may be 'limbo', unknown to the mapping: such a document is held" in message


def test_columns_of_a_domain_are_what_it_is_made_of(in_postgres: Place) -> None:
    target = in_postgres.target({})
    target.run("CREATE DOMAIN cents AS numeric(14, 2)")
    target.run("CREATE DOMAIN rough AS real")
    target.run("ALTER TABLE orders ALTER COLUMN gross TYPE cents")
    sink = Sink(in_postgres.erp())
    assert told(sink.erp.check()) == []
    sink.seed("customer", "order")
    target.run("ALTER TABLE orders ALTER COLUMN gross TYPE rough")
    with pytest.raises(StopError, match=r"orders.gross is REAL, which does not keep cents exactly"):
        sink.erp.check()


def test_postgresqls_own_ways_to_lose_something(in_postgres: Place) -> None:
    target = in_postgres.target({})
    target.run("ALTER TABLE orders ALTER COLUMN shop_number TYPE char(20)")
    target.run("ALTER TABLE orders ALTER COLUMN placed_at TYPE timestamp(0)")
    notes = [message.partition(" is ")[2] for message, _ in told(in_postgres.erp().check())]
    assert [note.partition("which ")[2].partition(":")[0] for note in sorted(notes)] == [
        "is padded with blanks", "cuts fractions of a second",
    ]  # fmt: skip
    target.run("ALTER TABLE orders ALTER COLUMN tax_included TYPE integer USING 1")
    with pytest.raises(StopError, match=r"orders.tax_included is INTEGER, which is not a yes or no"):
        in_postgres.erp().check()
