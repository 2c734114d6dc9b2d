"""Sessions of boto3, and the only place that builds a KMS client."""

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
    """Return a new session: a session must not be shared by threads.

    All sessions share the descriptions of services. Reading them again takes 0.07 s.
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
    """Build a KMS client with the credentials of a connection of type aws.

    Extra may have ``kms_endpoint_url`` (else AWS), ``region_name`` and ``verify`` (true, false or
    the file of a certificate authority).

    Raises:
        UsageError: endpoint or region cannot be used.
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
    """Return how safe the way to the KMS of a connection is: data keys go over it.

    The endpoint is the client's own, which settings of AWS in the environment may name too.
    """
    return of_url(kms_client(spec).meta.endpoint_url, spec.verify)
