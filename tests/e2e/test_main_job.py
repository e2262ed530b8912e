"""The main job: a version arrives, is swapped in under a live stream, and reports back."""

import os

import pytest

from tests.world import zoo
from tests.world.main_job import swapped_in, taken_back
from tests.world.site import Site


@pytest.fixture
def site(broker, tmp_path):
    with Site(broker, tmp_path) as site:
        yield site.start()


def test_a_version_arrives_is_swapped_in_and_reports_back(site, tmp_path):
    """[rollout-4.1]"""
    swapped_in(site, tmp_path)


def test_a_bad_version_is_taken_back_and_never_tried_again(site, tmp_path):
    """[rollout-3.4]"""
    taken_back(site, tmp_path)


def test_a_store_named_from_where_the_agent_stands_serves_its_workers_too(broker, tmp_path):
    """[store-1.11]"""
    with Site(broker, tmp_path, store={"dir": os.path.relpath(tmp_path / "store")}) as site:
        site.start()
        site.deploy(zoo.mlp(tmp_path / "v1", name="m"))
        assert (tmp_path / "store" / "agent.db").is_file()
