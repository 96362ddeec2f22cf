from __future__ import annotations

import socket

import pytest

from riformer_deploy.common.errors import MissingDependencyError, OptionError, RuntimeFailureError
from riformer_deploy.serving.ray_session import RayOptions, free_actors, ray_session


def test_what_ray_cannot_be_asked_is_refused_all_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        RayOptions(cluster="ray://head:10001", actors=0, cpus=0)
    assert len(caught.value.details) == 3
    assert "rather than through Ray Client" in caught.value.details[2]


class _Cluster:
    """What :func:`free_actors` asks Ray."""

    def __init__(self, **resources: float) -> None:
        self._resources = resources

    def cluster_resources(self) -> dict[str, float]:
        return self._resources


def test_models_fill_the_cores_or_the_gpus_and_those_that_do_not_fit_are_refused() -> None:
    cluster = _Cluster(CPU=7.0, GPU=2.0)
    assert free_actors(cluster, RayOptions(cpus=2), gpus=0) == 3
    assert free_actors(cluster, RayOptions(), gpus=1) == 2
    assert free_actors(cluster, RayOptions(actors=4), gpus=0) == 4
    with pytest.raises(RuntimeFailureError, match="7 cores and 2 GPUs; 4 models of 2 cores do not fit"):
        free_actors(cluster, RayOptions(actors=4, cpus=2), gpus=0)
    with pytest.raises(RuntimeFailureError, match="0 GPUs; 1 models of 1 cores and 1 GPU each do not fit"):
        free_actors(_Cluster(CPU=2.0), RayOptions(), gpus=1)


def test_an_address_where_nothing_listens_is_named_without_waiting_for_ray(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ray:
        def is_initialized(self) -> bool:
            return False

    monkeypatch.setattr("riformer_deploy.serving.ray_session.require", lambda *_: Ray())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for address in (f"127.0.0.1:{port}", "127.0.0.1:99999"):
        with (
            pytest.raises(RuntimeFailureError, match=f"No cluster at {address}: "),
            ray_session(RayOptions(cluster=address)),
        ):
            pytest.fail("the block must not run")


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riformer_deploy.common.dependencies.installed_version", lambda _: None)
    monkeypatch.setattr("riformer_deploy.common.dependencies._installed", lambda _: None)
    with (
        pytest.raises(MissingDependencyError, match="ray is not installed") as caught,
        ray_session(RayOptions()),
    ):
        pass
    assert 'pip install "ray[data]>=' in caught.value.remedy
