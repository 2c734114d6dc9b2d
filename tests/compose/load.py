"""Two mapped databases that are so large that tests can interrupt their dumps."""

from __future__ import annotations

import json

from include.deployment import layout
from include.deployment.zones import ZONES
from tests.compose.stack import Stack, say

LOADS = ("load_one", "load_two")
ROWS_PER_MEGABYTE = 2_600  # rows of the table below per MB on disk
_MAP = """dataset:
  - fides_key: {name}
    name: {name}
    meta:
      parcelseal: {{connection: {name}_db, class: internal}}
    collections:
      - name: {name}_parcel
        fields:
          - {{name: id, fides_meta: {{primary_key: true}}}}
          - {{name: label}}
"""
# Half of a label compresses well, as records do; the other half does not.
_FILL = """CREATE TABLE {name}_parcel AS
  SELECT g AS id, md5(g::text) || md5((g + 1)::text) || md5((g + 2)::text) || md5((g + 3)::text)
    || repeat('Kunming, Wuhua District. ', 6) AS label
  FROM generate_series(1, {rows}) g;
ALTER TABLE {name}_parcel ADD PRIMARY KEY (id);
"""


def prepare(stack: Stack, megabytes: int) -> None:
    """Create the databases, connections and data maps, and restart the workers.

    Args:
        stack: running stack.
        megabytes: size of each database in MB.
    """
    there = stack.state("SELECT datname FROM pg_database", "customers", "postgres").split()
    for name in LOADS:
        if name not in there:
            say(f"making {name} of {megabytes} MB")
            stack.state(f"CREATE DATABASE {name}", "customers", "postgres")
            rows = megabytes * ROWS_PER_MEGABYTE
            stack.state(_FILL.format(name=name, rows=rows), "customers", name)
        size = stack.state(f"SELECT pg_database_size('{name}') >> 20", "customers", name)
        say(f"{name} has {size} MB")
    path = stack.private / "connections.json"
    connections = json.loads(path.read_text())
    if {f"{name}_db" for name in LOADS} <= set(connections):
        return
    for name in LOADS:
        connections[f"{name}_db"] = {**connections["customer_db"], "schema": name}
        target = stack.private / "policy" / "datamap" / f"{name}.yaml"
        target.write_text(_MAP.format(name=name))
        target.chmod(0o644)
    path.write_text(json.dumps(connections, indent=1))  # in place: it keeps owner, mode and inode
    assert connections["customer_db"]["host"] == layout.CUSTOMERS
    stack.init()  # which gives each zone its connections
    workers = [zone.service for zone in ZONES.values()]
    stack.compose("up", "--detach", "--force-recreate", "--wait", "dag-processor", *workers)
