#!/bin/sh
# Creates the namespace and registers the search attributes, and can be repeated. A worker must find both: Temporal
# retries the tasks of a workflow that sets an unknown attribute for ever.
# TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_RETENTION and SEARCH_ATTRIBUTES ("Name=Type ...") by environment.
set -eu

ATTEMPTS=60

# A new server refuses calls for a while, and does not know a new namespace until its cache is refreshed.
retry() {
    attempt=1
    until "$@"; do
        if [ "$attempt" -ge "$ATTEMPTS" ]; then
            echo "gave up after $ATTEMPTS attempts: $*" >&2
            return 1
        fi
        attempt=$((attempt + 1))
        sleep 1
    done
}

namespace() {
    temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
        temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "$TEMPORAL_RETENTION"
}

attributes() {
    set --
    for pair in $SEARCH_ATTRIBUTES; do
        set -- "$@" --name "${pair%%=*}" --type "${pair#*=}"
    done
    temporal operator search-attribute create --namespace "$TEMPORAL_NAMESPACE" "$@"
}

retry namespace
retry attributes
