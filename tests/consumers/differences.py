"""Everything that differs between Debezium's records and ours: the rows of the table in schemas/README.md, as data."""

from __future__ import annotations

from typing import Final, NamedTuple


class Difference(NamedTuple):
    """`paths`: regular expressions for whole paths in a record (see test_golden) that differ in Debezium's own records.
    Without paths, `test` proves it: `folder/file.py::test`."""

    paths: tuple[str, ...] = ()
    test: str = ""


_MARKS: Final = "consumers/test_snapshot_marks.py::test_one_process_says_all_of_it"
_UNKNOWN: Final = "unit/schemas/writing/test_codec.py::test_an_unknown_type_is_text_and_reported"

DIFFERENCES: Final = {
    "headers": Difference((r"headers\.(__debezium\.context|ordertap)\..*",)),
    "`source.version`": Difference((r"value\.source\.version",)),
    "`transaction.id`": Difference((r"value\.transaction\.id",)),
    "`source.snapshot` in a first snapshot": Difference(test=_MARKS),
    "`source.txId` in a first snapshot, `source.lsn` in one on demand": Difference(test=_MARKS),
    "key under REPLICA IDENTITY USING INDEX": Difference(
        test="consumers/test_keys.py::test_the_index_of_the_replica_identity_is_the_key_though_there_is_a_primary_key"
    ),
    "NULL in a column with a default": Difference(
        test="unit/schemas/writing/test_codec.py::test_a_null_in_a_nullable_column_with_a_default_stays_null"
    ),
    "NaN and infinities of numeric": Difference(
        test="consumers/test_values.py::test_special_numbers_are_null_unless_they_are_wanted_exactly"
    ),
    "numeric with a negative scale": Difference((r"value\.after\.f_num_neg", r"value_schema\..*\.f_num_neg\..*")),
    "timetz": Difference((r"value\.after\.f_timetz3?",)),
    "type `name`": Difference((r"value\.after\.f_name",)),
    "bit varying": Difference(test="consumers/test_values.py::test_bit_varying_is_a_text_and_keeps_its_length"),
    "geometric types other than point": Difference(
        test="consumers/test_values.py::test_geometric_types_other_than_point_are_texts"
    ),
    "geometry, geography and vectors of extensions": Difference(test=_UNKNOWN),
    "an array's second dimension": Difference(
        test="consumers/test_values.py::test_an_array_of_two_dimensions_has_all_of_its_elements"
    ),
    "types that it leaves out (composite, multirange, those of other extensions, their arrays)": Difference(
        test=_UNKNOWN
    ),
}
