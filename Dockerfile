# ParcelSeal and Airflow: every part of the stack but database, broker and store runs in this image.
# Any Debian 13 serves as base; what it lacks comes from Debian, Python's packages from an index or
# from deploy/wheels (docs/how-to/deploy.md).
ARG BASE_IMAGE=debian:13-slim

FROM ${BASE_IMAGE} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
         ca-certificates fonts-noto-cjk libharfbuzz-subset0 libpango-1.0-0 libpangoft2-1.0-0 \
         openssl postgresql-client python3 util-linux \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s "$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)" /opt/postgresql-client

FROM base AS packages
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /build/
# An index or authority of the company's own comes in as a build secret and stays outside.
RUN --mount=type=bind,source=deploy/wheels,target=/wheels \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/build/ca.pem \
    set -e; \
    python3 -m venv /opt/parcelseal/.venv; \
    if ls /wheels/*.whl >/dev/null 2>&1; then set -- --no-index --find-links /wheels; fi; \
    if [ -s /build/ca.pem ]; then set -- "$@" --cert /build/ca.pem; fi; \
    /opt/parcelseal/.venv/bin/pip install "$@" --no-cache-dir --disable-pip-version-check \
      --progress-bar off --quiet --no-compile --no-deps --require-hashes -r /build/requirements.txt; \
    # files of other versions of Python do not compile, and are never imported
    python3 -m compileall -q -q -j 0 /opt/parcelseal/.venv/lib || :
# The launcher takes these as its word that everything is installed.
RUN sha256sum /build/requirements.txt | cut -d ' ' -f 1 | tr -d '\n' \
      >/opt/parcelseal/.venv/.requirements.txt.sha256 \
    && touch /opt/parcelseal/.venv/.system-packages

FROM base
COPY --from=packages /opt/parcelseal/.venv /opt/parcelseal/.venv
COPY parcelseal requirements.txt docker-compose.yaml /opt/parcelseal/
COPY dags /opt/parcelseal/dags
COPY plugins /opt/parcelseal/plugins
COPY include /opt/parcelseal/include
ARG REVISION=unknown
RUN printf '%s\n' "${REVISION}" >/opt/parcelseal/REVISION \
    && python3 -m compileall -q /opt/parcelseal/dags /opt/parcelseal/include /opt/parcelseal/plugins \
    && install -d -m 1777 /var/lib/parcelseal /var/lib/parcelseal-logs /var/lib/parcelseal-mail
LABEL org.opencontainers.image.title="ParcelSeal" org.opencontainers.image.revision="${REVISION}"
# Nothing is written but below /tmp and on volumes, so the root filesystem can be read-only.
ENV PATH=/opt/parcelseal/.venv/bin:$PATH \
    PYTHONPATH=/opt/parcelseal \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    USER=parcelseal \
    XDG_CACHE_HOME=/tmp/cache \
    AIRFLOW_HOME=/tmp/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/parcelseal/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/parcelseal/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=/var/lib/parcelseal-logs/airflow \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    PARCELSEAL_HOME=/tmp/parcelseal \
    PARCELSEAL_LOCAL_PROFILE=off \
    PARCELSEAL_POSTGRES_CLIENT=/opt/postgresql-client
WORKDIR /opt/parcelseal
USER 10001
CMD ["./parcelseal", "--help"]
