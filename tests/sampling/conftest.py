"""The shop, once per module; each test begins with a full log and an empty state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from tests.sampling.rig import Rig, new_rig


@pytest.fixture(scope="module")
def shop(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A shop that a module shares."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("shop")) as made:
        yield made


@pytest.fixture
def rig(shop: Rig) -> Iterator[Rig]:
    """The shop at its beginning, with an evidence store of its own."""
    pack, root, folder = shop.pack, shop.root, shop.folder
    shop.empty()
    shop.root = root.parent / f"evidence-{len(list(root.parent.iterdir()))}"
    shop.root.mkdir()
    yield shop
    shop.pack, shop.root, shop.folder = pack, root, folder
