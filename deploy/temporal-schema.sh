#!/bin/sh
# Creates Temporal's two databases and brings their schemas up to date. Every step can be repeated, so the job runs
# at every start: after an upgrade of the image it is what migrates the schema. SQL_PASSWORD comes by environment.
set -eu

sql() {
    database=$1
    shift
    temporal-sql-tool --plugin postgres12 --ep "$SQL_HOST" -p "$SQL_PORT" -u "$SQL_USER" --db "$database" "$@"
}

migrate() {
    sql "$1" create
    sql "$1" setup-schema -v 0.0
    sql "$1" update-schema -d "/etc/temporal/schema/postgresql/v12/$2/versioned"
}

migrate temporal temporal
migrate temporal_visibility visibility
