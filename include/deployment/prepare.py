"""Create roles, databases and buckets in the init container, before Airflow starts.

A repeated call creates only those that do not exist yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from include.deployment import layout
from include.local.roles import (
    COURIER,
    COURIER_OWNER,
    create_databases,
    create_roles,
    grant_connect,
    grant_courier,
)
from include.sample_company import load
from include.sample_company.current_waybills import add_current_waybills
from include.sample_company.load import grant
from include.services.database import DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.s3 import make_s3_client
from include.services.objectstore.s3_answers import error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Preparation:
    """Prepares the servers of the Docker Compose stack.

    The methods create the roles, databases and buckets, and load the sample database.

    Args:
        secrets: folder with the secrets inside this container.
        tell: function that receives a line of text before each longer step.
        hosts: for tests, connection parameters that replace the address of a server, by server
            name.
        store: URL of the object store.
        region: region of the buckets.
    """

    secrets: Path
    tell: Tell
    hosts: dict[str, dict[str, str]]
    store: str = f"https://{layout.STORE}:{layout.STORE_PORT}"
    region: str = layout.REGION

    def databases(self) -> None:
        """Create databases and roles of Airflow and ParcelSeal, and the role of restore drills.

        Raises:
            ServiceError: a server cannot be reached.
            UsageError: a secret is missing, or a server refuses the login of the superuser.
        """
        for host in (layout.POSTGRES, layout.SCRATCH):
            self._servers_own(host)
        with connected(self._superuser(layout.POSTGRES)) as admin:
            admin.autocommit = True
            admin.execute(f"GRANT pg_read_all_data TO {layout.BACKUP_READER}")
            grant_connect(admin, layout.AIRFLOW, [layout.BACKUP_READER])
            grant_connect(admin, layout.STATE, [layout.BACKUP_READER, layout.PAGES])

    def sample(self, customers: int, now: datetime) -> None:
        """Load the sample customer database. If it exists already, add current waybills to it.

        Args:
            customers: number of customers in a new sample database.
            now: current time, at which the history of the sample data ends.

        Raises:
            ServiceError: the server cannot be reached.
        """
        self._servers_own(layout.CUSTOMERS)
        with connected(self._superuser(layout.CUSTOMERS)) as admin:
            admin.autocommit = True
            grant_courier(admin)
        owner = self._address(
            layout.CUSTOMERS, COURIER_OWNER, self._role_passwords()[COURIER_OWNER]
        )
        with connected(owner.with_database(COURIER)) as connection:
            if connection.execute("SELECT to_regclass('public.customer')").fetchone() == (None,):
                connection.rollback()
                self.tell(f"loading the sample courier database ({customers:,} customers)")
                load(connection, customers=customers, as_of=now)
            else:
                add_current_waybills(connection, now)
            grant(connection)
            connection.commit()

    def buckets(self) -> None:
        """Create the buckets; users other than their owners get limited rights.

        The buckets of backups and evidence have Object Lock. The bucket of extracts keeps versions,
        and locks nothing, so that an expired extract can be deleted at any time.

        Raises:
            ServiceError: the object store refuses a request.
            UsageError: a bucket exists without Object Lock, which cannot be enabled afterwards.
        """
        for user, bucket in layout.BUCKETS.items():
            client = self._client(user)
            try:
                if user in layout.LOCKABLE:
                    self._lockable_bucket(client, bucket)
                else:
                    self._versioned_bucket(client, bucket)
                client.put_bucket_policy(Bucket=bucket, Policy=bucket_policy(user, bucket))
            except ClientError as error:
                raise ServiceError(
                    f"The store refuses the bucket {bucket}: {error_code(error)}.",
                    "Read the store's log: docker compose logs store.",
                ) from None

    def _lockable_bucket(self, client: S3Client, bucket: str) -> None:
        if not _owns_bucket(client, bucket):
            self.tell(f"creating the bucket {bucket} with Object Lock")
            client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        try:
            client.get_object_lock_configuration(Bucket=bucket)
        except ClientError:
            raise UsageError(
                f"The bucket {bucket} has no Object Lock.",
                "Name another bucket in the connection, or delete this bucket if it is empty.",
            ) from None

    def _versioned_bucket(self, client: S3Client, bucket: str) -> None:
        if not _owns_bucket(client, bucket):
            self.tell(f"creating the bucket {bucket}")
            client.create_bucket(Bucket=bucket)
        # Each time: an earlier call may have ended between the two requests.
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def _client(self, user: str) -> S3Client:
        return make_s3_client(
            self.store,
            self.region,
            self._secret(f"store_{user}_access"),
            self._secret(f"store_{user}_secret"),
            verify=str(self.secrets / "ca_certificate"),
        )

    def _servers_own(self, host: str) -> None:
        passwords = self._role_passwords()
        with connected(self._superuser(host)) as admin:
            admin.autocommit = True
            create_roles(admin, layout.ROLES[host], passwords)
            create_databases(admin, layout.DATABASES[host])

    def _superuser(self, host: str) -> DatabaseAddress:
        return self._address(host, "postgres", self._secret(f"{host}_superuser"))

    def _address(self, host: str, user: str, password: str) -> DatabaseAddress:
        verified = {
            "host": host,
            "sslmode": "verify-full",
            "sslrootcert": str(self.secrets / "ca_certificate"),
        }
        words = {"dbname": "postgres", "user": user, **self.hosts.get(host, verified)}
        return DatabaseAddress.from_parameters(words, password)

    def _role_passwords(self) -> dict[str, str]:
        passwords: dict[str, str] = json.loads(self._secret("role_passwords.json"))
        return passwords

    def _secret(self, name: str) -> str:
        try:
            return (self.secrets / name).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageError(
                f"The secret {name} cannot be read: {error.strerror}.",
                "Run `./parcelseal compose init`, then start the stack again.",
            ) from None


def _owns_bucket(client: S3Client, bucket: str) -> bool:
    return bucket in {existing["Name"] for existing in client.list_buckets()["Buckets"]}


def grant_pages(state: DatabaseAddress) -> None:
    """Grant the role of the compliance pages the right to read the tables that the pages show.

    The state database must already be migrated.

    Args:
        state: address of the state database with its owner's login.
    """
    from include.registry import pages_tables
    from include.state.connect import engine
    from include.state.reading import grant_pages as grant_to

    with engine(state.conninfo()).begin() as conn:
        grant_to(conn, layout.PAGES, pages_tables())


READING = (
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:GetObjectRetention",
    "s3:GetObjectLegalHold",
)
WRITING = (
    "s3:PutObject",
    "s3:PutObjectRetention",
    "s3:AbortMultipartUpload",
    "s3:ListBucketMultipartUploads",
    "s3:ListMultipartUploadParts",
)


def bucket_policy(owner: str, bucket: str) -> str:
    """Return the S3 policy of a bucket as JSON. Only the owner of the bucket may delete objects.

    Args:
        owner: login of the bucket's owner.
        bucket: name of the bucket.
    """
    # Zones with the login of READER must not read extracts.
    reader = layout.EXTRACT_READER if owner == layout.EXTRACTS else layout.READER
    granted: list[tuple[str, tuple[str, ...]]] = [(reader, READING)]
    if owner == layout.BACKUPS:
        granted.append((layout.WRITER, READING + WRITING))
        # The owner of a bucket has no rights on objects that another user wrote.
        granted.append((layout.BACKUPS, ("s3:*",)))
    statements = [
        {
            "Effect": "Allow",
            "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
            "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        for user, actions in granted
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
