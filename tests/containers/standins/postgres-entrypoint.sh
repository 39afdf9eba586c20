#!/bin/bash
# What the official image does at its start: makes the cluster once, runs /docker-entrypoint-initdb.d, then the server.
set -euo pipefail
as_postgres() { setpriv --reuid postgres --regid postgres --init-groups "$@"; }

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    chown postgres "$PGDATA"
    (umask 077 && as_postgres bash -c 'umask 077; cat >/var/run/postgresql/password' <"$POSTGRES_PASSWORD_FILE")
    as_postgres initdb --username="$POSTGRES_USER" --pwfile=/var/run/postgresql/password --auth-local=trust \
        --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
    rm /var/run/postgresql/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    echo 'host replication all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    as_postgres pg_ctl -w start -o "-c listen_addresses=''"
    psql() { as_postgres psql -X -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" "$@"; }
    psql -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
    for script in /docker-entrypoint-initdb.d/*.sql; do
        [ -e "$script" ] && psql -d "$POSTGRES_DB" <"$script"
    done
    as_postgres pg_ctl -w -m fast stop
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$@" -c "listen_addresses=*"
