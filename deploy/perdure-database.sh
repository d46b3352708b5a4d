#!/bin/sh
# Creates Perdure's role and its database. Every step can be repeated, so the job runs at every start; a password that
# was changed is the role's from then on. PGHOST, PGUSER and PGPASSWORD (of who may create both) and
# PERDURE_DB_PASSWORD come by environment: what stands on a command line can be read by others.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname postgres <<'SQL'
\getenv password PERDURE_DB_PASSWORD
SELECT 'CREATE ROLE perdure LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'perdure') \gexec
ALTER ROLE perdure PASSWORD :'password';
SELECT 'CREATE DATABASE perdure OWNER perdure' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'perdure') \gexec
REVOKE ALL ON DATABASE perdure FROM PUBLIC;
SQL
