"""Each ERP that can be set has an adapter."""

from typing import get_args

from sink.settings import ErpSettings
from sink.wiring import ADAPTERS


def test_each_kind_of_erp_has_its_adapter() -> None:
    assert ADAPTERS.keys() == {*get_args(ErpSettings.model_fields["kind"].annotation)}
