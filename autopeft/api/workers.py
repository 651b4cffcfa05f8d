"""Where the trials of a study run: on which kind of device, and how many side by side."""

from __future__ import annotations

import torch

from autopeft.core import host
from autopeft.core.config import PeftConfig
from autopeft.core.errors import StudyError
from autopeft.engine.engine import Engine
from autopeft.engine.room import Need, Room
from autopeft.memory.quantities import Setting
from autopeft.model.precision import target_device
from autopeft.study.spec import StudySpec

MOST_MEMBERS = 16
"""Trials that `pack: auto` trains side by side on a GPU, at most."""


def device_of(spec: StudySpec) -> str:
    """`cuda` or `cpu`: what trials run on, which the machine of a cluster's driver may lack.

    Raises:
        StudyError: there is no such device.
    """
    asks = spec.engine.type == "ray" and spec.engine.resources.gpu not in ("auto", 0)
    return "cuda" if asks and spec.device == "auto" else target_device(spec.device).type


def room_of(spec: StudySpec, setting: Setting) -> Room:
    """What fits on one worker.

    Raises:
        StudyError: it depends on the memory of a GPU that is not known.
    """
    engine, gpu = spec.engine, spec.engine.resources.gpu
    automatic = MOST_MEMBERS if setting.device == "cuda" else 1
    members = automatic if engine.pack == "auto" else engine.pack
    depends = members > 1 or (engine.type == "ray" and gpu == "auto")
    memory = engine.device_bytes
    if memory is None and depends and setting.device == "cuda":
        memory = _memory_here()

    def need(config: PeftConfig) -> Need:
        predicted = setting.memory(config)
        return Need(predicted.parts["backbone"], predicted.beside_backbone)

    share = gpu if engine.type == "ray" and gpu != "auto" and 0 < gpu < 1 else 1.0
    return Room(members, None if memory is None else memory * engine.devices, share, need)


def device_memory(spec: StudySpec, setting: Setting) -> float | None:
    """Bytes of what a worker trains on; None where the machines of a cluster may differ."""
    if spec.engine.device_bytes is not None or spec.engine.type != "inline":
        return spec.engine.device_bytes
    return _memory_here() if setting.device == "cuda" else host.memory()


def engine_of(spec: StudySpec, setting: Setting) -> Engine:
    """What runs the trials.

    Raises:
        StudyError: see `room_of`; or trials are to run in this process on a device that it lacks.
    """
    engine = spec.engine
    if engine.type == "inline":
        from autopeft.engine.inline import Inline

        if setting.device == "cuda" and not torch.cuda.is_available():
            raise StudyError("this machine has no CUDA device", "device")
        return Inline(room_of(spec, setting))
    from autopeft.engine.ray import RayEngine

    gpu = engine.resources.gpu
    return RayEngine(
        cpu=engine.cores or 1.0,
        gpu=0 if gpu == "auto" and setting.device == "cpu" else gpu,
        concurrency=engine.concurrency,
        address=engine.address,
        folder=spec.folder,
        room=room_of(spec, setting),
    )


def worker_memory(spec: StudySpec, setting: Setting) -> float | None:
    """Bytes of what a worker trains on, of this machine's where no other is told; None unknown."""
    if (told := device_memory(spec, setting)) is not None or spec.engine.address is not None:
        return told
    if setting.device == "cpu":
        return host.memory() / workers_here(spec, setting)
    if not torch.cuda.is_available():
        return None
    gpu = spec.engine.resources.gpu
    return _memory_here() * (1.0 if gpu == "auto" else gpu or 1.0)


def _memory_here() -> float:
    """Bytes of this machine's GPU."""
    if not torch.cuda.is_available():
        reason = "this machine has no GPU; say how much memory those of the workers have, as 80GB"
        raise StudyError(reason, "engine.device_memory")
    return float(torch.cuda.get_device_properties(0).total_memory)


def workers_here(spec: StudySpec, setting: Setting) -> int:
    """How many workers this machine has room for, at least one."""
    engine = spec.engine
    if engine.type == "inline":
        return 1
    most = int(host.cores() / (engine.cores or 1.0))
    if setting.device == "cuda":
        gpu = engine.resources.gpu
        share = 1.0 if gpu == "auto" else gpu or 1.0
        most = min(most, int(max(1, torch.cuda.device_count()) / share))
    return max(1, most if engine.concurrency == "auto" else min(most, engine.concurrency))
