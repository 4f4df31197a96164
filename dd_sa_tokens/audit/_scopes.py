"""What a scope lets its holder do. Source: https://docs.datadoghq.com/account_management/rbac/permissions/."""

from __future__ import annotations

_READING = {"query", "read", "tail", "view"}
_OF_ADMINISTRATORS = (
    "admin",
    "api_keys_",
    "audit_logs_",
    "billing_",
    "governance_",
    "org_",
    "service_account_",
    "user_",
)


def writes(scope: str) -> bool:
    """Return whether a scope lets its holder change something.

    A scope that only reads has `read`, `view`, `query` or `tail` among its words: `dashboards_read`, `logs_read_data`,
    `timeseries_query`. Any other scope counts as one that writes, also an unknown one, so that no scope that writes is
    missed: `monitors_write`, `logs_write_archives`, `workflows_run`, `monitors_downtime`, `data_scanner_unmask`.

    Args:
        scope: The name of a permission.

    Returns:
        Whether it does: True unless the scope only reads.
    """
    return _READING.isdisjoint(scope.split("_"))


def administers(scope: str) -> bool:
    """Return whether a scope lets its holder change permissions, the organization itself, its keys or its bill.

    Such scopes are `user_access_manage`, `service_account_write`, `org_management`, `org_app_keys_write` and
    `billing_edit`. Scopes that only read, such as `user_access_read`, are not among them.

    Args:
        scope: The name of a permission.

    Returns:
        Whether it does.
    """
    return scope.startswith(_OF_ADMINISTRATORS) and writes(scope)
