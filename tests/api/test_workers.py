"""From the section `engine` of a study file to workers with room for so many trials."""

from dataclasses import replace

import pytest
import torch

from autopeft.api.run import prepare
from autopeft.api.workers import engine_of
from autopeft.core.errors import StudyError
from autopeft.engine.inline import Inline
from autopeft.engine.ray import RayEngine
from autopeft.engine.room import CONTEXT, MARGIN
from autopeft.study.spec import EngineSection
from tests import tiny


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("placement")

    def make(device="auto", **engine):
        return prepare({**tiny.study(folder), "name": "placed", "device": device, "engine": engine})

    return make


def engine(prepared):
    return engine_of(prepared.spec, prepared.setting)


GPU = {"device": "cuda", "type": "ray", "device_memory": "80GB"}


@pytest.mark.parametrize(
    ("keys", "gpu", "members", "memory"),
    [
        ({"device": "cpu", "type": "ray"}, 0, 1, None),
        ({"device": "cpu", "type": "ray", "pack": 4}, 0, 4, None),
        (GPU, "auto", 16, 80e9),
        ({**GPU, "pack": 1}, "auto", 1, 80e9),
        ({**GPU, "pack": 1, "resources": {"gpu": 0.25}}, 0.25, 1, 80e9),
        ({"type": "ray", "pack": 1, "resources": {"gpu": 2}}, 2, 1, None),
    ],
    ids=str,
)
def test_workers(prepared, keys, gpu, members, memory):
    made = engine(prepared(**keys))
    assert isinstance(made, RayEngine)
    assert (made.gpu, made.room.members, made.room.memory) == (gpu, members, memory)


def test_this_process(prepared):
    assert engine(prepared(device="cpu")).room.members == 1
    made = engine(prepared(device="cpu", pack=3))
    assert isinstance(made, Inline)
    assert made.room.members == 3


@pytest.mark.parametrize(
    ("keys", "cores"),
    [
        ({}, None),
        ({"type": "ray"}, 1),
        ({"resources": {"cpu": "auto"}}, None),
        ({"resources": {"cpu": 2}}, 2),
        ({"type": "ray", "resources": {"cpu": 0.5}}, 0.5),
    ],
    ids=str,
)
def test_a_worker_in_this_process_takes_the_cores_that_torch_finds(keys, cores):
    assert EngineSection(**keys).cores == cores


def test_what_a_configuration_takes_is_predicted(prepared):
    study = prepared(**GPU, resources={"gpu": 0.5})
    room, config = engine(study).room, study.baselines["head-only"]
    need = room.need(config)
    assert room.share == 0.5
    assert need.backbone + need.own == study.known["peak_memory"].value(config)
    assert need.own > 0
    assert 2 * 22_000_000 < need.backbone < 4 * 23_000_000


def test_members_share_the_backbone(prepared):
    study = prepared(**GPU)
    room, config = engine(study).room, study.baselines["head-only"]
    need = room.need(config)
    assert room.holds([config] * 16)
    assert not room.holds([config] * 17)
    tight = replace(room, memory=(need.backbone + 4.5 * need.own + CONTEXT) / MARGIN)
    assert tight.holds([config] * 4)
    assert not tight.holds([config] * 5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU to look at")
@pytest.mark.parametrize("keys", [{}, {"pack": 1}, {"pack": 2, "resources": {"gpu": 1}}], ids=str)
def test_memory_that_is_not_known(prepared, keys):
    with pytest.raises(StudyError, match=r"engine\.device_memory: this machine has no GPU"):
        engine(prepared(device="cuda", type="ray", **keys))
