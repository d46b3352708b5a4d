"""What must be so before a worker may poll: each check raises what is wrong and how to mend it.

A search attribute that Temporal doesn't know would make it retry the workflow task of every thread for ever, and a
store without its schema would fail every activity: better not to begin.
"""

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from perdure.contracts import SEARCH_ATTRIBUTES
from perdure.errors import NotSetUp, PerdureError, StoreOutdated, TemporalUnreachable
from perdure.stores import Store


async def require_namespace(client: Client) -> None:
    """Raises NotSetUp if Temporal doesn't know the client's namespace, TemporalUnreachable if it doesn't answer."""
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise unanswered(error) from error
        raise NotSetUp(
            f"Temporal has no namespace {client.namespace!r}.",
            hint=f"Make it: temporal operator namespace create {_where(client)}",
        ) from error


async def require_search_attributes(client: Client) -> None:
    """Raises NotSetUp with the command that registers what is missing; TemporalUnreachable."""
    try:
        missing = await missing_attributes(client)
    except RPCError as error:
        raise unanswered(error) from error
    wrong = {name: found for name, found in missing.items() if found}
    if wrong:
        name, found = wrong.popitem()
        raise NotSetUp(
            f"The search attribute {name} of namespace {client.namespace!r} is of type {found}, "
            f"but has to be {SEARCH_ATTRIBUTES[name]}.",
            hint=f"A type can't be changed. If nothing else uses it: temporal operator search-attribute remove "
            f"{_where(client)} --name {name} --yes; then create it anew.",
        )
    if missing:
        pairs = " ".join(f"--name {name} --type {SEARCH_ATTRIBUTES[name]}" for name in missing)
        raise NotSetUp(
            f"Namespace {client.namespace!r} lacks the search attributes {', '.join(missing)}.",
            hint=f"Register them: temporal operator search-attribute create {_where(client)} {pairs}",
        )


async def require_schema(store: Store) -> None:
    """Raises StoreOutdated if migrations have to run first, StoreUnreachable if the store doesn't answer."""
    missing = await store.missing_migrations()
    if missing:
        raise StoreOutdated(
            f"The store {store.url} lacks {len(missing)} migrations, from {missing[0]} on.",
            hint="Run `perdure db migrate`.",
        )


async def missing_attributes(client: Client) -> dict[str, str]:
    """Search attributes that are not as threads need them: name -> the type they have, empty if there is none.

    Raises RPCError.
    """
    request = ListSearchAttributesRequest(namespace=client.namespace)
    known = (await client.operator_service.list_search_attributes(request)).custom_attributes
    found = {name: _kind(known[name]) if name in known else "" for name in SEARCH_ATTRIBUTES}
    return {name: kind for name, kind in found.items() if kind != SEARCH_ATTRIBUTES[name]}


def unanswered(error: RPCError) -> PerdureError:
    """What a call that Temporal didn't answer, or refused, means here."""
    return TemporalUnreachable(f"Temporal: {error.message}.")


def _kind(value: int) -> str:
    """``INDEXED_VALUE_TYPE_KEYWORD_LIST`` as the command line has it: KeywordList."""
    name = IndexedValueType.Name(IndexedValueType.ValueType(value)).removeprefix("INDEXED_VALUE_TYPE_")
    return "".join(part.capitalize() for part in name.split("_"))


def _where(client: Client) -> str:
    return f"--address {client.service_client.config.target_host} --namespace {client.namespace}"
