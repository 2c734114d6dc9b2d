"""Create boto3 sessions and the clients of AWS KMS."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from include.services.connections import ConnectionSpec
from include.services.errors import UsageError
from include.services.transport import Transport, of_url

if TYPE_CHECKING:
    import boto3
    from botocore.loaders import Loader


def new_session() -> boto3.session.Session:
    """Return a new boto3 session for one thread, because threads must not share a session.

    All sessions share the service descriptions that botocore has read. Otherwise, each session
    would read them again, which takes 0.07 s.
    """
    import boto3  # loads slowly, and every process imports this module
    import botocore.session

    core = botocore.session.Session()
    session = boto3.session.Session(botocore_session=core)
    core.register_component("data_loader", _service_descriptions())
    return session


@cache
def _service_descriptions() -> Loader:
    import boto3
    import botocore.session

    core = botocore.session.Session()
    boto3.session.Session(botocore_session=core)  # adds its own folder to the search path
    loader: Loader = core.get_component("data_loader")
    return loader


def kms_client(spec: ConnectionSpec) -> Any:
    """Return a KMS client with the credentials and settings of a connection.

    The extra of the connection may have ``kms_endpoint_url``, ``region_name`` and ``verify`` (true,
    false or the file of a certificate authority). Without ``kms_endpoint_url``, the client uses the
    endpoint that AWS has for the region.

    Raises:
        UsageError: the endpoint or the region is missing or malformed.
    """
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    is_aws = spec.conn_type in {"aws", "s3"}
    try:
        return new_session().client(
            "kms",
            region_name=spec.text("region_name") or None,
            endpoint_url=spec.text("kms_endpoint_url") or None,
            verify=spec.verify,
            aws_access_key_id=(spec.login or None) if is_aws else None,
            aws_secret_access_key=(spec.password or None) if is_aws else None,
            config=Config(
                connect_timeout=10,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 6},
            ),
        )
    except (BotoCoreError, ValueError):
        raise UsageError(
            f"KMS cannot be reached by the connection {spec.conn_id}: its endpoint or region is "
            "missing or malformed.",
            "Check kms_endpoint_url and region_name in its extra.",
        ) from None


def kms_transport(spec: ConnectionSpec) -> Transport:
    """Return how the network route to the KMS of a connection is protected.

    The endpoint is read from a boto3 client, because the connection may omit it: AWS settings in
    the environment can also name the endpoint.
    """
    return of_url(kms_client(spec).meta.endpoint_url, spec.verify)
