from __future__ import annotations

import pytest

from autopeft.api.placements import check_peft_options, methods_in
from autopeft.core.errors import AttachError

MISS = {"method": "peft", "peft_type": {"choice": ["miss", {"choice": ["hra"]}]}, "r": 4}


def test_methods_of_a_document_are_found_in_choices() -> None:
    place = [{"choice": [[], [{"method": "lora"}, MISS]]}, {"method": "norm"}]
    assert list(methods_in(place)) == ["lora", "peft", "norm"]


def test_every_type_of_a_choice_knows_the_options() -> None:
    check_peft_options([{"choice": [[], [MISS]]}])
    with pytest.raises(AttachError, match="unknown option of hra 'mini_r'"):
        check_peft_options([{**MISS, "mini_r": {"choice": [1, 2]}}])
    with pytest.raises(AttachError, match="unknown type 'mis'"):
        check_peft_options([{**MISS, "peft_type": {"choice": ["miss", "mis"], "per": "space"}}])
