"""Who may talk to the Ray cluster: whoever has its token. Ray reads this when it is imported."""

from __future__ import annotations

import os
import secrets

_NO_METRICS = {
    "RAY_enable_metrics_collection": "0",
    "DASHBOARD_METRIC_PORT": "-1",
    "AUTOSCALER_METRIC_PORT": "-1",
}
"""Where `ray[default]` is installed each of these would serve metrics to whoever asks, on every
interface and without a token; nobody reads them here."""

_SELDOM = {
    # Its log monitor would look through all logs ten times a second, to tell a driver that is deaf.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "86400",
    # Its autoscaler would count every five seconds what one machine has and lacks.
    "AUTOSCALER_UPDATE_INTERVAL_S": "86400",
    # A record of every task, for a dashboard that does not run.
    "RAY_task_events_report_interval_ms": "0",
}
"""What Ray does beside a sweep, 0.6 % of a core all the time, and nobody reads."""


def prepare(address: str | None) -> None:
    """Set the environment that Ray is imported in.

    Ray's ports listen on every interface, so a cluster of our own asks for a token that only this
    process and its children know, and has no port that asks for none. A cluster that runs already
    has a token of its own, which Ray finds in `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH` or
    `~/.ray/auth_token`.

    Args:
        address: of a running cluster; null for one of our own.
    """
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        # A control store that died on this machine does not come back; Ray would wait a minute.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Workers that wait beforehand are for tasks; Tune's are actors, which never take them over.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        for name, value in {**_NO_METRICS, **_SELDOM}.items():
            os.environ.setdefault(name, value)
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Tune would answer Ctrl-C with a result like any other: we want to be told.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    # Tune's own console output and loggers would double ours.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune would write down every ten seconds how far it is: the store resumes.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "86400")
