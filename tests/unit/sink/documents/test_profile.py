"""A profile is read as written, and each mistake is named with file and key."""

from pathlib import Path

import pytest

from schemas.model.errors import SettingsError
from sink.documents.profile import Profile, load_profile
from sink.documents.touched_by import Touch

TABLES = """
tables:
  public.orders: {id: bigint, email: text}
  public.returns: {id: bigint, order_id: bigint}
  public.return_lines: {id: bigint, return_id: bigint}
  public.return_photos:
  public.reasons: {id: bigint}
documents:
  return_order:
    model: ReturnOrder
    key: returns.id
    order: returns.order_id
    touched_by:
"""
HEAD = "SELECT id AS key, 'reasons' AS return_lines FROM returns JOIN orders o ON true -- and return_photos\n"
LINES = "SELECT return_id AS parent FROM public.return_lines l JOIN Reasons USING (id) WHERE return_id = ANY(%(keys)s)"


def load(folder: Path, touched_by: str, tables: str = TABLES) -> Profile:
    (folder / "profile.yaml").write_text(f"{tables.rstrip()} {touched_by}\n")
    (folder / "return_order.sql").write_text(HEAD)
    (folder / "return_order.lines.sql").write_text(LINES)
    return load_profile(str(folder))


def test_each_table_has_its_sql(tmp_path: Path) -> None:
    rule = load(
        tmp_path,
        """
      returns: id
      public.return_lines: [return_id, "NULLIF(id % 2, 0);"]
      orders: SELECT r.id FROM changed c JOIN returns r ON r.order_id = c.id
""",
    ).documents["return_order"]
    select = "SELECT r.id FROM changed c JOIN returns r ON r.order_id = c.id"
    assert rule.touched_by == (
        Touch("public.returns", "id"),
        Touch("public.return_lines", "return_id"),
        Touch("public.return_lines", "NULLIF(id % 2, 0)"),
        Touch("public.orders", select),
    )
    assert [touch.selects for touch in rule.touched_by] == [False, False, False, True]
    assert [touch.column for touch in rule.touched_by] == ["id", "return_id", None, None]


def test_what_its_sql_names_is_read_and_what_does_not_touch_is_a_reference(tmp_path: Path) -> None:
    """A name in a comment or a literal, or one that the SQL gives, is no table."""
    rule = load(tmp_path, "{returns: id, return_lines: return_id}").documents["return_order"]
    assert rule.reads == {"public.returns", "public.return_lines", "public.orders", "public.reasons"}
    assert rule.references == {"public.orders", "public.reasons"}


@pytest.mark.parametrize("name", ["sample", "sample_daily", "oscar"])
def test_our_own_profiles_can_be_read(name: str) -> None:
    profile = load_profile(name)
    assert profile.documents
    assert all(rule.reads <= set(profile.tables) for rule in profile.documents.values())


@pytest.mark.parametrize(
    ("touched_by", "place", "reason"),
    [
        ("{return: id}", "touched_by", "'return' is unknown; did you mean 'returns'?"),
        ("returns", "touched_by", "'returns' is not a mapping of tables to SQL"),
        ("{}", "touched_by", "the root has no expression; add `returns: id`"),
        ("{orders: id}", "touched_by", "the root has no expression; add `returns: id`"),
        ("{returns: SELECT id FROM changed}", "touched_by", "the root has no expression; add `returns: id`"),
        ("{returns: }", "touched_by.returns", "None is not SQL text"),
        ("{returns: 17}", "touched_by.returns", "17 is not SQL text"),
        ("{returns: []}", "touched_by.returns", "has no SQL"),
        ("{returns: {id: id}}", "touched_by.returns", "{'id': 'id'} is not SQL text"),
        ("{returns: returns.id}", "touched_by.returns", "an expression reads one row; write the column alone: id"),
        ("{returns: 'id; DROP TABLE x'}", "touched_by.returns", "has a `;`"),
        ("{returns: (SELECT max(id) FROM orders)}", "touched_by.returns", "write it as SELECT … FROM changed"),
        ("{returns: id, orders: SELECT id FROM returns}", "touched_by.orders", "does not read `changed`"),
        (
            "{returns: id, orders: SELECT p.id FROM changed JOIN return_photos p USING (id)}",
            "touched_by.orders",
            "its SELECT reads public.return_photos, of which `tables` says no columns",
        ),
        (
            "{returns: id, return_photos: line_id -> return_lines.return_id}",
            "touched_by.return_photos",
            "SELECT t1.return_id FROM changed c JOIN return_lines t1 ON t1.id = c.line_id",
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, touched_by: str, place: str, reason: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(tmp_path, touched_by)
    assert error.value.message.startswith(f"{tmp_path}/profile.yaml: documents.return_order.{place}: ")
    assert reason in error.value.message


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("orders.id", "orders.id is not a column of the root public.returns"),
        ("SELECT id FROM orders", "the SELECT does not read `changed`"),
        ("SELECT p.id FROM changed JOIN return_photos p USING (id)", "`tables` says no columns"),
        ("order_id", "'order_id' is not table.column"),
    ],
)
def test_a_mistake_in_the_order_of_a_return_is_named(tmp_path: Path, order: str, reason: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(tmp_path, "{returns: id}", TABLES.replace("returns.order_id", order))
    assert error.value.message.startswith(f"{tmp_path}/profile.yaml: documents.return_order.order: ")
    assert reason in error.value.message


@pytest.mark.parametrize("key", ["id", "\"'all'\""])
def test_an_order_is_its_own_order(tmp_path: Path, key: str) -> None:
    (tmp_path / "sales_order.sql").write_text("SELECT 1 AS key")
    documents = (
        f"{{sales_order: {{model: SalesOrder, key: orders.id, order: orders.id, touched_by: {{orders: {key}}}}}}}"
    )
    (tmp_path / "profile.yaml").write_text(f"tables: [public.orders]\ndocuments: {documents}\n")
    if key == "id":
        assert load_profile(str(tmp_path)).documents["sales_order"].order is None
        return
    with pytest.raises(SettingsError, match="an order is its own order: leave it out"):
        load_profile(str(tmp_path))


def test_a_profile_extends_another(tmp_path: Path) -> None:
    """It has its own documents, tables and files, and the rest of the other's."""
    base, own = tmp_path / "base", tmp_path / "own"
    base.mkdir()
    own.mkdir()
    before = load(base, "{returns: id}")
    (own / "profile.yaml").write_text("extends: ../base\ntables: {public.more: }\n")
    (own / "return_order.with.sql").write_text("WITH more AS (SELECT 7)\n")
    (own / "return_order.sql").write_text("SELECT * FROM more")
    profile = load_profile(str(own))
    rule, was = profile.documents["return_order"], before.documents["return_order"]
    assert (rule.head, rule.touched_by) == ("WITH more AS (SELECT 7)\n\nSELECT * FROM more", was.touched_by)
    assert rule.children == {"lines": f"WITH more AS (SELECT 7)\n\n{was.children['lines']}"}
    assert profile.tables == (*before.tables, "public.more")
    (base / "return_order.lines.sql").write_text("SELECT 2 AS parent FROM return_lines")
    assert load_profile(str(own)).version != profile.version, "the other's files are part of it"
    (base / "profile.yaml").write_text("extends: ../own\n")
    with pytest.raises(SettingsError, match=r"base/profile\.yaml: extends: \.\./own extends this one"):
        load_profile(str(own))


def test_paths_and_arrows_are_answered_with_how_to_write_them_now(tmp_path: Path) -> None:
    old = """
      - returns.id
      - return_lines.return_id
      - return_photos.line_id -> return_lines.return_id -> returns.id
      - orders <- returns.order_id
      - orders: "'guest:' || lower(email)"
"""
    with pytest.raises(SettingsError, match=r"documents\.return_order\.touched_by: a list of paths") as error:
        load(tmp_path, old)
    told = error.value.hint.partition("\n")[2]
    photos = (
        "SELECT t2.id FROM changed c JOIN return_lines t1 ON t1.id = c.line_id JOIN returns t2 ON t2.id = t1.return_id"
    )
    orders = "SELECT r.id FROM changed c JOIN returns r ON r.order_id = c.id"
    assert told.splitlines() == [
        "      returns: id",
        "      return_lines: return_id",
        f"      return_photos: {photos}",
        f"      orders: [{orders}, \"'guest:' || lower(email)\"]",
    ]
    declared = TABLES.replace("return_photos:", "return_photos: {line_id: bigint}")
    assert "public.return_photos" in load(tmp_path, "\n" + told, declared).documents["return_order"].reads
