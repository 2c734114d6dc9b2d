"""Sessions of boto3."""

from __future__ import annotations

from functools import cache

import boto3
import botocore.session
from botocore.loaders import Loader


def new_session() -> boto3.session.Session:
    """Return a session of its own: a session must not be shared by threads.

    All sessions share the descriptions of services. A client that reads them anew takes 0.07 s.
    """
    core = botocore.session.Session()
    session = boto3.session.Session(botocore_session=core)
    core.register_component("data_loader", _service_descriptions())
    return session


@cache
def _service_descriptions() -> Loader:
    core = botocore.session.Session()
    boto3.session.Session(botocore_session=core)  # adds its own folder to the search path
    loader: Loader = core.get_component("data_loader")
    return loader
