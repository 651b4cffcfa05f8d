from autopeft.core.config import PeftConfig, Placement

LORA = {"targets": ["q", "v"], "r": 8}


def test_equal_architectures_are_equal_values():
    apart = [Placement.of("lora", [i], LORA) for i in (2, 0, 1)]
    whole = [Placement.of("lora", [0, 1, 2], LORA)]
    assert PeftConfig.of(apart) == PeftConfig.of(whole)
    assert PeftConfig.of(apart).key == PeftConfig.of(whole).key
    assert len({PeftConfig.of(apart), PeftConfig.of(whole)}) == 1


def test_the_order_of_writing_is_forgotten():
    first, second = Placement.of("lora", [0], LORA), Placement.of("bitfit", [1], {})
    assert PeftConfig.of([first, second]) == PeftConfig.of([second, first])


def test_the_same_site_twice_stays_twice():
    twice = PeftConfig.of([Placement.of("lora", [0, 1], LORA), Placement.of("lora", [1], LORA)])
    assert [p.layers for p in twice.placements] == [(0, 1), (1,)]


def test_a_document_comes_back():
    config = PeftConfig.of(
        [Placement.of("lora", [0, 3], LORA)], {"learning_rate": 1e-3}, {"dtype": "float32"}
    )
    assert PeftConfig.from_dict(config.to_dict()) == config
    assert config.layers == (0, 3)
    other = PeftConfig.of([Placement.of("lora", [0, 3], LORA)], {"learning_rate": 2e-3})
    assert other.key != config.key
