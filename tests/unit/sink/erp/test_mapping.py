"""A wrong mapping is refused with file, line, and what is expected."""

from pathlib import Path

import pytest

from schemas.model.errors import SettingsError
from sink.erp.sql.mapping import load_mapping

GOOD = (Path(__file__).parents[4] / "deploy/erp/mapping.yaml").read_text()


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (
            "tax_id: tax_id",
            "tax_idd: tax_id",
            "customer.fields.tax_idd: the shop's customers have no such field; did you mean `tax_id`?",
        ),
        (
            "{quantity: quantity, reason",
            "{colour: quantity, reason",
            "return.lines.fields.colour: the shop's returns have no such field; there are quantity, reason",
        ),
        (
            "{quantity: quantity, reason",
            "{reason",
            "return.lines.fields: `quantity` is missing: what comes back is counted by it",
        ),
        (
            "links: {order: {column: order_id}}\n  status",
            "links: {account: {column: order_id}}\n  status",
            "return.links.account: the shop's returns have no such link; there are order",
        ),
        ("closed: closed,", "closed: shut,", "order.milestones.closed: Input should be 'draft', 'confirmed',"),
        ("parent: order_id", "parrent: order_id", "order.lines.parrent: Extra inputs are not permitted"),
        ("price:\n", "price:\n  lines: {table: x, parent: y, fields: {}}\n", "price.lines: a price has no lines"),
    ],
)
def test_a_name_that_is_wrong_is_told_with_its_line(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    file = tmp_path / "mapping.yaml"
    assert right in GOOD
    file.write_text(GOOD.replace(right, wrong))
    with pytest.raises(SettingsError) as refused:
        load_mapping(file)
    told = next(one for one in refused.value.message.split("; /") if said.partition(":")[0] in one and said in one)
    line = int(told.partition("mapping.yaml:")[2].partition(":")[0])
    name = said.partition(":")[0].split(".")[-1]
    assert name in file.read_text().splitlines()[line - 1], "the line is that of the key"
    assert refused.value.hint


def test_a_key_that_is_missing_is_in_the_line_of_the_one_that_should_have_it(tmp_path: Path) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_text(GOOD.replace("    parent: order_id\n", ""))
    with pytest.raises(SettingsError, match=r"mapping.yaml:(\d+): order.lines.parent: Field required") as refused:
        load_mapping(file)
    line = int(refused.value.message.partition("mapping.yaml:")[2].partition(":")[0])
    assert file.read_text().splitlines()[line - 1] == "  lines:"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"identity: {table: company}\nitems: [", r"mapping.yaml:2: not YAML: "),
        (GOOD.replace("net: net, tax: tax", "net: net, net: tax").encode(), r"mapping.yaml:25: .*`net` appears twice"),
        (b"identity: \x00", "mapping.yaml: not YAML"),
        ("identity: Łódź".encode("utf-16"), "is not UTF-8"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "mapping.yaml"
    file.write_bytes(text)
    with pytest.raises(SettingsError, match=said):
        load_mapping(file)
